#!/usr/bin/env bash
# VNN-COMP interface v1: prepare_instance.sh v1 CATEGORY MODEL.onnx PROPERTY.vnnlib
# Only looks whether the tool and the two files are there; nothing is analysed. Exit code 0: the instance can be run.
set -euo pipefail

if [ "${1:-}" != v1 ]; then
    echo "prepare_instance.sh: expected version v1, got '${1:-}'" >&2
    exit 1
fi
if [ $# -ne 4 ]; then
    echo "prepare_instance.sh: usage: prepare_instance.sh v1 CATEGORY MODEL PROPERTY" >&2
    exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${ONNXSUB_PYTHON:-$root/.venv/bin/python}
for file in "$3" "$4"; do
    if [ ! -r "$file" ]; then
        echo "prepare_instance.sh: cannot read $file" >&2
        exit 1
    fi
done
# also brings the modules into the file cache, so that the first instance is not slower than the others
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -c 'import torch, onnxruntime, highspy, onnxsub.verifiers.property'
