"""What belongs to the process as a whole: its standard output, and how it ends.

Solvers print banners with C's `printf` before an option can turn them off, and one line more makes a JSON document no JSON.
Their pools of threads abort now and then while the libraries of a process are taken apart (highspy 1.16, one end in four after a
time limit), and the exit code is lost.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import sys
import threading
from typing import NoReturn

__all__ = ["leave", "reserve_standard_output", "taken_output"]


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


def leave(code: int) -> NoReturn:
    """Ends the process like `sys.exit`, but libraries in C are not taken apart."""
    # as the interpreter does: pools of threads are told to end, threads are joined
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
