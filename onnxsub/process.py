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
from collections.abc import Iterator
from typing import NoReturn, TextIO

__all__ = ["apart", "close_document", "document", "leave", "open_streams", "reserve_standard_output", "taken_output"]


class _Reserved:
    """Where the document goes while `sys.stdout` is standard error."""

    stream: TextIO | None = None


def open_streams() -> None:
    """Gives the process the streams that it was started without, and text that any stream can take.

    Without descriptor 1 the first file that is opened would be standard output, and messages for a closed standard error would go
    to standard output. What an encoding cannot say, ASCII of a bare locale for one, is written as an escape.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def taken_output() -> int:
    """A descriptor of its own for standard output; descriptor 1 leads to standard error from now on."""
    own = os.dup(1)
    os.dup2(2, 1)
    return own


def reserve_standard_output() -> None:
    """From now on `sys.stdout` alone reaches standard output, and no descriptor that a library or a child knows.

    Nothing happens where `sys.stdout` is something else already, as in a notebook, or a stream is closed.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        out = sys.stdout
        out.flush()
        if out.fileno() == 1:
            own = taken_output()
            buffering = 1 if os.isatty(own) else -1
            sys.stdout = os.fdopen(own, "w", buffering, encoding=out.encoding, errors=out.errors)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """For the time of the block `sys.stdout` is standard error, for libraries that print; `document()` is what it was.

    A block within a block changes nothing.
    """
    if _Reserved.stream is not None:
        yield
        return
    _Reserved.stream = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _Reserved.stream = None


def document() -> TextIO:
    """The stream of results: standard output."""
    return sys.stdout if _Reserved.stream is None else _Reserved.stream


def close_document() -> None:
    """The result is out: what threads and libraries print while the process ends goes to standard error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
    sys.stdout = sys.stderr


def leave(code: int) -> NoReturn:
    """Ends the process like `sys.exit`, but libraries in C are not taken apart."""
    # as the interpreter does: pools of threads are told to end, threads are joined
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)
