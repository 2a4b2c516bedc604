"""Anchors: one input `x0` out of a file of arrays, an image, a table or a folder of images, in the layout that the model wants."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from onnxsub.array_files import IMAGES, check_file, check_nameless, read_array
from onnxsub.errors import InputError, OnnxsubWarning
from onnxsub.image_folder import list_images
from onnxsub.ops.base import Array, Shape
from onnxsub.tables import ENDINGS, columns_named, label_column, open_table

__all__ = ["fit_shape", "no_bytes", "read_anchor"]


def read_anchor(
    path: str | Path,
    shape: Shape,
    *,
    index: int | None = None,
    array: str | None = None,
    domain: tuple[float | Array, float | Array] = (0.0, 1.0),
) -> Array:
    """The anchor in `path` as float32 of `shape` (per sample, no batch axis).

    8-bit integers are scaled from 0..255 to the domain, 16-bit images from 0..65535. Height-width-channel images are turned for
    a channel-first model. Of a table with a header, a column of labels is left out where the model has one input less. Images of a
    folder are numbered as in a data set (see `onnxsub.image_folder`).

    Args:
        index: which row, when the file holds many.
        array: which array of an `.npz`; which columns of a table, by commas.
        domain: valid input range that integers are scaled to; numbers, or arrays of `shape`.

    Raises:
        InputError: file missing, unreadable, of another shape, type or size.
        OptionError: `array` is given, and what the file holds has no name.
    """
    path = Path(path)
    what = f"anchor {str(path)!r}"
    check_file(path, what, folder=True)
    if path.is_dir():
        check_nameless(array, what)
        data = _from_folder(path, index, what)
    else:
        found = _from_table(path, shape, index, array, what) if path.suffix.lower() in ENDINGS else None
        data = found if found is not None else _row(read_array(path, array, what), shape, index, what)
    x = fit_shape(data, shape, what)
    doubt = no_bytes(data, what)
    if doubt is not None and (np.ndim(domain[0]) > 0 or domain != (0.0, 255.0)):
        warnings.warn(doubt, OnnxsubWarning, stacklevel=2)
    if data.dtype == np.uint8 or path.suffix.lower() in IMAGES:
        low, high = (np.asarray(end) for end in domain)
        full = np.float32(np.iinfo(data.dtype).max)
        scaled = low.astype(np.float32) + x.astype(np.float32) / full * (high - low).astype(np.float32)
        return np.asarray(scaled, dtype=np.float32)
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def no_bytes(data: Array, what: str) -> str | None:
    """A remark about 8-bit numbers that are 0 or 1 each, as flags are stored: they are scaled like grey values; else None."""
    if data.dtype != np.uint8 or data.max(initial=0) != 1:
        return None
    return (
        f"{what} holds 8-bit values of 0 and 1 only, which are scaled to the domain as if they went up to 255; "
        "give floats where 0 and 1 are meant"
    )


def fit_shape(data: Array, shape: Shape, what: str) -> Array:
    """`data` as `shape`.

    Accepted beside the shape itself: a batch axis of 1 and other axes of length 1, flat data, a grey image for a model of flat
    rows, and height-width-channel images for a channel-first model.
    """
    if data.shape == shape:
        return data
    squeezed, wanted = (tuple(n for n in s if n != 1) for s in (data.shape, shape))
    # one channel has one order only, so an image may be flat on either side
    grey = min(len(squeezed), len(wanted)) <= 1 and (len(squeezed) <= 1 or len(squeezed) == 2)
    if squeezed == wanted or (grey and data.size == math.prod(shape)):
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


def _from_table(path: Path, shape: Shape, index: int | None, array: str | None, what: str) -> Array | None:
    """A row of a table with a header; None: the file has none, and is rows of numbers."""
    table = open_table(path, what)
    if not table.headed:
        return None
    names = table.names if array is None else columns_named(table, array, "--array")
    label = label_column(names)
    if array is None and label is not None and len(names) == math.prod(shape) + 1:
        names = tuple(name for name in names if name != label)
    return np.asarray(table.values(names, [_which(index, table.count, "rows", what)])[0])


def _from_folder(path: Path, index: int | None, what: str) -> Array:
    """An image of a folder."""
    folder = list_images(path)
    return np.asarray(folder.read([_which(index, len(folder.files), "images", what)])[0])


def _which(index: int | None, count: int, of: str, what: str) -> int:
    """The only one of so many, or the one that `--index` names. Raises InputError."""
    if index is None and count > 1:
        raise InputError(f"{what} holds {count} {of}; say which one with --index N (0 to {count - 1})")
    if index is not None and not 0 <= index < count:
        raise InputError(f"{what} has {count} {of}, so --index {index} is out of range (0 to {count - 1})")
    return index or 0
