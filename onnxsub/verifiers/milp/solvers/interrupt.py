"""Running a solver so that Ctrl-C and an event of the caller stop it, and what it has proved is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_interruptible"]

T = TypeVar("T")


_GRACE = 2.0  # seconds that a solver gets to stop


def run_interruptible(work: Callable[[], T], interrupt: Callable[[], None], stop: threading.Event) -> T:
    """`work()` in a thread of its own, so that this thread sees Ctrl-C; `interrupt` is called once when `stop` is set.

    Ctrl-C sets `stop`; the result of the stopped run is returned and the caller reads `stop`.

    Raises:
        KeyboardInterrupt: the solver did not stop within seconds, or Ctrl-C came again; it is left behind.
    """
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
