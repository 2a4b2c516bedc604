"""Anchor files: one input `x0` out of `.npy`, `.npz`, `.png`, `.jpg`, `.csv` or `.parquet`, in the layout that the model wants."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.errors import InputError, MissingDependencyError
from onnxsub.ops.base import Array, Shape
from onnxsub.tables import ENDINGS, columns_named, label_column, open_table

__all__ = ["IMAGES", "fit_shape", "read_anchor", "read_array"]

IMAGES = (".png", ".jpg", ".jpeg")
"""Endings of images."""

_GIVE = ".npy, .npz, .png, .jpg, .csv or .parquet"


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
    a channel-first model. Of a table with a header, a column of labels is left out where the model has one input less.

    Args:
        index: which row, when the file holds many.
        array: which array of an `.npz`; which columns of a table, by commas.
        domain: valid input range that integers are scaled to; numbers, or arrays of `shape`.

    Raises:
        InputError: file missing, unreadable, of another shape, type or size.
    """
    path = Path(path)
    what = f"anchor {str(path)!r}"
    _check_file(path, what)
    data = _from_table(path, shape, index, array, what) if path.suffix.lower() in ENDINGS else None
    if data is None:
        data = _row(read_array(path, array, what), shape, index, what)
    x = fit_shape(data, shape, what)
    if data.dtype == np.uint8 or path.suffix.lower() in IMAGES:
        low, high = (np.asarray(end) for end in domain)
        full = np.float32(np.iinfo(data.dtype).max)
        scaled = low.astype(np.float32) + x.astype(np.float32) / full * (high - low).astype(np.float32)
        return np.asarray(scaled, dtype=np.float32)
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


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


def read_array(path: Path, array: str | None = None, what: str = "") -> Array:
    """The numbers in a `.npy`, `.npz`, `.csv` (without a header) or image file, as they are stored.

    Args:
        array: which array of an `.npz`.
        what: the file, for messages.

    Raises:
        InputError: file missing, unreadable, or of something else than numbers.
        MissingDependencyError: images need Pillow.
    """
    what = what or f"file {str(path)!r}"
    _check_file(path, what)
    data = _stored(path, array, what)
    if data.dtype.kind not in "fiub":
        raise InputError(f"{what} holds {data.dtype} values; give floats, or 8-bit integers")
    return data


def _check_file(path: Path, what: str) -> None:
    try:
        found = path.exists()
    except OSError as e:  # a folder on the way that may not be read, a name that is too long
        raise InputError(f"{what} cannot be reached: {e.strerror}; check the path") from e
    if not found:
        raise InputError(f"{what} does not exist; give a {_GIVE} file")
    if path.is_dir():
        raise InputError(f"{what} is a folder; give a file")


def _from_table(path: Path, shape: Shape, index: int | None, array: str | None, what: str) -> Array | None:
    """A row of a table with a header; None: the file has none, and is rows of numbers."""
    table = open_table(path, what)
    if not table.headed:
        return None
    names = table.names if array is None else columns_named(table, array, "--array")
    label = label_column(names)
    if array is None and label is not None and len(names) == math.prod(shape) + 1:
        names = tuple(name for name in names if name != label)
    if index is None and table.count > 1:
        raise InputError(f"{what} holds {table.count} rows; say which one with --index N (0 to {table.count - 1})")
    row = index or 0
    if not 0 <= row < table.count:
        raise InputError(f"{what} has {table.count} rows, so --index {index} is out of range (0 to {table.count - 1})")
    return np.asarray(table.values(names, [row])[0])


def _stored(path: Path, array: str | None, what: str) -> Array:
    suffix = path.suffix.lower()
    try:
        if suffix in (".npy", ".npz"):
            with path.open("rb") as file:  # opened here, so that a damaged archive does not stay open
                loaded = np.load(file, allow_pickle=False)
                if isinstance(loaded, np.ndarray):
                    return loaded
                with loaded as archive:
                    return _member(archive, array, what)
        if suffix == ".csv":
            text = path.read_text(encoding="utf-8-sig")
            if not text.strip():
                raise InputError(f"{what} is empty; give one row of numbers separated by commas")
            return np.loadtxt(text.splitlines(), delimiter=",", dtype=np.float64, ndmin=2)
    except InputError:
        raise
    except Exception as e:  # numpy raises OSError, ValueError, EOFError, BadZipFile and more on a damaged file
        reason = str(e).splitlines()[0].split(";")[0].rstrip(".") if str(e) else type(e).__name__
        if "pickle" in reason:  # numpy advises to load them; nobody should
            reason = "it is damaged, or holds Python objects"
        raise InputError(f"{what} cannot be read: {reason}; give a whole {suffix} file of numbers") from e
    if suffix in IMAGES:
        return _read_image(path, what)
    raise InputError(f"{what} has the unknown ending {suffix!r}; give {_GIVE}")


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
        # without the formats a file is read by what it contains, whatever its ending: EPS would start an interpreter
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if image.mode in ("L", "RGB", "RGBA"):
                return np.asarray(image)
            if image.mode.startswith("I"):  # 16 bits of grey; converting these to 8 would cut them off at 255
                return np.asarray(image).astype(np.uint16)
            if image.mode in ("1", "LA"):
                return np.asarray(image.convert("L"))
            if image.mode in ("P", "CMYK", "YCbCr"):
                return np.asarray(image.convert("RGB"))
            mode = image.mode
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise InputError(f"{what} is not a readable image: {str(e).splitlines()[0]}; give a whole .png or .jpg file") from e
    raise InputError(f"{what} is an image of mode {mode}, which is not read; save it as grey or RGB")
