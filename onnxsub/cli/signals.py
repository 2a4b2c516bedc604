"""Ctrl-C and SIGTERM: one way out, at any moment.

Both raise KeyboardInterrupt in the main thread, so that a command hands out what it has found; the exit code is 130. Three moments
need more care:

- While a module is imported, the exception could surface inside a C extension, which turns it into another error or loses it. So it
  waits until the import is over; where the work has not begun, there is nothing to hand out and the process ends at once.
- Once the result is out, the interpreter only clears up, and a signal is of no use any more.
- An exception inside a destructor or a callback is dropped by the interpreter. It is noted here, and so is the exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

__all__ = ["begin", "finish", "install", "interrupted", "screen"]

_AGAIN = 0.02  # seconds after which a signal that came during an import is looked at again
_IMPORT = "<frozen importlib._bootstrap>"


class _State:
    """Where the process stands: whether the handlers are `ours`, the work has `begun`, a signal `came`; what clears the screen."""

    ours = False
    begun = False
    came = False
    screen = b""


def install() -> None:
    """Takes SIGINT and SIGTERM, also where the process was started with SIGINT ignored (in the background of a script)."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a job in the background is not to be ended by the terminal's Ctrl-C
        signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGTERM, _handle)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _handle_again)
    _State.ours = True
    usual = sys.unraisablehook

    def dropped(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            usual(unraisable)

    sys.unraisablehook = dropped


def begin() -> None:
    """From now on there may be something to hand out."""
    _State.begun = True


def screen(restore: bytes) -> None:
    """What gives the terminal back as it was, for an end without warning; empty: nothing is to be restored."""
    _State.screen = restore


def finish() -> None:
    """The result is out: signals are not heeded any more, also while the interpreter takes itself apart."""
    if _State.ours:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def interrupted() -> bool:
    """Whether a signal came."""
    return _State.came


def _handle(number: int, frame: FrameType | None) -> None:
    _State.came = True
    if not _importing(frame):
        raise KeyboardInterrupt
    if not _State.begun:
        os.write(2, _State.screen + b"onnxsub: interrupted\n")
        os._exit(130)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    else:
        raise KeyboardInterrupt


def _handle_again(number: int, frame: FrameType | None) -> None:
    if _State.came:
        _handle(number, frame)


def _importing(frame: FrameType | None) -> bool:
    """Whether the main thread is inside an import."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False
