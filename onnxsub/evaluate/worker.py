"""The process of a worker: tasks come in on standard input, outcomes go out on standard output, until the input ends.

Run by `onnxsub.isolation.python_module`, with nothing of the working folder on its path. Both ways a message is its length (8
bytes, big endian) and a pickle; the other end is the process that started this one. A message that is no list of tasks is the
settings of those that follow, which travel without. Each outcome goes out before the next task begins. A list that takes long is
not done to its end: a number says how many of its tasks are given back.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, NoReturn

from onnxsub.family import until_gone
from onnxsub.process import leave, taken_output

if TYPE_CHECKING:
    from onnxsub.evaluate.plan import RunSettings
    from onnxsub.evaluate.task import Outcome, Task

__all__ = ["main", "read_message", "write_message"]

_LENGTH = struct.Struct(">Q")
_SLICE = 0.05
"""Seconds after which no further task of a list begins: another worker may have nothing to do."""
_REST = 0.2
"""Seconds of work after which memory is given back."""


def read_message(stream: IO[bytes]) -> Any:
    """The next message; raises EOFError where the stream ends, also in the middle of one."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return pickle.loads(body)


def write_message(stream: IO[bytes], message: Any) -> None:
    """Writes a message and flushes."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def main(module: str = "onnxsub.evaluate.work") -> NoReturn:
    """Works until there is nothing more to read, or until the parent is gone.

    Args:
        module: whose function `work` makes an outcome of a task.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    channel = os.fdopen(taken_output(), "wb")  # what a library prints must not get between the messages
    work: Callable[[Task], Outcome] = importlib.import_module(module).work
    settings: RunSettings | None = None
    give_back = _giving_back()
    while True:
        try:
            message = read_message(sys.stdin.buffer)
        except EOFError:
            leave(0)
        if not isinstance(message, list):
            settings = message
            continue
        began = time.monotonic()
        try:
            for place, task in enumerate(message):
                if place and time.monotonic() - began > _SLICE:
                    write_message(channel, len(message) - place)
                    break
                write_message(channel, work(task.bearing(settings)))  # the settings come before the first task
        except BrokenPipeError:
            leave(0)
        give_back()


def _giving_back() -> Callable[[], None]:
    """What gives memory back after a unit: graphs of networks are circles, which the collector finds late, and the C library keeps
    what was freed. All that the first unit has imported is left out of the search, which takes milliseconds then.
    """
    trim: Any = None
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no such thing
            trim = ctypes.CDLL(None).malloc_trim
    last = -_REST

    def give_back() -> None:
        nonlocal last
        if last > 0 and time.monotonic() - last < _REST:
            return
        gc.collect()
        if last < 0:
            gc.freeze()
        if trim is not None:
            trim(0)
        last = time.monotonic()

    return give_back


def _watch(parent: int) -> None:
    """Ends this process, and what it started, when the parent is gone: a killed run leaves nothing behind that computes."""
    from onnxsub.evaluate.lock import MARK, end_family

    until_gone(parent)
    if os.environ.get(MARK):
        end_family(os.environ[MARK])
    os._exit(1)


if __name__ == "__main__":
    main()
