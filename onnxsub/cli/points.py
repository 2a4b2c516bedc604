"""Files that a command writes: found to be writable before anything long is computed, and never left half-written."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from onnxsub.errors import InputError, MissingDependencyError, OptionError, OutputError
from onnxsub.files import write_atomic
from onnxsub.scratch import part_name

if TYPE_CHECKING:
    from onnxsub.ops.base import Array
    from onnxsub.region import InputSpace

__all__ = ["check_writable", "write_point"]

POINT_FILES = (".npy", ".npz", ".png")


def check_writable(path: str | None, endings: tuple[str, ...]) -> None:
    """Nothing, when `path` can be written (or is None). Called before the computation, so that its result is not lost.

    Raises:
        InputError: the name's ending says a format that is not among `endings`.
        OutputError: no such folder, not writable, or a folder itself.
    """
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() not in endings:
        raise OptionError(f"-o {path!r} has the ending {target.suffix!r}; give one of {', '.join(endings)}")
    if target.is_dir():
        raise OutputError(f"cannot write {path!r}: it is a folder; give the name of a file in it")
    folder = Path(os.path.realpath(target)).parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {path!r}: there is no folder {str(target.parent)!r}; create it or choose another one")
    try:
        probe = folder / part_name()
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(f"cannot write {path!r}: {error.strerror or error}; choose a folder that is writable") from error


def write_point(path: str, x: Array, space: InputSpace) -> None:
    """Write one point of `space` (per-sample shape) as an un-normalised input: `.npy` or `.npz` (`x`) with a batch axis, or `.png`.

    The image holds the nearest of 256 grey values per element, which is no longer the very same point.
    """
    import numpy as np

    x = space.original(x)
    suffix = Path(path).suffix.lower()
    data = io.BytesIO()
    if suffix == ".npy":
        np.save(data, x[None])
    elif suffix == ".npz":
        np.savez(data, x=x[None])
    else:
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingDependencyError('a .png needs Pillow; run pip install "onnxsub[images]", or write .npy') from error
        lower, upper = (np.broadcast_to(end, x.shape) for end in space.plain.grey)
        width = np.where(upper > lower, upper - lower, 1.0)
        grey = np.clip(np.round((x.astype(np.float64) - lower) / width * 255), 0, 255).astype(np.uint8)
        Image.fromarray(_as_image(grey, path)).save(data, format="PNG")
    write_atomic(path, data.getvalue())


def _as_image(x: Array, path: str) -> Array:
    """`(H, W)` or `(H, W, 3)` of a per-sample array in any of the usual layouts."""
    flat = x.squeeze()
    if flat.ndim == 2:
        return flat
    if flat.ndim == 3 and flat.shape[0] == 3:
        return flat.transpose(1, 2, 0)
    if flat.ndim == 3 and flat.shape[2] == 3:
        return flat
    raise InputError(f"cannot write {path!r}: an input of shape {list(x.shape)} is no image; write .npy")
