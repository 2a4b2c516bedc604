"""One process per run folder, and no process of a killed run beside it."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxsub.errors import InputError, OutputError

__all__ = ["MARK", "end_family", "lock"]

MARK = "ONNXSUB_RUN"
"""Environment variable by which the workers of a run and whatever they started are known."""

_SWEEPS = 200


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds the lock file for the time of the block. SQLite's own lock: it ends with the process, however that ends.

    Raises:
        InputError: another process holds it. OutputError: it cannot be written.
    """
    db = sqlite3.connect(path, isolation_level=None, timeout=0.0)
    try:
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InputError(
                    f"{str(path.parent)!r} is in use by another onnxsub evaluate or robustness; wait for it or choose another --run"
                ) from error
            raise OutputError(f"{str(path)!r} cannot be written: {error}; choose a folder that is writable and has room") from error
        except sqlite3.DatabaseError as error:
            raise InputError(f"{str(path)!r} is damaged: {error}; remove it, it holds nothing") from error
        yield
    finally:
        db.close()


def end_family(mark: str) -> None:
    """Kills every process that has `MARK=mark...` in its environment, but this one, until none is left.

    Nothing on systems without /proc.
    """
    if not Path("/proc/self/environ").exists():
        return
    assert mark  # an empty one would be everybody's
    wanted = f"{MARK}={mark}".encode()
    for _ in range(_SWEEPS):
        members = _members(wanted)
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _members(wanted: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            state = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if state not in "ZX" and any(v.startswith(wanted) for v in (entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
        except (OSError, ValueError, IndexError):  # it ended meanwhile, or is another user's
            continue
    return found
