"""Folders, and files so written that a reader never sees half of one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from onnxsub.errors import InputError, OutputError
from onnxsub.scratch import part_name, sweep_parts
from onnxsub.visible import visible

__all__ = ["atomic", "make_folder", "one_line", "refuse_links", "write_atomic"]


def one_line(message: object, limit: int = 300) -> str:
    """`message` on one line of at most `limit` characters, for error messages that quote another library."""
    text = visible(" ".join(str(message).split()))
    return text if len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` only when the block ends without an error.

    It is written under a temporary name in the same folder, flushed to the disk and renamed, so that a crash, a full disk
    or Ctrl-C leaves either the old file or the new one. A symbolic link is followed: its target is replaced.

    Raises:
        OutputError: the folder is missing or not writable, `path` is a folder, or the disk is full.
    """
    shown = Path(path)
    target = Path(os.path.realpath(shown))
    if target.is_dir():
        raise OutputError(f"cannot write {str(shown)!r}: it is a folder; give the name of a file in it")
    if target.exists() and not target.is_file():
        raise OutputError(f"cannot write {str(shown)!r}: it is a pipe or a device; give the name of a file")
    if not target.parent.is_dir():
        raise OutputError(f"cannot write {str(shown)!r}: there is no folder {str(shown.parent)!r}; create it or choose another one")
    temporary: Path | None = None
    try:
        sweep_parts(target.parent)
        name = target.parent / part_name()
        # an ordinary new file's permissions; mkstemp would give 0600
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        temporary = name
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        temporary.replace(target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        why = error.strerror or one_line(error)
        raise OutputError(f"cannot write {str(shown)!r}: {why}; choose a folder that is writable and has room") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str], otherwise: str) -> None:
    """Makes a folder and those above it, where they are not there.

    Args:
        otherwise: what the user does where that fails, such as `choose another --run`.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {os.fspath(path)!r}: {error.strerror or error}; {otherwise}") from error


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, all of it or nothing. Raises OutputError as `atomic` does."""
    with atomic(path) as file:
        file.write(data)


def refuse_links(root: Path, path: Path) -> None:
    """Raises InputError where `path`, or a folder between it and `root`, is a link: a file elsewhere would be written."""
    while path != root and path != path.parent:
        if path.is_symlink():
            raise InputError(f"{str(path)!r} is a symbolic link; put the file or folder itself there, or choose another folder")
        path = path.parent


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last. Not every system can open a folder, and the file is complete either way."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
