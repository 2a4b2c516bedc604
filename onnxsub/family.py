"""Processes that belong together, and their end: a word in their environment marks them, also where they left the session.

    python -I -S family.py DESCRIPTOR

is the guardian of a tool: it runs the command that comes through that socket and ends, with all that the tool has started, when the
tool ends or whoever started the guardian is gone, killed or not. On Linux it adopts every orphan among the tool's descendants, so
none can leave, whatever it does to its session and its environment. Nothing but Python itself is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

__all__ = ["GONE", "end_family", "main", "members", "until_gone"]

GONE = 0.5
"""Seconds between two looks at a parent."""

_SWEEPS = 200
_SET_CHILD_SUBREAPER = 36


def end_family(word: str, leaders: Collection[int] = ()) -> None:
    """Kills every other process that has a variable beginning with `word` (`NAME=value`) in its environment, or that belongs to the
    session of one of the leaders; again and again until none is left, since one may be forking at that moment.

    Nothing on systems without /proc.
    """
    assert word  # an empty one would be everybody's
    _end(lambda: members(word, leaders))


def _end(look: Callable[[], list[int]]) -> None:
    for _ in range(_SWEEPS):
        found = look()
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def members(word: str, leaders: Collection[int] = ()) -> list[int]:
    """Those that live; of other users none."""
    if not Path("/proc/self/environ").exists():
        return []
    wanted, found = word.encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            # state, parent, group, session follow the name, which may hold blanks and parentheses
            state, _, _, session = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
            if state in "ZX":
                continue
            if int(session) in leaders or any(v.startswith(wanted) for v in (entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
        except (OSError, ValueError, IndexError):  # it ended meanwhile, or is another user's
            continue
    return found


def until_gone(parent: int) -> None:
    """Returns when `parent` is no longer the parent of this process."""
    while os.getppid() == parent:
        time.sleep(GONE)


def main(channel: int) -> int:
    """Runs one command: a line of JSON comes in (`args`, `cwd`, `env`), two lines go out.

    The first holds the error's number (0: it runs) and the tool's process, the second the exit code as `subprocess` gives it.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # unlike SIG_IGN, not what the tool begins with
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(channel, 2**16)
        if not piece:
            return 1
        line += piece
    try:
        child = subprocess.Popen(**json.loads(line), start_new_session=True)
    except OSError as error:
        _tell(channel, f"{error.errno or 1} 0")
        return 1
    _tell(channel, f"0 {child.pid}")
    threading.Thread(target=_until_closed, args=(channel, child.pid), daemon=True).start()
    ended = status = 0
    while ended != child.pid:  # orphans are collected as well
        ended, status = os.wait()
    _end_tree(child.pid)
    _tell(channel, str(os.waitstatus_to_exitcode(status)))
    return 0


def _tell(channel: int, line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(channel, f"{line}\n".encode())


def _until_closed(channel: int, child: int) -> None:
    with contextlib.suppress(OSError):
        os.read(channel, 1)
    _end_tree(child)
    os._exit(1)


def _end_tree(child: int) -> None:
    """Kills all that descends from this process; without /proc the group of the tool."""
    if Path("/proc/self/stat").exists():
        _end(_descendants)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)


def _descendants() -> list[int]:
    """Those of this process that live."""
    parents: dict[int, int] = {}
    living = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            parents[int(entry.name)] = int(parent)
            if state not in "ZX":
                living.add(int(entry.name))
    mine = {os.getpid()}
    for _ in parents:
        more = {pid for pid, parent in parents.items() if parent in mine} - mine
        if not more:
            break
        mine |= more
    return sorted(mine & living - {os.getpid()})


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
