"""One process per run folder, and no process of a killed run beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxsub import family
from onnxsub.errors import InputError, OutputError

__all__ = ["MARK", "end_family", "lock"]

MARK = "ONNXSUB_RUN"
"""Environment variable by which the workers of a run and whatever they started are known."""


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Holds the lock file for the time of the block. SQLite's own lock: it ends with the process, however that ends.

    Raises:
        InputError: another process holds it. OutputError: it cannot be written.
    """
    db: sqlite3.Connection | None = None
    try:
        try:
            db = sqlite3.connect(path, isolation_level=None, timeout=0.0)
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
        if db is not None:
            db.close()


def end_family(mark: str) -> None:
    """Kills every process that has `MARK=mark...` in its environment, but this one, until none is left."""
    assert mark  # an empty one would be everybody's
    family.end_family(f"{MARK}={mark}")
