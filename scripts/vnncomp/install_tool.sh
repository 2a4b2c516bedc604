#!/usr/bin/env bash
# VNN-COMP interface v1: install_tool.sh v1
# Makes the environment .venv of this checkout. PYTHON: the interpreter, 3.11 or newer (default python3).
set -euo pipefail

if [ "${1:-}" != v1 ]; then
    echo "install_tool.sh: expected version v1, got '${1:-}'" >&2
    exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
"${PYTHON:-python3}" -m venv "$root/.venv"
"$root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/constraints.txt" -e "$root[cpu]"
"$root/.venv/bin/onnxsub" --version
