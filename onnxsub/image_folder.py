"""A folder of images, a folder in it for each class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxsub.array_files import IMAGES, read_array
from onnxsub.errors import InputError
from onnxsub.ops.base import Array

__all__ = ["ImageFolder", "list_images"]

_SAMPLES = (*IMAGES, ".npy")
_SPLITS = ("train", "training", "test", "testing", "val", "valid", "validation")


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, not read yet.

    Attributes:
        path: the folder. files: `class/name`, or `name` where there are no classes, in the order of the data set: that of a hash of
            these names, so that any first few of them are of mixed classes.
        names: of the classes, sorted; empty: images lie in the folder itself.
    """

    path: Path
    files: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def classes(self) -> list[str]:
        """The class name of each file."""
        return [file.partition("/")[0] for file in self.files]

    def sha256(self, rows: Sequence[int]) -> str:
        """Of the names of all files and the bytes of the chosen ones."""
        digest = hashlib.sha256("\n".join(sorted(self.files)).encode())
        for row in rows:
            digest.update((self.path / self.files[row]).read_bytes())
        return digest.hexdigest()

    def read(self, rows: Sequence[int]) -> Array:
        """The chosen images, `(len(rows), H, W)` or `(len(rows), H, W, C)`, uint8; grey ones are RGB where others are.

        Raises:
            InputError: an image that cannot be read, of 16 bits, or of another size than the first.
        """
        images = [read_array(self.path / self.files[row]) for row in rows]
        if any(image.ndim == 3 and image.shape[2] == 3 for image in images):
            images = [np.stack([image] * 3, axis=2) if image.ndim == 2 and image.dtype == np.uint8 else image for image in images]
        for row, image in zip(rows, images, strict=True):
            name = str(self.path / self.files[row])
            if image.dtype == np.uint16:
                raise InputError(f"image {name!r} has 16 bits a channel; give 8, or floats as .npy")
            if image.shape != images[0].shape or image.dtype != images[0].dtype:
                first = f"{self.files[rows[0]]!r} is {_size(images[0])}"
                raise InputError(f"image {name!r} is {_size(image)}, {first}; give all of them the model's size and one mode")
        return np.stack(images)


def list_images(path: Path) -> ImageFolder:
    """Which images a folder holds.

    Raises:
        InputError: none, or folders in the folders of the classes.
    """
    folders = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {folder.name: _files(folder) for folder in folders}
    bare = [name for name, files in found.items() if not files]
    if bare and any(p.is_dir() for p in (path / bare[0]).iterdir()):
        what = "one of its parts" if bare[0].lower() in _SPLITS else "the folder whose folders are the classes"
        inner = str(path / bare[0])
        raise InputError(f"{str(path)!r} has folders in {bare[0]!r} and no images; name {what}, for instance {inner!r}")
    files = [f"{name}/{file}" for name, inside in found.items() for file in inside]
    if not folders:
        files = _files(path)
    if not files:
        raise InputError(f"{str(path)!r} holds no images; give a folder of .png, .jpg or .npy files, a folder in it for each class")
    files.sort(key=lambda file: hashlib.sha256(file.encode("utf-8", "surrogateescape")).digest())
    return ImageFolder(path, tuple(files), tuple(found))


def _files(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.suffix.lower() in _SAMPLES and not p.name.startswith(".") and p.is_file()]


def _size(image: Array) -> str:
    return f"{'x'.join(map(str, image.shape))} {image.dtype}"
