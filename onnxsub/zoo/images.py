"""Labelled images in memory, and how they are read from local `.npz` files."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.array_files import check_unpacked
from onnxsub.errors import InputError, MissingDependencyError, OptionError
from onnxsub.files import one_line
from onnxsub.limits import check_regular
from onnxsub.ops.base import Array, Shape

__all__ = ["ImageSet", "Labelled", "channels_first", "read_npz"]

_CHANNELS = (1, 3)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images and labels that fit each other.

    Attributes:
        x: `(N, C, H, W)`: uint8 grey values 0..255, or float32 in [0, 1].
        y: `(N,)` int64, from 0.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or len(self.x) == 0:
            raise InputError(f"{len(self.x)} images and {len(self.y)} labels do not belong together; check both arrays")

    def __len__(self) -> int:
        return len(self.y)

    def first(self, count: int | None) -> Labelled:
        """The first `count` images; None, or more than there are: all. Raises OptionError below 1."""
        if count is not None and count < 1:
            raise OptionError(f"{count} images are not possible; give 1 or more, or leave it out for all")
        return self if count is None or count >= len(self) else Labelled(self.x[:count], self.y[:count])

    @property
    def sha256(self) -> str:
        """Of shapes, types and values."""
        digest = hashlib.sha256()
        for a in (self.x, self.y):
            digest.update(f"{a.dtype.str}{a.shape}".encode())
            digest.update(np.ascontiguousarray(a).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set.

    Attributes:
        name: for recipes and file names.
        train: what a training sees. test: what the figures on a card are measured on; None where there is nothing.
        sources: where it comes from, for the card: dictionaries of plain values.
    """

    name: str
    train: Labelled
    test: Labelled | None
    sources: tuple[dict[str, Any], ...] = field(default=())

    def __post_init__(self) -> None:
        if self.test is not None and self.test.x.shape[1:] != self.train.x.shape[1:]:
            raise InputError(
                f"training images {list(self.shape)} and test images {list(self.test.x.shape[1:])} differ; "
                "give arrays of one data set"
            )
        if self.test is not None and int(self.test.y.max()) >= self.classes:
            raise InputError(
                f"a test image has the label {int(self.test.y.max())}, training images have 0 to {self.classes - 1}; "
                "check the labels"
            )

    @property
    def shape(self) -> Shape:
        """`(C, H, W)`."""
        return tuple(int(n) for n in self.train.x.shape[1:])

    @property
    def classes(self) -> int:
        """One more than the largest label of a training image."""
        return int(self.train.y.max()) + 1


def read_npz(
    paths: Sequence[str | os.PathLike[str]],
    name: str,
    *,
    train: tuple[str, str] = ("x_train", "y_train"),
    test: tuple[str, str] = ("x_test", "y_test"),
) -> ImageSet:
    """The images of all files together, in the order of the files.

    A file holds images `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)`, uint8 or floats in [0, 1], and their labels; or training
    images as JPEG: the files one after the other in `jpeg`, their bounds in `offset`, labels in `y`.

    Args:
        train: names of the arrays of images and labels for training. test: those for testing; they may be absent.

    Raises:
        InputError: a file is missing, damaged, or holds neither; arrays do not fit each other.
        MissingDependencyError: JPEG images without Pillow.
    """
    parts: list[Labelled] = []
    tests: list[Labelled] = []
    sources: list[dict[str, Any]] = []
    if not paths:
        raise InputError("no data file is given; give an .npz")
    for path in map(Path, paths):
        what = f"data file {str(path)!r}"
        data = _read(path, what)
        arrays = _arrays(data, what)
        source: dict[str, Any] = {"file": path.name, "sha256": hashlib.sha256(data).hexdigest()}
        if set(train) <= set(arrays):
            parts.append(_labelled(arrays, train, what))
            source["train"] = len(parts[-1])
        elif {"jpeg", "offset", "y"} <= set(arrays):
            parts.append(_jpeg(arrays, what))
            source |= {"train": len(parts[-1]), "encoding": "JPEG (lossy)"}
        elif not set(test) <= set(arrays):
            raise InputError(_no_arrays(what, train, arrays))
        if set(test) <= set(arrays):
            tests.append(_labelled(arrays, test, what))
            source["test"] = len(tests[-1])
        sources.append(source)
    if not parts:
        raise InputError(_no_arrays(what, train, arrays))
    return ImageSet(name, _joined(parts), _joined(tests) if tests else None, tuple(sources))


