"""Data sets: which images and labels, chosen rows only, and how a row becomes an anchor."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxsub.anchors import fit_shape
from onnxsub.errors import InputError
from onnxsub.files import one_line
from onnxsub.ops.base import Array, Shape
from onnxsub.zoo.datasets import DATASETS, load_dataset

__all__ = ["PREDICTED", "Choice", "Samples", "anchor_of", "format_indices", "parse_indices", "read_samples"]

PREDICTED = "predicted"
"""As `--labels`: defend the class that the model predicts, for data without labels."""


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
            raise InputError("--index names the samples; leave out --limit and --every")
        if self.every < 1:
            raise InputError(f"--every {self.every} is not possible; give 1 or more")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit} is not possible; give 1 or more")

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
        source: the file or name that was given. sha256: of that file's bytes.
        array, labels: names of the arrays, None where the file has none.
        index: position of each row in the data set.
        x: `(len(index), ...)` as stored. y: labels, None: the predicted ones.
    """

    source: str
    sha256: str
    array: str | None
    labels: str | None
    index: tuple[int, ...]
    x: Array = field(repr=False)
    y: Array | None = field(repr=False)


def read_samples(source: str | os.PathLike[str], choice: Choice, array: str | None = None, labels: str | None = None) -> Samples:
    """The chosen rows of a `.npz` or `.npy` file, or of a data set by its name (see `onnxsub.zoo.datasets`).

    Args:
        array: images, default: the only array that is no `y_...`, or `x_test`.
        labels: an array of the `.npz`, a `.npy` file, or `predicted`; default: `y_test` for `x_test` and so on.

    Raises:
        InputError: no such file or array, no labels, numbers of rows that differ, an index out of range.
    """
    path = Path(source)
    if os.fspath(source) in DATASETS and not path.exists():
        return _named(os.fspath(source), choice, array, labels)
    if not path.is_file():
        known = ", ".join(DATASETS)
        raise InputError(f"--data {os.fspath(source)!r} does not exist; give an .npz or .npy file of images, or one of {known}")
    if path.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"--data {os.fspath(source)!r} has the ending {path.suffix!r}; give an .npz or .npy file")
    arrays = _arrays(path)
    names = ", ".join(arrays)
    if path.suffix.lower() == ".npz":
        array = array or _images(arrays, path)
        if array not in arrays:
            raise InputError(f"{path.name} has no array {array!r}; it has {names}")
        if labels is None and array.startswith("x") and f"y{array[1:]}" in arrays:
            labels = f"y{array[1:]}"
    x = arrays[array or ""]
    if x.ndim < 2 or x.dtype.kind not in "fiub":
        what = f"{array or 'the array'} of shape {list(x.shape)}, type {x.dtype}"
        raise InputError(f"{path.name}: {what} holds no images; name others with --array")
    y = None if labels == PREDICTED else _labels(arrays, labels, path, names)
    if y is not None and len(y) != len(x):
        raise InputError(f"{path.name}: {len(x)} images and {len(y)} labels do not belong together; check --array and --labels")
    index = choice.of(len(x))
    if not index:
        raise InputError(f"{path.name}: no sample is chosen; check --index, --limit and --every")
    rows = list(index)
    return Samples(
        os.fspath(source), _sha256(path), array, labels, index, x[rows].copy(), None if y is None else y[rows].astype(np.int64)
    )


def anchor_of(row: Array, shape: Shape, domain: tuple[float, float], what: str) -> Array:
    """A stored row as float32 of the model's per-sample shape; 8-bit values are scaled to the domain, as for a single anchor.

    Raises:
        InputError: it does not fit the model.
    """
    x = fit_shape(row, shape, what)
    if row.dtype == np.uint8:
        low, high = domain
        x = np.float32(low) + x.astype(np.float32) / np.float32(255) * np.float32(high - low)
    return np.ascontiguousarray(x, dtype=np.float32)


def parse_indices(text: str) -> tuple[int, ...]:
    """`0,5,10-20` as positions. Raises InputError."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InputError(f"--index {text!r} is no list of positions; give for example 0,5,10-20")
        low, high = int(first), int(last) if dash else int(first)
        if high < low:
            raise InputError(f"--index {part} runs backwards; give {high}-{low}")
        found += range(low, high + 1)
    if len(set(found)) < len(found):
        raise InputError(f"--index {text!r} names a sample twice; give each once")
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


def _arrays(path: Path) -> Mapping[str, Array]:
    """The arrays of a file by name; an `.npy` has one, named by the empty string."""
    if path.suffix.lower() == ".npz":
        return _Members(path)
    with _readable(path), path.open("rb") as file:
        return {"": np.asarray(np.load(file, allow_pickle=False))}


class _Members(Mapping[str, Array]):
    """The members of an `.npz`, each read when asked for: the training images are not needed to look at the test images."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _readable(path), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            self._names = list(archive.files)

    def __getitem__(self, name: str) -> Array:
        if name not in self._names:
            raise KeyError(name)
        with _readable(self._path), self._path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive[name])

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{str(path)!r} cannot be read: {one_line(error)}; give a whole file of plain arrays") from error


def _images(arrays: Mapping[str, Array], path: Path) -> str:
    images = [n for n in arrays if not n.startswith("y")]
    for name in ("x_test", "x"):
        if name in images:
            return name
    if len(images) == 1:
        return images[0]
    raise InputError(f"{path.name} holds {', '.join(arrays)}; say with --array which ones are the images")


def _labels(arrays: Mapping[str, Array], labels: str | None, path: Path, names: str) -> Array:
    if labels is None:
        raise InputError(
            f"{path.name} has no labels that belong to the images ({names or 'one array'}); "
            f"give --labels NAME, a .npy file, or --labels {PREDICTED}"
        )
    if labels in arrays and labels:
        y = arrays[labels]
    elif labels.lower().endswith(".npy") and Path(labels).is_file():
        y = _arrays(Path(labels))[""]
    else:
        raise InputError(
            f"--labels {labels!r} is neither an array of {path.name} ({names or 'none'}) nor an .npy file; "
            f"give one of these, or {PREDICTED!r}"
        )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise InputError(f"--labels {labels!r} has shape {list(y.shape)}, type {y.dtype}; labels are one integer per image")
    return y


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
