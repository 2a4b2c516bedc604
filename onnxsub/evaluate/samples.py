"""Data sets: which images and labels, chosen rows only, and how a row becomes an anchor."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from onnxsub.anchors import fit_shape, no_bytes
from onnxsub.array_files import check_nameless
from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.arrays import images_of, read_arrays
from onnxsub.evaluate.labels import Classes, class_numbers, classes_of
from onnxsub.image_folder import list_images
from onnxsub.ops.base import Array, Shape
from onnxsub.tables import ENDINGS, columns_named, label_column, open_table
from onnxsub.zoo.datasets import DATASETS, load_dataset

__all__ = ["PREDICTED", "Choice", "Samples", "anchor_of", "format_indices", "parse_indices", "read_samples"]

PREDICTED = "predicted"
"""As `--labels`: defend the class that the model predicts, for data without labels."""

_FOLDERS = "folders"  # as `labels` of a folder of images: the names of the folders in it

_GIVE = "an .npz, .npy, .csv or .parquet file, or a folder of images"


@dataclass(frozen=True)
class Choice:
    """Which rows: `index` alone, or every `every`-th of all, at most `limit`.

    Attributes:
        index: positions; None for all.
    """

    index: tuple[int, ...] | None = None
    every: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.index is not None and (self.every != 1 or self.limit is not None):
            raise OptionError("--index names the samples; leave out --limit and --every")
        if self.index is not None and (not self.index or min(self.index) < 0 or len(set(self.index)) < len(self.index)):
            raise OptionError("--index names no row, a negative one or one twice; give each row once, from 0 on")
        if self.every < 1:
            raise OptionError(f"--every {self.every} is not possible; give 1 or more")
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit {self.limit} is not possible; give 1 or more")

    def of(self, count: int) -> tuple[int, ...]:
        """The chosen of `count` rows. Raises InputError where one is out of range."""
        if self.index is None:
            return tuple(range(0, count, self.every))[: self.limit]
        beyond = [i for i in self.index if i >= count]
        if beyond:
            raise InputError(f"--index {beyond[0]} is out of range: the data hold {count} rows (0 to {count - 1})")
        return self.index


@dataclass(frozen=True, eq=False)
class Samples:
    """The chosen rows of a data set.

    Attributes:
        source: the file, folder or name that was given. sha256: of that file's bytes.
        array, labels: names of the arrays or columns, None where there are none.
        index: position of each row in the data set.
        x: `(len(index), ...)` as stored. y: labels, None: the predicted ones.
        classes: which class a name is, where that was stated. notes: what was chosen without being asked for.
        sorted_names: how many names were taken for the classes in their order, without being told; None: none were.
    """

    source: str
    sha256: str
    array: str | None
    labels: str | None
    index: tuple[int, ...]
    x: Array = field(repr=False)
    y: Array | None = field(repr=False)
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    sorted_names: int | None = None

    @property
    def labels_sha256(self) -> str | None:
        """Of the labels of the chosen rows; None: the predicted ones. They may come from another file than the images."""
        return None if self.y is None else hashlib.sha256(np.ascontiguousarray(self.y, dtype="<i8").tobytes()).hexdigest()


def read_samples(
    source: str | os.PathLike[str],
    choice: Choice,
    array: str | None = None,
    labels: str | None = None,
    classes: Classes | None = None,
) -> Samples:
    """The chosen rows of a file, of a folder of images, or of a data set by its name (see `onnxsub.zoo.datasets`).

    Args:
        source: `.npz`, `.npy`, `.csv`, `.parquet`, a folder with a folder for each class, or a name.
        array: images, default: the only array that is no `y_...`, or `x_test`; columns of a table, default: all but the labels.
        labels: an array of the `.npz`, a `.npy` file, columns of a table, or `predicted`; default: `y_test` for `x_test` and so on,
            the column of a table that is called so (`onnxsub.tables.LABELS`), the folders' names.
        classes: which class a name is, as `onnxsub.evaluate.labels.read_classes` makes it; None: the sorted names.

    Raises:
        InputError: no such file or array, no labels, numbers of rows that differ, an index out of range.
    """
    path, name = Path(source), os.fspath(source)
    if name in DATASETS and not path.exists():
        return _named(name, choice, array, labels)
    ending = path.suffix.lower()
    if path.is_dir():
        read = _folder
    elif not path.is_file():
        close = get_close_matches(name, DATASETS, 1)
        known = f"did you mean {close[0]!r}?" if close else f"give {_GIVE}, or one of {', '.join(DATASETS)}"
        raise InputError(f"--data {name!r} does not exist; {known}")
    elif ending in ENDINGS:
        read = _table
    elif ending in (".npz", ".npy"):
        read = _array
    else:
        raise InputError(f"--data {name!r} has the ending {path.suffix!r}; give {_GIVE}")
    return read(name, choice, array, labels, classes)


def anchor_of(row: Array, shape: Shape, grey: tuple[float | Array, float | Array], what: str) -> Array:
    """A stored row as float32 of the model's per-sample shape.

    Args:
        grey: what the 8-bit values 0 and 255 stand for (`InputSpace.grey`).

    Raises:
        InputError: it does not fit the model.
    """
    x = fit_shape(row, shape, what)
    if row.dtype == np.uint8:
        low, high = (np.asarray(end) for end in grey)
        x = low.astype(np.float32) + x.astype(np.float32) / np.float32(255) * (high - low).astype(np.float32)
    return np.ascontiguousarray(x, dtype=np.float32)


_MOST = 2**27


def parse_indices(text: str) -> tuple[int, ...]:
    """`0,5,10-20` as positions. Raises InputError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise OptionError(f"--index {text!r} is no list of positions; give for example 0,5,10-20")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise OptionError(f"--index {part} runs backwards; give {high}-{low}")
        if high - low >= _MOST:
            raise OptionError(f"--index {part} names more than {_MOST:,} samples; give fewer")
        found += range(low, high + 1)
    if len(set(found)) < len(found):
        raise OptionError(f"--index {text!r} names a sample twice; give each once")
    return tuple(found)


