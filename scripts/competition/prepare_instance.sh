#!/usr/bin/env bash
# VNN-COMP: prepare_instance.sh VERSION CATEGORY ONNX VNNLIB. Nothing to convert: exit code 0 if both files are there.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2; exit 1; }
[ -r "$3" ] && [ -r "$4" ]
