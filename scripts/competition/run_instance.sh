#!/usr/bin/env bash
# VNN-COMP: run_instance.sh VERSION CATEGORY ONNX VNNLIB RESULT TIMEOUT. Writes the verdict to RESULT.
set -uo pipefail
[ "${1:-}" = v1 ] || { echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULT TIMEOUT" >&2; exit 1; }
onnx=$3 vnnlib=$4 result=$5 limit=$6
redy=$(cd "$(dirname "$0")/../.." && pwd)/.venv/bin/redy
[ -x "$redy" ] || redy=redy
rm -f "$result"
# The process gets a moment less than the instance, so that it ends by itself.
seconds=$(awk -v t="$limit" 'BEGIN { print (t > 10 ? t - 2 : 0.8 * t) }')
timeout "$limit" "$redy" prove "$onnx" --property "$vnnlib" --time-limit "$seconds" --result "$result" --quiet
code=$?
if [ ! -s "$result" ]; then
  case $code in 124 | 137) echo timeout ;; *) echo error ;; esac >"$result"
fi
case $code in 0 | 1 | 3 | 124) exit 0 ;; *) exit "$code" ;; esac