def format_indices(index: Iterable[int]) -> str:
    """Positions as `parse_indices` reads them: `0-3,7`."""
    parts: list[list[int]] = []
    for i in index:
        if parts and parts[-1][-1] == i - 1:
            parts[-1][1:] = [i]
        else:
            parts.append([i])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[1]}" for p in parts)


def _named(name: str, choice: Choice, array: str | None, labels: str | None) -> Samples:
    """The test images of a data set that is known by name, or its training images as `x_train`."""
    array = array or "x_test"
    if array not in ("x_test", "x_train") or labels not in (None, PREDICTED, f"y{array[1:]}"):
        raise InputError(f"--data {name} has the images x_test and x_train with the labels y_test and y_train; name one of these")
    images = load_dataset(name)
    part = images.test if array == "x_test" else images.train
    if part is None:
        raise InputError(f"--data {name} has no test images; give --array x_train")
    rows = list(choice.of(len(part)))
    y = None if labels == PREDICTED else part.y[rows].astype(np.int64)
    return Samples(name, part.sha256, array, labels or f"y{array[1:]}", tuple(rows), part.x[rows].copy(), y)


def _array(source: str, choice: Choice, array: str | None, labels: str | None, classes: Classes | None) -> Samples:
    """An `.npz` or `.npy` file."""
    path = Path(source)
    arrays = read_arrays(path)
    names = ", ".join(arrays)
    if path.suffix.lower() == ".npz":
        array = array or images_of(arrays, path)
        if array not in arrays:
            raise InputError(f"{path.name} has no array {array!r}; it has {names}")
        if labels is None and array.startswith("x") and f"y{array[1:]}" in arrays:
            labels = f"y{array[1:]}"
    else:
        check_nameless(array, path.name)
    x = arrays[array or ""]
    if x.ndim < 2 or x.dtype.kind not in "fiub":
        what = f"{array or 'the array'} of shape {list(x.shape)}, type {x.dtype}"
        raise InputError(f"{path.name}: {what} holds no images; name others with --array")
    y, known = (None, None) if labels == PREDICTED else _labels(arrays, labels, path, names, classes)
    if y is not None and len(y) != len(x):
        raise InputError(f"{path.name}: {len(x)} images and {len(y)} labels do not belong together; check --array and --labels")
    rows = _rows(choice, len(x), path)
    return _samples(source, _sha256(path), (array, labels), rows, x[rows].copy(), y, classes, known)


