"""`python -m onnxsub.cli.vnncomp MODEL PROPERTY RESULTS TIMEOUT`: one instance of VNN-COMP, for `scripts/vnncomp/run_instance.sh`.

Whatever happens, RESULTS holds one of the words sat (with the witness), unsat, timeout, unknown and error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

__all__ = ["main", "run_instance"]

_STARTED = time.perf_counter()  # imports are on the clock too
_MARGIN = 1.0
"""Seconds that are kept back for the last step of a search and for writing the file."""


def run_instance(model_path: str, property_path: str, results: str, timeout: float) -> int:
    """Decides one instance and writes the results file; 0 when an answer was written, 4 for `error` (the reason goes to stderr)."""
    from onnxsub.errors import OnnxsubError
    from onnxsub.files import write_atomic

    try:
        from onnxsub.model import load_model
        from onnxsub.reading import Reading
        from onnxsub.verifiers.options import Limits
        from onnxsub.verifiers.property import decide_property
        from onnxsub.verifiers.verify import VerifyOptions

        model = load_model(model_path, Reading(sigmoids=True))
        left = timeout - (time.perf_counter() - _STARTED) - min(_MARGIN, timeout / 10)
        text = "timeout\n"
        if left > 0:
            text = decide_property(model, property_path, VerifyOptions(Limits(timeout=left))).vnncomp_text()
    except (OnnxsubError, MemoryError) as error:
        print(f"onnxsub: {' '.join(str(error).split()) or 'not enough memory'}", file=sys.stderr)
        write_atomic(results, b"error\n")
        return 4
    write_atomic(results, text.encode())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The four arguments of the module's own command line."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        model, question, results, seconds = args
        timeout = float(seconds)
    except ValueError:
        print("onnxsub: usage: python -m onnxsub.cli.vnncomp MODEL PROPERTY RESULTS TIMEOUT", file=sys.stderr)
        return 2
    return run_instance(model, question, results, timeout)


if __name__ == "__main__":
    sys.exit(main())
