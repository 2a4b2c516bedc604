"""The result tables of a run folder: `samples.csv` always, `results.parquet` besides where pyarrow is installed."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from onnxsub.evaluate.parquet import has_parquet, write_parquet
from onnxsub.files import atomic
from onnxsub.visible import safe_cell

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

__all__ = ["RESULTS", "SAMPLES", "cell", "results_of", "write_results"]

SAMPLES = "samples.csv"
RESULTS = "results.parquet"


def write_results(rows: Iterable[T], folder: Path, kind: type[T]) -> None:
    """Writes every row to both tables, each of them whole or not at all.

    Args:
        kind: the dataclass that a row is; its fields are the columns.

    Without pyarrow there is no `results.parquet`: one of an earlier end of the run would be out of date, so it is removed.

    Raises:
        OutputError: a table cannot be written.
    """
    with atomic(folder / SAMPLES) as file:
        passing = _written(rows, file, kind)
        if has_parquet():
            write_parquet(passing, folder / RESULTS, kind)
        else:
            deque(passing, maxlen=0)
            (folder / RESULTS).unlink(missing_ok=True)


def results_of(folder: Path) -> tuple[Path, Path | None]:
    """Paths of the CSV table and of the Parquet table; None where pyarrow was not there to write one."""
    parquet = folder / RESULTS
    return folder / SAMPLES, parquet if parquet.is_file() else None


def cell(value: Any) -> Any:
    """A value as a table of text has it: empty where it is not known, several numbers separated by blanks."""
    text = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return safe_cell(text) if isinstance(text, str) else text


@dataclass(frozen=True)
class _Encoded:
    """Lines of text for a file of bytes."""

    file: BinaryIO

    def write(self, text: str) -> int:
        return self.file.write(text.encode())


def _written(rows: Iterable[T], file: BinaryIO, kind: type[T]) -> Iterator[T]:
    """Passes the rows on, each after its line has been written."""
    names = [f.name for f in fields(kind)]
    writer = csv.writer(_Encoded(file), lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([cell(getattr(row, name)) for name in names])
        yield row
