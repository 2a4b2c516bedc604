"""Data sets by name: downloaded once with the standard library, checked by SHA-256, kept in the user's cache folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tarfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import MappingProxyType

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.files import atomic, make_folder, one_line
from onnxsub.ops.base import Array, Shape
from onnxsub.zoo.images import ImageSet, Labelled

__all__ = ["DATASETS", "Dataset", "RemoteFile", "cache_folder", "fetch", "load_dataset", "read_cifar_binary", "read_idx"]

Report = Callable[[float, str], None]

_CHUNK = 1 << 18
_TIMEOUT = 60.0
"""Seconds without a byte after which a download has failed."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download: `url`, its `size` in bytes and its `sha256`."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Dataset:
    """A data set that is known by name.

    Attributes:
        name: as `--dataset` takes it. shape: of an image. train, test: number of images.
        files: what is downloaded. read: from their contents, in that order, to training and test images.
        source: who made it.
    """

    name: str
    shape: Shape
    train: int
    test: int
    files: tuple[RemoteFile, ...]
    read: Callable[..., tuple[Labelled, Labelled]]
    source: str


def read_idx(data: bytes, what: str) -> Array:
    """The array of unsigned bytes in a gzipped IDX file: two zeros, 8, the number of axes, their lengths, the values."""
    try:
        raw = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise InputError(f"{what} is no whole gzip file; delete it and try again") from error
    axes = raw[3] if raw[:3] == b"\0\0\x08" and len(raw) > 3 else 0
    shape = tuple(int(n) for n in np.frombuffer(raw, ">u4", axes, 4)) if axes and len(raw) >= 4 + 4 * axes else ()
    if not shape or len(raw) != 4 + 4 * axes + int(np.prod(shape)):
        raise InputError(f"{what} is no IDX file of bytes; delete it and try again")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_cifar_binary(data: bytes, what: str) -> tuple[Labelled, Labelled]:
    """Training and test images of the binary archive: records of one label and 3 x 32 x 32 values."""
    batches: dict[str, Array] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if name.startswith(("data_batch_", "test_batch")) else None
                if content is not None:
                    batches[name] = np.frombuffer(content.read(), np.uint8).reshape(-1, 3073)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{what} is no whole CIFAR-10 archive ({one_line(error, 80)}); delete it and try again") from error
    trained = sorted(name for name in batches if name.startswith("data_batch_"))
    if not trained or "test_batch.bin" not in batches:
        raise InputError(f"{what} holds no CIFAR-10 batches; delete it and try again")
    train = np.concatenate([batches[name] for name in trained])
    return _records(train), _records(batches["test_batch.bin"])


def _records(rows: Array) -> Labelled:
    return Labelled(np.ascontiguousarray(rows[:, 1:]).reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64))


def _read_idx_files(*files: tuple[bytes, str]) -> tuple[Labelled, Labelled]:
    x, y, x_test, y_test = (read_idx(*file) for file in files)
    return Labelled(x[:, None], y.astype(np.int64)), Labelled(x_test[:, None], y_test.astype(np.int64))


def _read_cifar(file: tuple[bytes, str]) -> tuple[Labelled, Labelled]:
    return read_cifar_binary(*file)


def _idx(base: str, *files: tuple[str, int, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(f"{base}/{name}-ubyte.gz", size, digest) for name, size, digest in files)


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        d.name: d
        for d in (
            Dataset(
                "mnist", (1, 28, 28), 60_000, 10_000,
                _idx(
                    "https://ossci-datasets.s3.amazonaws.com/mnist",
                    ("train-images-idx3", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
                    ("train-labels-idx1", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
                    ("t10k-images-idx3", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
                    ("t10k-labels-idx1", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
                ),
                _read_idx_files, "LeCun, Cortes, Burges",
            ),
            Dataset(
                "fashion-mnist", (1, 28, 28), 60_000, 10_000,
                _idx(
                    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
                    ("train-images-idx3", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                    ("train-labels-idx1", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                    ("t10k-images-idx3", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                    ("t10k-labels-idx1", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
                ),
                _read_idx_files, "Xiao, Rasul, Vollgraf 2017",
            ),
            Dataset(
                "cifar10", (3, 32, 32), 50_000, 10_000,
                (
                    RemoteFile(
                        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171,
                        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    ),
                ),
                _read_cifar, "Krizhevsky 2009",
            ),
        )
    }
)  # fmt: skip
"""Name -> data set. A new one is an entry here, and a reader if its format is new."""


def load_dataset(name: str, *, cache: str | os.PathLike[str] | None = None, progress: Report | None = None) -> ImageSet:
    """A data set by name, downloaded into `cache` (default: `cache_folder()`) unless it is there.

    Raises:
        InputError: no such name, the download failed, or it is not the file that was expected.
        OutputError: the cache cannot be written.
    """
    if name not in DATASETS:
        raise OptionError(f"there is no data set {name!r}; choose one of {', '.join(DATASETS)}, or give a file with --data")
    dataset = DATASETS[name]
    folder = Path(cache_folder() if cache is None else cache) / "datasets" / name
    paths = [fetch(file, folder, progress) for file in dataset.files]
    train, test = dataset.read(*((path.read_bytes(), f"file {str(path)!r}") for path in paths))
    sources = tuple({"file": file.name, "url": file.url, "sha256": file.sha256} for file in dataset.files)
    return ImageSet(name, train, test, sources)


def cache_folder() -> Path:
    """`$ONNXSUB_CACHE`, else `onnxsub` in the folder that the system keeps for caches."""
    named = os.environ.get("ONNXSUB_CACHE")
    if named:
        return Path(named)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "onnxsub"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "onnxsub"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onnxsub"


def fetch(file: RemoteFile, folder: Path, progress: Report | None = None) -> Path:
    """The path of `file` in `folder`; downloads it when it is not there or not whole. Raises as `load_dataset` does."""
    path = folder / file.name
    if path.is_file() and _sha256(path) == file.sha256:
        return path
    make_folder(folder, "set ONNXSUB_CACHE to another one")
    digest, done = hashlib.sha256(), 0
    with atomic(path) as target:
        for chunk in _chunks(file):
            done += len(chunk)
            if done > file.size:
                break  # not the file; what comes further is not worth waiting for
            target.write(chunk)
            digest.update(chunk)
            if progress is not None:
                progress(done / file.size, f"downloading {file.name}")
        if digest.hexdigest() != file.sha256 or done != file.size:
            raise InputError(
                f"{file.url} gave another file than expected ({done} bytes, SHA-256 {digest.hexdigest()[:16]}...); "
                "try again, or give the images with --data"
            )
    return path


def _chunks(file: RemoteFile) -> Iterator[bytes]:
    """What the server sends. Only failures of the network become InputError, not those of whoever takes the chunks."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "onnxsub"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            while chunk := answer.read(_CHUNK):
                yield chunk
    except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
        why = one_line(getattr(error, "reason", None) or error, 80)
        raise InputError(f"cannot download {file.url}: {why}; check the network, or give the images with --data") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