def _no_arrays(what: str, names: tuple[str, str], arrays: Iterable[str]) -> str:
    has = ", ".join(arrays) or "none"
    return f"{what} holds no arrays {' and '.join(names)}, it has {has}; name those for training with --array and --labels"


def channels_first(x: Array, what: str) -> Array:
    """`(N, C, H, W)` of grey or colour images in any of the usual layouts. Raises InputError for other shapes."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] in _CHANNELS:
        return x
    if x.ndim == 4 and x.shape[3] in _CHANNELS:
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    raise InputError(f"{what} has shape {list(x.shape)}; give images (N, H, W), (N, H, W, C) or (N, C, H, W) of 1 or 3 channels")


def _read(path: Path, what: str) -> bytes:
    try:
        check_regular(path, what)
        with contextlib.suppress(zipfile.BadZipFile):  # what reads it says so
            check_unpacked(path, what)
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{what} does not exist; check the path") from None
    except OSError as error:
        raise InputError(f"{what} cannot be read: {error.strerror}; check the path") from error


def _arrays(data: bytes, what: str) -> dict[str, Array]:
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise InputError(f"{what} is a single array; give an .npz with images and labels")
        with loaded as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except InputError:
        raise
    except Exception as error:  # numpy raises OSError, ValueError, EOFError, BadZipFile and more on a damaged file
        raise InputError(f"{what} is not a whole .npz file of numbers ({one_line(error, 80)}); write it again") from error


def _labelled(arrays: dict[str, Array], names: tuple[str, str], what: str) -> Labelled:
    x, y = (arrays[name] for name in names)
    x = channels_first(x, f"{what}, array {names[0]!r},")
    if x.dtype != np.uint8:
        if x.dtype.kind != "f" or not (x.size and x.min() >= 0 and x.max() <= 1):
            raise InputError(f"{what}: the images {names[0]!r} are neither 8-bit nor floats in [0, 1]; scale them")
        x = x.astype(np.float32)
    return Labelled(x, _labels(y, f"{what}, array {names[1]!r}"))


def _labels(y: Array, what: str) -> Array:
    y = y.reshape(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or y.dtype.kind not in "iu" or (y.size and y.min() < 0):
        raise InputError(f"{what} holds no labels; give whole numbers from 0, one for every image")
    return y.astype(np.int64)


def _jpeg(arrays: dict[str, Array], what: str) -> Labelled:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(f'{what} holds JPEG images, which need Pillow; run pip install "onnxsub[images]"') from error
    data, offset = arrays["jpeg"].tobytes(), arrays["offset"]
    try:
        files = (io.BytesIO(data[a:b]) for a, b in itertools.pairwise(offset))
        x = np.stack([np.asarray(Image.open(file, formats=("JPEG",)).convert("RGB")) for file in files])
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: a JPEG image in it is damaged ({one_line(error, 80)}); write it again") from error
    return Labelled(channels_first(x, what), _labels(arrays["y"], f"{what}, array 'y'"))


def _joined(parts: Sequence[Labelled]) -> Labelled:
    shapes = {part.x.shape[1:] for part in parts}
    if len(shapes) > 1:
        listed = " and ".join(str(list(s)) for s in sorted(shapes))
        raise InputError(f"the files hold images of shapes {listed}; give files of one data set")
    if len({part.x.dtype for part in parts}) > 1:  # one file of floats makes all of them floats
        parts = [Labelled(p.x if p.x.dtype.kind == "f" else (p.x / np.float32(255)).astype(np.float32), p.y) for p in parts]
    return Labelled(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))
