#!/usr/bin/env bash
# VNN-COMP interface v1: run_instance.sh v1 CATEGORY MODEL.onnx PROPERTY.vnnlib RESULTS TIMEOUT
# RESULTS gets one word (sat, unsat, timeout, unknown, error) on its first line; behind sat comes the witness.
# ONNXSUB_PYTHON: the interpreter, default .venv/bin/python of this checkout.
set -uo pipefail

if [ "${1:-}" != v1 ]; then
    echo "run_instance.sh: expected version v1, got '${1:-}'" >&2
    exit 1
fi
if [ $# -ne 6 ]; then
    echo "run_instance.sh: usage: run_instance.sh v1 CATEGORY MODEL PROPERTY RESULTS TIMEOUT" >&2
    exit 1
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${ONNXSUB_PYTHON:-$root/.venv/bin/python}
model=$3 property=$4 results=$5 seconds=$6

rm -f -- "$results"
# the tool stops by itself; the outer limit is for the case that a library does not come back
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" timeout --kill-after=5 "$(awk "BEGIN {print $seconds + 5}")" \
    "$python" -m onnxsub.cli.vnncomp "$model" "$property" "$results" "$seconds"
code=$?
if [ ! -s "$results" ]; then
    if [ $code -eq 124 ] || [ $code -eq 137 ]; then echo timeout; else echo error; fi > "$results"
fi
exit 0
