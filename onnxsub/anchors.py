"""Anchor files: one input `x0` out of `.npy`, `.npz`, `.png`, `.jpg` or `.csv`, in the layout that the model wants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.errors import InputError, MissingDependencyError
from onnxsub.ops.base import Array, Shape

__all__ = ["fit_shape", "read_anchor"]

_IMAGES = (".png", ".jpg", ".jpeg")


def read_anchor(
    path: str | Path,
    shape: Shape,
    *,
    index: int | None = None,
    array: str | None = None,
    domain: tuple[float, float] = (0.0, 1.0),
) -> Array:
    """The anchor in `path` as float32 of `shape` (per sample, no batch axis).

    8-bit integers are scaled from 0..255 to the domain. Height-width-channel images are turned for a channel-first model.

    Args:
        index: which row, when the file holds many.
        array: which array of an `.npz`.
        domain: valid input range that 8-bit values are scaled to.

    Raises:
        InputError: file missing, unreadable, of another shape, type or size.
    """
    path = Path(path)
    what = f"anchor {str(path)!r}"
    data = _read(path, array, what)
    if data.dtype.kind not in "fiub":
        raise InputError(f"{what} holds {data.dtype} values; give floats, or 8-bit integers")
    data = _row(data, shape, index, what)
    x = fit_shape(data, shape, what)
    if data.dtype == np.uint8:
        low, high = domain
        return (np.float32(low) + x.astype(np.float32) / np.float32(255) * np.float32(high - low)).astype(np.float32)
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def fit_shape(data: Array, shape: Shape, what: str) -> Array:
    """`data` as `shape`: a batch axis of 1, other axes of length 1 and flat data are accepted, and height-width-channel images."""
    if data.shape == shape:
        return data
    squeezed = tuple(n for n in data.shape if n != 1)
    if squeezed == tuple(n for n in shape if n != 1) or (len(squeezed) <= 1 and data.size == math.prod(shape)):
        return data.reshape(shape)
    image = data[0] if data.ndim == 4 and data.shape[0] == 1 else data
    if image.ndim == 3 and image.shape[2] in (1, 3, 4) and (image.shape[2], *image.shape[:2]) == shape:
        return np.ascontiguousarray(image.transpose(2, 0, 1))
    raise InputError(f"{what} has shape {list(data.shape)}, the model wants {list(shape)}; reshape it or choose a row with --index")


def _row(data: Array, shape: Shape, index: int | None, what: str) -> Array:
    size = math.prod(shape)
    if index is None:
        if data.size != size and data.ndim > 1 and data.shape[0] > 1 and data[0].size == size:
            raise InputError(f"{what} holds {data.shape[0]} rows; say which one with --index N (0 to {data.shape[0] - 1})")
        return data
    if data.ndim == 0 or data[0:1].size != size:
        raise InputError(f"{what} has shape {list(data.shape)}: its rows do not fit the model's input {list(shape)}")
    if not 0 <= index < data.shape[0]:
        raise InputError(f"{what} has {data.shape[0]} rows, so --index {index} is out of range (0 to {data.shape[0] - 1})")
    return np.asarray(data[index])


def _read(path: Path, array: str | None, what: str) -> Array:
    if not path.exists():
        raise InputError(f"{what} does not exist; give a .npy, .npz, .png, .jpg or .csv file")
    if path.is_dir():
        raise InputError(f"{what} is a folder; give a file")
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return _member(archive, array, what)
        if suffix == ".csv":
            return np.loadtxt(path, delimiter=",", dtype=np.float64, ndmin=2)
    except InputError:
        raise
    except Exception as e:  # numpy raises OSError, ValueError, EOFError, BadZipFile and more on a damaged file
        raise InputError(f"{what} cannot be read: {str(e).splitlines()[0] if str(e) else type(e).__name__}") from e
    if suffix in _IMAGES:
        return _read_image(path, what)
    raise InputError(f"{what} has the unknown ending {suffix!r}; give .npy, .npz, .png, .jpg or .csv")


def _member(archive: Any, array: str | None, what: str) -> Array:
    names = list(archive.files)
    if array is not None:
        if array not in names:
            raise InputError(f"{what} has no array {array!r}; it has {', '.join(names) or 'none'}")
        return np.asarray(archive[array])
    if len(names) == 1:
        return np.asarray(archive[names[0]])
    raise InputError(f"{what} holds {len(names)} arrays ({', '.join(names)}); choose one with --array NAME")


def _read_image(path: Path, what: str) -> Array:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as e:
        raise MissingDependencyError(f'{what}: images need Pillow; run pip install "onnxsub[images]"') from e
    try:
        with Image.open(path) as image:
            if image.mode not in ("L", "RGB", "RGBA"):
                return np.asarray(image.convert("RGB" if image.mode in ("P", "CMYK", "YCbCr") else "L"))
            return np.asarray(image)
    except (OSError, UnidentifiedImageError, ValueError) as e:
        raise InputError(f"{what} is not a readable image: {str(e).splitlines()[0]}") from e
