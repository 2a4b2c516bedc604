"""Files of arrays: `.npz` and `.npy`."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from onnxsub.array_files import check_unpacked
from onnxsub.errors import InputError
from onnxsub.files import one_line
from onnxsub.ops.base import Array

__all__ = ["images_of", "read_arrays"]


def read_arrays(path: Path) -> Mapping[str, Array]:
    """The arrays of a file by name; an `.npy` has one, named by the empty string."""
    if path.suffix.lower() == ".npz":
        return _Members(path)
    with _readable(path):
        check_unpacked(path, f"{str(path)!r}")
    with _readable(path), path.open("rb") as file:
        return {"": np.asarray(np.load(file, allow_pickle=False))}


class _Members(Mapping[str, Array]):
    """The members of an `.npz`, each read when asked for: the training images are not needed to look at the test images."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _readable(path):
            check_unpacked(path, f"{str(path)!r}")
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
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{str(path)!r} cannot be read: {one_line(error)}; give a whole file of plain arrays") from error


def images_of(arrays: Mapping[str, Array], path: Path) -> str:
    """The name of the array that holds the images. Raises InputError where that cannot be told."""
    images = [n for n in arrays if not n.startswith("y")]
    for name in ("x_test", "x"):
        if name in images:
            return name
    if len(images) == 1:
        return images[0]
    raise InputError(f"{path.name} holds {', '.join(arrays)}; say with --array which ones are the images")
