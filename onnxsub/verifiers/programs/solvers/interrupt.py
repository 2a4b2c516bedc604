"""Running a solver so that Ctrl-C, an event of the caller and the clock stop it, and what it has proved is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Abandoned", "run_interruptible"]

T = TypeVar("T")


_GRACE = 2.0  # seconds that a solver gets to stop
_LATE = 0.1  # seconds behind its own time limit after which a solver is told that it is over
_LOST = 0.4  # and after which it is left behind


class Abandoned(Exception):  # noqa: N818 - it ends a run, and is no error of anybody
    """The solver went on past its time limit and did not heed an interrupt: it is left behind, and nothing is known of its run."""


def run_interruptible(
    work: Callable[[], T], interrupt: Callable[[], None], stop: threading.Event, limit: float | None = None
) -> T:
    """`work()` in a thread of its own, so that this thread sees Ctrl-C; `interrupt` is called when `stop` is set or time is over.

    Ctrl-C sets `stop`; the result of the stopped run is returned and the caller reads `stop`.

    Args:
        limit: seconds after which the solver should have ended by itself.

    Raises:
        KeyboardInterrupt: the solver did not stop within seconds, or Ctrl-C came again; it is left behind.
        Abandoned: the same where its time was over.
    """
    due = None if limit is None else time.monotonic() + limit
    result: list[T] = []
    error: list[BaseException] = []
    finished = threading.Event()

    def body() -> None:
        try:
            result.append(work())
        except BaseException as e:  # handed to the caller's thread below
            error.append(e)
        finally:
            finished.set()

    threading.Thread(target=body, name="onnxsub-solver", daemon=True).start()
    told = 0.0
    while not finished.is_set():
        try:
            finished.wait(0.05)
            if due is not None and not finished.is_set() and time.monotonic() > due + _LATE:
                if time.monotonic() > due + _LOST:
                    raise Abandoned
                interrupt()
            if stop.is_set() and not finished.is_set():
                # again and again: a solver that has not begun yet forgets an interrupt
                told = told or time.monotonic()
                interrupt()
                if time.monotonic() - told > _GRACE:
                    raise KeyboardInterrupt  # the bracket is known; a solver deep in one step may take minutes to notice
        except KeyboardInterrupt:
            if told:
                raise  # the second Ctrl-C does not wait for the solver
            stop.set()
    if error:
        raise error[0]
    return result[0]
