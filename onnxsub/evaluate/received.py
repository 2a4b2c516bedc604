"""A run folder that is only read, whoever it comes from: what its ledger holds is what was written, or it is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import LEDGER, PLAN
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.plan import checksum_of
from onnxsub.files import write_atomic

__all__ = ["check_kept", "keep_file", "read_ledger"]


@contextmanager
def read_ledger(run: Path) -> Iterator[Ledger]:
    """The ledger of a run folder, for the time of the block.

    Raises:
        InputError: no run folder; units, rows or a plan that are not as they were written, named.
    """
    with Ledger(run / LEDGER, readonly=True) as ledger:
        ledger.seals.check(checksum_of(run / PLAN))
        yield ledger


def keep_file(path: Path, data: bytes) -> None:
    """Writes a file of a run folder that reports read. Raises OutputError."""
    with Ledger(path.with_name(LEDGER)) as ledger:
        ledger.seals.keep(path.name, data)
    write_atomic(path, data)


def check_kept(path: Path) -> None:
    """Raises InputError where a file of a run folder is not as `keep_file` wrote it."""
    if path.with_name(LEDGER).is_file():
        with Ledger(path.with_name(LEDGER), readonly=True) as ledger:
            ledger.seals.check_file(path.name)
    elif path.is_file():
        raise InputError(f"{str(path)!r} lies in no run folder: there is no {LEDGER} beside it")
