"""Files of one array: `.npy`, `.npz`, `.png`, `.jpg`, and `.csv` without a header."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.errors import InputError, MissingDependencyError, OptionError
from onnxsub.limits import check_regular, limits
from onnxsub.ops.base import Array

__all__ = ["IMAGES", "check_file", "check_nameless", "check_unpacked", "read_array"]

IMAGES = (".png", ".jpg", ".jpeg")
"""Endings of images."""

_GIVE = ".npy, .npz, .png, .jpg, .csv or .parquet"


def read_array(path: Path, array: str | None = None, what: str = "") -> Array:
    """The numbers in a `.npy`, `.npz`, `.csv` (without a header) or image file, as they are stored.

    Args:
        array: which array of an `.npz`.
        what: the file, for messages.

    Raises:
        InputError: file missing, unreadable, or of something else than numbers.
        OptionError: an array is named in a file whose only one has no name.
        MissingDependencyError: images need Pillow.
    """
    what = what or f"file {str(path)!r}"
    check_file(path, what)
    data = _stored(path, array, what)
    if data.dtype.kind not in "fiub":
        raise InputError(f"{what} holds {data.dtype} values; give floats, or 8-bit integers")
    return data


def check_file(path: Path, what: str, *, folder: bool = False) -> None:
    """Raises InputError where there is no such file; `folder`: a folder will do as well."""
    try:
        found = path.exists()
    except OSError as e:  # a folder on the way that may not be read, a name that is too long
        raise InputError(f"{what} cannot be reached: {e.strerror}; check the path") from e
    if not found:
        raise InputError(f"{what} does not exist; give a {_GIVE} file")
    if path.is_dir() and not folder:
        raise InputError(f"{what} is a folder; give a file")
    check_regular(path, what)


def check_nameless(array: str | None, what: str) -> None:
    """Raises OptionError where an array is named in a file whose only one has no name."""
    if array is not None:
        raise OptionError(f"{what} holds numbers without a name; leave out --array {array}")


def check_unpacked(path: Path, what: str) -> None:
    """Raises InputError where a member of an archive unpacks to more than the limit: it cannot give more than it says."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size, default=None)
    if largest is not None:
        name = f"{what}: bytes of its array {largest.filename.removesuffix('.npy')!r}"
        limits().check("unpacked", largest.file_size, name, at_least=8 * path.stat().st_size)


def _stored(path: Path, array: str | None, what: str) -> Array:
    suffix = path.suffix.lower()
    if suffix not in (".npy", ".npz"):  # by its content either may be the other one
        check_nameless(array, what)
    try:
        if suffix in (".npy", ".npz"):
            check_unpacked(path, what)
            with path.open("rb") as file:  # opened here, so that a damaged archive does not stay open
                loaded = np.load(file, allow_pickle=False)
                if isinstance(loaded, np.ndarray):
                    check_nameless(array, what)
                    return loaded
                with loaded as archive:
                    return _member(archive, array, what)
        if suffix == ".csv":
            limits().check("unpacked", path.stat().st_size, f"{what}: bytes")
            text = path.read_text(encoding="utf-8-sig")
            if not text.strip():
                raise InputError(f"{what} is empty; give one row of numbers separated by commas")
            return np.loadtxt(text.splitlines(), delimiter=",", dtype=np.float64, ndmin=2)
    except (InputError, OptionError):
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
            limits().check("pixels", image.width * image.height, f"{what}: pixels")
            if image.mode in ("L", "RGB", "RGBA"):
                return np.asarray(image)
            if image.mode.startswith("I"):  # 16 bits of grey; converting these to 8 would cut them off at 255
                return np.asarray(image).astype(np.uint16)
            if image.mode in ("1", "LA"):
                return np.asarray(image.convert("L"))
            if image.mode in ("P", "CMYK", "YCbCr"):
                return np.asarray(image.convert("RGB"))
            mode = image.mode
    except InputError:
        raise
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise InputError(f"{what} is not a readable image: {str(e).splitlines()[0]}; give a whole .png or .jpg file") from e
    raise InputError(f"{what} is an image of mode {mode}, which is not read; save it as grey or RGB")
