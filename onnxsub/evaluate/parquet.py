"""`results.parquet`: the rows of a run as columns."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onnxsub.files import atomic

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")

__all__ = ["has_parquet", "write_parquet"]

_CHUNK = 20_000  # rows that are held as Python objects at a time


def has_parquet() -> bool:
    """Whether pyarrow is installed (extra `report`)."""
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError:
        return False
    return True


def write_parquet(rows: Iterable[T], path: Path, kind: type[T]) -> None:
    """Writes the rows, all of them or nothing.

    Args:
        kind: the dataclass that a row is; its fields are the columns.

    Raises:
        ImportError: no pyarrow. OutputError: the file cannot be written.
    """
    pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    schema = pyarrow.schema([(f.name, _type(str(f.type), pyarrow)) for f in fields(kind)])
    with atomic(path) as file, parquet.ParquetWriter(file, schema) as writer:
        chunk: list[T] = []
        for row in rows:
            chunk.append(row)
            if len(chunk) == _CHUNK:
                writer.write_table(_table(chunk, schema, pyarrow, kind))
                chunk = []
        writer.write_table(_table(chunk, schema, pyarrow, kind))


def _table(rows: list[T], schema: Any, pyarrow: Any, kind: type[T]) -> Any:
    columns = [pyarrow.array([getattr(r, f.name) for r in rows], type=schema.field(f.name).type) for f in fields(kind)]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _type(annotation: str, pyarrow: Any) -> Any:
    """The Parquet type of a field of a row."""
    kinds = {"str": pyarrow.string(), "int": pyarrow.int64(), "float": pyarrow.float64(), "bool": pyarrow.bool_()}
    kinds["tuple[int, ...]"] = pyarrow.list_(pyarrow.int64())
    return kinds[annotation.removesuffix(" | None")]
