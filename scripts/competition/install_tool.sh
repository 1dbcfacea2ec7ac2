#!/usr/bin/env bash
# VNN-COMP: install_tool.sh VERSION. Installs redy and its dependencies into .venv beside pyproject.toml.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "usage: install_tool.sh v1" >&2; exit 1; }
cd "$(dirname "$0")/../.."
python3 -m venv .venv
.venv/bin/python -m pip install --quiet .
# Compiles the search once, so that no instance waits for it.
.venv/bin/python -c 'from redy.condensed.kernels import descent'
