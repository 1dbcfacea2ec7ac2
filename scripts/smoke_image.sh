#!/bin/sh
# Builds the image and reduces a shipped network in it, as another user than root and without a network.
set -eu
cd "$(dirname "$0")/.."
docker build --tag redy-smoke .
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp models/avoidance.onnx models/avoidance_close.box.json "$work"
docker run --rm --network none --user "$(id -u):$(id -g)" --volume "$work:/data" --workdir /data redy-smoke \
  reduce avoidance.onnx --bounds avoidance_close.box.json --effort quick -o small.onnx 2> "$work/log"
test -s "$work/small.onnx"
if grep -q 'compiling the kernels' "$work/log"; then
  echo "error: the image compiled kernels that it should hold" >&2
  exit 1
fi
docker run --rm --network none redy-smoke doctor
