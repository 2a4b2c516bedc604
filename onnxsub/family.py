"""Processes that belong together, and their end: a word in their environment marks them, also where they left the session.

    python -I -S family.py WORD

waits until whoever started it is gone, killed or not, and then ends all processes of that word. It is told on standard input which
sessions belong to it (`+PID`), and which no longer do (`-PID`). Nothing but Python itself is imported.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

__all__ = ["GONE", "end_family", "main", "members", "until_gone"]

GONE = 0.5
"""Seconds between two looks at a parent."""

_SWEEPS = 200


def end_family(word: str, leaders: Collection[int] = ()) -> None:
    """Kills every other process that has a variable beginning with `word` (`NAME=value`) in its environment, or that belongs to the
    session of one of the leaders; again and again until none is left, since one may be forking at that moment.

    Nothing on systems without /proc.
    """
    assert word  # an empty one would be everybody's
    for _ in range(_SWEEPS):
        found = members(word, leaders)
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


def main(word: str) -> int:
    """Waits for the end of standard input, whose other end only the parent holds."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    leaders: set[int] = set()
    for line in sys.stdin:
        (leaders.add if line[0] == "+" else leaders.discard)(int(line[1:]))
    end_family(word, leaders)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
