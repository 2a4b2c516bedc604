"""Standard output belongs to the result: what libraries print, in Python or in C, goes to standard error.

Solvers print banners with C's `printf` before an option can turn them off, and one line more makes a JSON document no JSON.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

__all__ = ["reserve_standard_output", "taken_output"]


def taken_output() -> int:
    """A descriptor of its own for standard output; descriptor 1 leads to standard error from now on."""
    own = os.dup(1)
    os.dup2(2, 1)
    return own


def reserve_standard_output() -> None:
    """From now on `sys.stdout` alone reaches standard output.

    Nothing happens where `sys.stdout` is something else already, as in a notebook, or a stream is closed.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        out = sys.stdout
        out.flush()
        if out.fileno() == 1:
            own = taken_output()
            buffering = 1 if os.isatty(own) else -1
            sys.stdout = os.fdopen(own, "w", buffering, encoding=out.encoding, errors=out.errors)