def _table(source: str, choice: Choice, array: str | None, labels: str | None, classes: Classes | None) -> Samples:
    """A table: one sample a row, one feature a column, or one column of arrays."""
    path = Path(source)
    table = open_table(path, path.name)
    by_name = label_column(table.names)
    if labels is None and by_name is None:
        known = ", ".join(table.names[:20]) + (", ..." if len(table.names) > 20 else "")
        raise InputError(
            f"{path.name} has no labels that are known by their name; name their column with --label-column ({known}), "
            f"or give --labels {PREDICTED}"
        )
    own = labels in (None, PREDICTED) and by_name is not None
    labels = labels or by_name or ""
    of_labels = () if labels == PREDICTED else columns_named(table, labels, "--label-column")
    left_out = (*of_labels, by_name) if own else of_labels
    features = tuple(n for n in table.names if n not in left_out) if array is None else columns_named(table, array, "--array")
    if not features:
        raise InputError(f"{path.name} has no columns beside the labels; give one column a feature")
    y, known_classes = None, None
    if of_labels:
        columns = [table.column(name) for name in of_labels]
        whole = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
        y, known_classes = class_numbers(whole, classes, f"column {labels!r} of {path.name}")
    rows = _rows(choice, table.count, path)
    what = "is no input" if labels == PREDICTED else "holds the labels"
    notes = (f"column {by_name!r} of {path.name} {what}; name others with --label-column, --array",) if own else ()
    x = table.values(features, rows)
    return _samples(source, _sha256(path), (array, labels), rows, x, y, classes, known_classes, notes)


def _folder(source: str, choice: Choice, array: str | None, labels: str | None, classes: Classes | None) -> Samples:
    """A folder of images."""
    if array is not None or labels not in (None, PREDICTED, _FOLDERS):
        raise OptionError(f"--data {source!r} is a folder: the folders in it name the classes; leave out --array and --labels")
    folder = list_images(Path(source))
    if labels is None and not folder.names:
        raise InputError(f"{source!r} has no labels: give each class a folder of its own in it, or say --labels {PREDICTED}")
    labels = labels or _FOLDERS
    rows = _rows(choice, len(folder.files), Path(source))
    y, known = None, None
    if labels != PREDICTED:
        known = classes_of(folder.names, classes, f"{source!r}")
        y = np.array([known[name] for name in folder.classes], dtype=np.int64)
    return _samples(source, folder.sha256(rows), (None, labels), rows, folder.read(rows), y, classes, known)


def _samples(
    source: str, sha256: str, names: tuple[str | None, str | None], rows: list[int], x: Array, y: Array | None,
    stated: Classes | None, known: dict[str, int] | None, notes: tuple[str, ...] = (),
) -> Samples:  # fmt: skip
    if known is not None and stated is None:
        some = ", ".join(f"{name} is {number}" for name, number in list(known.items())[:5]) + (", ..." if len(known) > 5 else "")
        notes += (f"classes are the sorted names: {some}; another order: --classes",)
    doubt = no_bytes(x, source)
    notes += () if doubt is None else (doubt,)
    chosen = None if y is None else y[rows].astype(np.int64)
    unasked = len(known) if known is not None and stated is None else None
    return Samples(source, sha256, *names, tuple(rows), x, chosen, stated, notes, unasked)


def _rows(choice: Choice, count: int, path: Path) -> list[int]:
    rows = list(choice.of(count))
    if count == 0:
        raise InputError(f"{path.name} holds no samples; give one or more")
    if not rows:
        raise InputError(f"{path.name}: no sample is chosen; check --index, --limit and --every")
    return rows


def _labels(
    arrays: Mapping[str, Array], labels: str | None, path: Path, names: str, classes: Classes | None
) -> tuple[Array, dict[str, int] | None]:
    if labels is None:
        raise InputError(
            f"{path.name} has no labels that belong to the images ({names or 'one array'}); "
            f"give --labels NAME, a .npy file, or --labels {PREDICTED}"
        )
    if labels in arrays and labels:
        y = arrays[labels]
    elif labels.lower().endswith(".npy") and Path(labels).is_file():
        y = read_arrays(Path(labels))[""]
    else:
        raise InputError(
            f"--labels {labels!r} is neither an array of {path.name} ({names or 'none'}) nor an .npy file; "
            f"give one of these, or {PREDICTED!r}"
        )
    return class_numbers(y, classes, f"--labels {labels!r}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
