"""Temporary files and folders that say whose they are: what a killed process left behind is removed by the next one.

A name holds the process's number, when it began, and the machine's name for its processes. What belongs to a process of another
machine or container, or to one that lives, is left alone.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

__all__ = ["PREFIX", "part_name", "scratch", "sweep_parts"]

PREFIX = "onnxsub-"
_PART = ".part"
_AGE = 86400.0
"""Seconds after which a file that another machine was writing is nobody's."""
_UNKNOWN = "0"


def part_name() -> str:
    """The name of a file that is being written."""
    return f".{PREFIX}{_owner(os.getpid())}-{secrets.token_hex(8)}{_PART}"


def sweep_parts(folder: Path) -> None:
    """Removes what killed processes were writing in a folder; looked at once by each process."""
    _sweep(folder, f".{PREFIX}", _PART)


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for the time of the block; those that killed processes left behind are removed."""
    _sweep(Path(tempfile.gettempdir()), PREFIX, "")
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{_owner(os.getpid())}-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@cache
def _sweep(folder: Path, prefix: str, ending: str) -> None:
    with suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(prefix) and entry.name.endswith(ending) and _left(entry, prefix):
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(entry.path, ignore_errors=True)
                    elif entry.is_file(follow_symlinks=False):
                        Path(entry.path).unlink()


def _left(entry: os.DirEntry[str], prefix: str) -> bool:
    """Whether it is ours and its process is gone."""
    status = entry.stat(follow_symlinks=False)
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return False
    parts = entry.name[len(prefix) :].split("-")
    if len(parts) == 4 and parts[0] == _machine() and parts[1].isdecimal():
        process, began = int(parts[1]), parts[2]
        return _began(process) != began if began != _UNKNOWN else not _lives(process)
    return entry.name.endswith(_PART) and time.time() - status.st_mtime > _AGE


def _owner(process: int) -> str:
    return f"{_machine()}-{process}-{_began(process)}"


@cache
def _machine() -> str:
    """Where numbers of processes mean the same."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no file that is there
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return hashlib.sha256(f"{name} {space}".encode()).hexdigest()[:8]


def _began(process: int) -> str:
    """When a process began, in ticks; `0` where that cannot be told, `gone` where there is none."""
    if not Path("/proc/self/stat").exists():
        return _UNKNOWN
    try:
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "gone"


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
