"""Tables with named columns out of `.csv` and `.parquet` files, read column by column and row by row."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxsub.errors import InputError, MissingDependencyError
from onnxsub.files import one_line
from onnxsub.limits import check_regular, limits
from onnxsub.ops.base import Array

__all__ = ["ENDINGS", "LABELS", "Table", "columns_named", "label_column", "open_table"]

ENDINGS = (".csv", ".parquet")

LABELS = ("label", "labels", "target", "targets", "class", "y")
"""Names, in any case, that a column of labels has where nobody names it."""

_DELIMITERS = ",;\t"
_NUMBERED = ("", "unnamed: 0", "__index_level_0__")  # how pandas calls the row numbers that it writes


class Table(Protocol):
    """What a file of named columns can be asked.

    Attributes:
        what: the file, for messages. names: of the columns, row numbers that pandas wrote left out. count: of the rows.
        headed: whether the file names its columns.
    """

    what: str
    names: tuple[str, ...]
    count: int
    headed: bool

    def column(self, name: str) -> Array:
        """A column of labels: numbers where every value is one, else texts. Raises InputError where a value is missing."""
        ...

    def values(self, names: Sequence[str], rows: Sequence[int]) -> Array:
        """`(len(rows), len(names))`, float64; of one column of lists `(len(rows), ...)` in its own type.

        Raises:
            InputError: a value is missing or no number.
        """
        ...


def open_table(path: Path, what: str) -> Table:
    """The table in a `.csv` or `.parquet` file.

    A CSV file has a header, or its columns are named `0`, `1`, ...; columns are separated by commas, semicolons or tabs.

    Raises:
        InputError: unreadable, empty, rows of different lengths, a name twice.
        MissingDependencyError: parquet needs pyarrow.
    """
    table: Table = _Csv(path, what) if path.suffix.lower() == ".csv" else _Parquet(path, what)
    if not table.count:
        raise InputError(f"{what} has no rows; give one sample a row")
    twice = [name for name in table.names if table.names.count(name) > 1][:1]
    if twice:
        raise InputError(f"{what} has two columns {twice[0]!r}; give each a name of its own")
    return table


def label_column(names: Sequence[str]) -> str | None:
    """The column that holds the labels by its name; None: no column, or more than one."""
    found = [name for name in names if name.strip().lower() in LABELS]
    return found[0] if len(found) == 1 else None


def columns_named(table: Table, text: str, option: str) -> tuple[str, ...]:
    """The columns that an option names, by commas. Raises InputError where there is no such column."""
    names = (text,) if text in table.names else tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in table.names:
            known = ", ".join(table.names[:20]) + (", ..." if len(table.names) > 20 else "")
            raise InputError(f"{option}: {table.what} has no column {name!r}; it has {known}")
    return names


class _Csv:
    """A text file. Its values become numbers when they are asked for, those of the rows and columns that are asked for only."""

    def __init__(self, path: Path, what: str) -> None:
        self.what = what
        self._delimiter = ","
        check_regular(path, what)
        try:
            limits().check("unpacked", path.stat().st_size, f"{what}: bytes")
            with path.open(encoding="utf-8-sig", newline="") as file:
                self._text = file.read()
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{what} cannot be read: {one_line(error)}; give a text file of rows and columns") from error
        first = next(self._lines(), None)
        if first is None:
            raise InputError(f"{what} is empty; give rows of numbers separated by commas")
        text = self._delimiter.join(first)
        self._delimiter = max(_DELIMITERS, key=text.count)
        first = [field.strip() for field in next(self._lines())]
        self.headed = any(f and _number(f) is None for f in first) or first == [str(i) for i in range(len(first))]
        self._all = first if self.headed else [str(i) for i in range(len(first))]
        numbered = self.headed and self._all[0].lower() in _NUMBERED
        self.names = tuple(self._all[numbered:])
        self.count = sum(1 for _ in self._rows())

    def column(self, name: str) -> Array:
        at = self._all.index(name)
        texts = [row[at].strip() for row in self._rows()]
        if "" in texts:
            raise InputError(f"{self._place(texts.index(''), name)} is empty; a label is missing")
        numbers = [_number(text) for text in texts]
        return np.array(texts) if None in numbers else np.array(numbers, dtype=np.float64)

    def values(self, names: Sequence[str], rows: Sequence[int]) -> Array:
        at = [self._all.index(name) for name in names]
        place = {row: i for i, row in enumerate(rows)}
        found = np.empty((len(rows), len(names)))
        for i, row in enumerate(self._rows()):
            if i not in place:
                continue
            for k, column in enumerate(at):
                number = _number(row[column])
                if number is None:
                    raise InputError(
                        f"{self._place(i, names[k])} is {one_line(row[column], 40)!r}, which is no number; "
                        "leave the column out with --array, or write its values as numbers"
                    )
                found[place[i], k] = number
        return found

    def _capped(self) -> Iterator[str]:
        """Lines of the text, each held against the limit of columns before it is split."""
        most = limits()
        for line in io.StringIO(self._text, newline=""):
            if len(line) > most.columns:
                most.check("columns", line.count(self._delimiter) + 1, f"{self.what}: columns")
            yield line

    def _place(self, row: int, name: str) -> str:
        return f"{self.what}: row {row} of column {name!r}"

    def _rows(self) -> Iterator[list[str]]:
        for i, row in enumerate(self._lines()):
            if i == 0 and self.headed:
                continue
            if len(row) != len(self._all):
                many = f"{len(row)} values, the first line {len(self._all)}"
                raise InputError(f"{self.what} cannot be read: row {i - self.headed} has {many}; give a whole .csv file of numbers")
            yield row

    def _lines(self) -> Iterator[list[str]]:
        """Lines that are not empty, split."""
        lines = csv.reader(self._capped(), delimiter=self._delimiter)
        try:
            yield from (line for line in lines if line and line != [""])
        except csv.Error as error:
            raise InputError(f"{self.what} cannot be read: {one_line(error)}; give a text file of rows and columns") from error


class _Parquet:
    """A parquet file, by pyarrow."""

    headed = True

    def __init__(self, path: Path, what: str) -> None:
        try:
            parquet = importlib.import_module("pyarrow.parquet")
        except ImportError as error:
            raise MissingDependencyError(f'{what}: parquet needs pyarrow; run pip install "onnxsub[report]"') from error
        self.what = what
        try:
            self._file = parquet.ParquetFile(path)
            schema = self._file.schema_arrow
        except (OSError, ValueError) as error:
            raise InputError(f"{what} cannot be read: {one_line(error)}; give a whole parquet file") from error
        self.names = tuple(name for name in schema.names if name.lower() not in _NUMBERED)
        self.count = int(self._file.metadata.num_rows)
        limits().check("columns", len(schema.names), f"{what}: columns")
        size = 8.0 * self.count * max(1, len(schema.names))
        limits().check("unpacked", size, f"{what}: bytes of its values", at_least=8 * path.stat().st_size)

    def column(self, name: str) -> Array:
        column = self._read(name)
        if _kind(column) == "number":
            return np.asarray(column.to_numpy(), dtype=np.float64)
        if _kind(column) == "text":
            return np.asarray(column.to_pylist(), dtype=np.str_)
        return self._lists(name, column, range(self.count))

    def values(self, names: Sequence[str], rows: Sequence[int]) -> Array:
        first = self._read(names[0])
        if len(names) == 1 and _kind(first) == "lists":
            return self._lists(names[0], first, rows)
        columns = []
        for name in names:
            column = self._read(name)
            if _kind(column) != "number":
                what = f"{self.what}: column {name!r} is of type {column.type}"
                raise InputError(f"{what}; leave it out with --array, or write its values as numbers")
            columns.append(np.asarray(column.take(list(rows)).to_numpy(), dtype=np.float64))
        return np.stack(columns, axis=1)

    def _read(self, name: str) -> Any:
        compute, types = (importlib.import_module(f"pyarrow.{name}") for name in ("compute", "types"))
        try:
            column = self._file.read(columns=[name]).column(name)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.what} cannot be read: {one_line(error)}; give a whole parquet file") from error
        if column.null_count:
            row = compute.index(column.is_null(), True).as_py()
            raise InputError(f"{self.what}: row {row} of column {name!r} is empty; fill or leave out such rows")
        return column.cast(column.type.value_type) if types.is_dictionary(column.type) else column

    def _lists(self, name: str, column: Any, rows: Sequence[int]) -> Array:
        """A column of lists of numbers, one array a row."""
        inner = column.type
        while hasattr(inner, "value_type"):
            inner = inner.value_type
        try:
            return np.asarray(column.take(list(rows)).to_pylist(), dtype=inner.to_pandas_dtype())
        except (TypeError, ValueError, NotImplementedError) as error:
            what = f"{self.what}: column {name!r} of type {column.type}"
            raise InputError(f"{what} holds no arrays of numbers of one shape; give others") from error


def _kind(column: Any) -> str:
    types = importlib.import_module("pyarrow.types")
    t = column.type
    if types.is_integer(t) or types.is_floating(t) or types.is_boolean(t) or types.is_decimal(t):
        return "number"
    return "text" if types.is_string(t) or types.is_large_string(t) else "lists" if hasattr(t, "value_type") else "other"


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
