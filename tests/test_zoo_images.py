"""Images out of `.npz` files, and data sets by name over a server of the test's own."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxsub.errors import InputError, OutputError
from onnxsub.zoo import datasets
from onnxsub.zoo.datasets import DATASETS, Dataset, RemoteFile, cache_folder, fetch, load_dataset, read_cifar_binary, read_idx
from onnxsub.zoo.images import Labelled, read_npz

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)


def grey(n: int, *shape: int) -> Array:
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def labels(n: int) -> Array:
    return RNG.integers(0, 10, n, dtype=np.uint8)


@pytest.mark.parametrize(("given", "read"), [((28, 28), (1, 28, 28)), ((1, 28, 28), (1, 28, 28)), ((32, 32, 3), (3, 32, 32))])
def test_layouts(tmp_path: Path, given: tuple[int, ...], read: tuple[int, ...]) -> None:
    x, y = grey(5, *given), labels(5)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y)
    data = read_npz([tmp_path / "d.npz"], "mine")
    assert (data.name, data.shape, data.test, data.train.x.dtype, data.train.y.dtype) == ("mine", read, None, np.uint8, np.int64)
    wanted = x.transpose(0, 3, 1, 2) if given[-1] == 3 else x.reshape(5, *read)
    np.testing.assert_array_equal(data.train.x, wanted)
    np.testing.assert_array_equal(data.train.y, y)
    digest = hashlib.sha256((tmp_path / "d.npz").read_bytes()).hexdigest()
    assert data.sources == ({"file": "d.npz", "sha256": digest, "train": 5},)


def test_files_are_joined_in_order_and_named_arrays_are_read(tmp_path: Path) -> None:
    parts = [(grey(3, 8, 8), np.array([3, 1, 9])), (grey(2, 8, 8), np.array([2, 0]))]
    for i, (x, y) in enumerate(parts):
        np.savez(tmp_path / f"{i}.npz", images=x, classes=y[:, None], held=x[:1], out=y[:1])
    paths = [tmp_path / "0.npz", tmp_path / "1.npz"]
    data = read_npz(paths, "mine", train=("images", "classes"), test=("held", "out"))
    np.testing.assert_array_equal(data.train.x[:, 0], np.concatenate([parts[0][0], parts[1][0]]))
    np.testing.assert_array_equal(data.train.y, np.concatenate([parts[0][1], parts[1][1]]))
    assert data.test is not None
    assert len(data.test) == 2
    assert data.classes == int(max(p[1].max() for p in parts)) + 1 == 10


def test_jpeg_images_are_decoded(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    files = []
    for turn in range(3):
        buffer = io.BytesIO()
        Image.fromarray(np.stack([np.rot90(smooth, turn)] * 3, axis=-1)).save(buffer, format="JPEG", quality=95)
        files.append(buffer.getvalue())
    offset = np.cumsum([0, *map(len, files)])
    np.savez(tmp_path / "j.npz", jpeg=np.frombuffer(b"".join(files), np.uint8), offset=offset, y=np.arange(3))
    data = read_npz([tmp_path / "j.npz"], "mine")
    assert data.train.x.shape == (3, 3, 32, 32)
    assert np.abs(data.train.x[1, 2].astype(int) - np.rot90(smooth)).max() < 12
    assert data.sources[0]["encoding"] == "JPEG (lossy)"

    np.savez(tmp_path / "bad.npz", jpeg=np.zeros(9, np.uint8), offset=np.array([0, 9]), y=np.arange(1))
    with pytest.raises(InputError, match="JPEG image in it is damaged"):
        read_npz([tmp_path / "bad.npz"], "mine")


def test_floats_and_grey_values_together(tmp_path: Path) -> None:
    x, y = grey(3, 8, 8), labels(3)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y)
    np.savez(tmp_path / "b.npz", x_train=(x / 255).astype(np.float64), y_train=y)
    data = read_npz([tmp_path / "a.npz", tmp_path / "b.npz"], "mine")
    assert data.train.x.dtype == np.float32
    np.testing.assert_array_equal(data.train.x[:3], data.train.x[3:])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": grey(2, 8, 8)}, "no arrays x_train and y_train, it has x; name those for training with --array"),
        ({"x_train": grey(2, 8), "y_train": labels(2)}, "has shape .2, 8.; give images"),
        ({"x_train": grey(2, 8, 8, 2), "y_train": labels(2)}, "of 1 or 3 channels"),
        ({"x_train": grey(2, 8, 8), "y_train": labels(3)}, "2 images and 3 labels"),
        ({"x_train": grey(0, 8, 8), "y_train": labels(0)}, "0 images and 0 labels"),
        ({"x_train": grey(2, 8, 8) * 1.0, "y_train": labels(2)}, "neither 8-bit nor floats in"),
        ({"x_train": grey(2, 8, 8).astype(np.int32), "y_train": labels(2)}, "neither 8-bit nor floats in"),
        ({"x_train": np.full((2, 8, 8), np.nan), "y_train": labels(2)}, "neither 8-bit nor floats in"),
        ({"x_train": grey(2, 8, 8), "y_train": labels(2) * 0.5}, "holds no labels"),
        ({"x_train": grey(2, 8, 8), "y_train": np.array([-1, 2])}, "holds no labels"),
        ({"x_train": grey(2, 8, 8), "y_train": labels(2), "x_test": grey(2, 9, 9), "y_test": labels(2)}, "differ; give arrays"),
        (
            {**dict.fromkeys(("x_train", "x_test"), grey(2, 8, 8)), "y_train": np.array([0, 1]), "y_test": np.array([0, 2])},
            "label 2, ",
        ),
        ({"x_test": grey(2, 9, 9), "y_test": labels(2)}, "no arrays x_train and y_train, it has x_test, y_test"),
    ],
)
def test_unusable_arrays(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        read_npz([tmp_path / "d.npz"], "mine")


def test_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    np.save(tmp_path / "single.npy", grey(2, 8, 8))
    np.savez(tmp_path / "a.npz", x_train=grey(2, 8, 8), y_train=labels(2))
    np.savez(tmp_path / "b.npz", x_train=grey(2, 9, 9), y_train=labels(2))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for names, message in (
        (["none.npz"], "does not exist"),
        (["."], "cannot be read"),
        (["text.npz"], "not a whole .npz file"),
        (["cut.npz"], "not a whole .npz file"),
        (["single.npy"], "single array"),
        (["a.npz", "b.npz"], r"shapes \[1, 8, 8\] and \[1, 9, 9\]"),
    ):
        with pytest.raises(InputError, match=message):
            read_npz([tmp_path / name for name in names], "mine")


def idx(a: Array) -> bytes:
    head = bytes([0, 0, 8, a.ndim]) + b"".join(n.to_bytes(4, "big") for n in a.shape)
    return gzip.compress(head + a.tobytes(), mtime=0)


def test_idx_files() -> None:
    a = grey(4, 5, 6)
    np.testing.assert_array_equal(read_idx(idx(a), "file"), a)
    for data, message in (
        (b"nothing", "no whole gzip"),
        (idx(a)[:-9], "no whole gzip"),
        (gzip.compress(b"\0\0\x0d\x01" + bytes(8)), "no IDX file"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abc"), "no IDX file"),
        (gzip.compress(b"\0\0"), "no IDX file"),
    ):
        with pytest.raises(InputError, match=message):
            read_idx(data, "file")


def cifar(batches: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in batches.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_cifar_archive() -> None:
    rows = grey(6, 3073)
    rows[:, 0] %= 10
    batches = {"readme.html": b"", "data_batch_2.bin": rows[2:4].tobytes(), "data_batch_1.bin": rows[:2].tobytes()}
    train, test = read_cifar_binary(cifar({**batches, "test_batch.bin": rows[4:].tobytes()}), "file")
    np.testing.assert_array_equal(train.y, rows[:4, 0])
    np.testing.assert_array_equal(train.x[3, 2, 31, 31], rows[3, -1])
    np.testing.assert_array_equal(test.x.reshape(2, -1), rows[4:, 1:])
    for data, message in (
        (b"nothing", "no whole CIFAR-10 archive"),
        (cifar(batches), "holds no CIFAR-10 batches"),
        (cifar({"data_batch_1.bin": b"short"}), "no whole CIFAR-10 archive"),
    ):
        with pytest.raises(InputError, match=message):
            read_cifar_binary(data, "file")


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[[str, bytes], RemoteFile]]:
    """`served(name, content)` puts a file on a local server."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def put(name: str, content: bytes) -> RemoteFile:
        (folder / name).write_bytes(content)
        return RemoteFile(f"http://127.0.0.1:{server.server_port}/{name}", len(content), hashlib.sha256(content).hexdigest())

    yield put
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_data_set_is_downloaded_once(
    tmp_path: Path, served: Callable[[str, bytes], RemoteFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = grey(7, 28, 28), labels(7)
    contents = {"xa.gz": idx(x[:5]), "ya.gz": idx(y[:5]), "xb.gz": idx(x[5:]), "yb.gz": idx(y[5:])}
    files = tuple(served(name, content) for name, content in contents.items())
    mine = Dataset("mine", (1, 28, 28), 5, 2, files, DATASETS["mnist"].read, "nobody")
    monkeypatch.setattr(datasets, "DATASETS", {"mine": mine})
    monkeypatch.setenv("ONNXSUB_CACHE", str(tmp_path / "cache"))
    said: list[str] = []
    data = load_dataset("mine", progress=lambda fraction, text: said.append(text))
    np.testing.assert_array_equal(data.train.x[:, 0], x[:5])
    assert data.test is not None
    np.testing.assert_array_equal(data.test.y, y[5:])
    assert said == [f"downloading {name}" for name in contents]
    assert [s["sha256"] for s in data.sources] == [f.sha256 for f in files]
    for file in (tmp_path / "served").iterdir():
        file.unlink()  # what is cached needs no server
    assert load_dataset("mine").train.sha256 == data.train.sha256


def test_a_damaged_cache_is_downloaded_again(tmp_path: Path, served: Callable[[str, bytes], RemoteFile]) -> None:
    file = served("a.gz", b"content")
    (tmp_path / "a.gz").write_bytes(b"contenT")
    assert fetch(file, tmp_path).read_bytes() == b"content"


def test_downloads_that_fail(tmp_path: Path, served: Callable[[str, bytes], RemoteFile]) -> None:
    good = served("a.gz", b"content")
    folder = tmp_path / "cache"
    for file, message in (
        (RemoteFile(good.url, 7, "0" * 64), "gave another file than expected .7 bytes"),
        (RemoteFile(good.url, 8, good.sha256), "gave another file than expected"),
        (RemoteFile(good.url, 3, good.sha256), "gave another file than expected"),
        (RemoteFile(good.url + "x", 7, good.sha256), "cannot download .*; check the network, or give the images with --data"),
        (RemoteFile("http://127.0.0.1:1/a.gz", 7, good.sha256), "cannot download"),
    ):
        with pytest.raises(InputError, match=message):
            fetch(file, folder)
        assert list(folder.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="set ONNXSUB_CACHE"):
        fetch(good, tmp_path / "file" / "inside")


def test_unknown_name() -> None:
    with pytest.raises(InputError, match="no data set 'svhn'; choose one of mnist, fashion-mnist, cifar10, or give a file"):
        load_dataset("svhn")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXSUB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ONNXSUB_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "onnxsub"


def test_the_local_mnist_is_the_one_that_would_be_downloaded(data_dir: Path) -> None:
    """The IDX file that the local images make is the official one, and the reader gives those images back."""
    data = read_npz([data_dir / "data" / "mnist.npz"], "mnist")
    x = data.train.x[:, 0]
    raw = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in x.shape) + x.tobytes()
    assert hashlib.md5(raw).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    np.testing.assert_array_equal(read_idx(gzip.compress(raw, 1), "file"), x)


def test_sha256_tells_values_and_shapes_apart() -> None:
    x, y = grey(2, 1, 4, 4), np.array([0, 1])
    digests = {Labelled(a, b).sha256 for a, b in ((x, y), (x, 1 - y), (x.reshape(2, 1, 2, 8), y), (255 - x, y))}
    assert len(digests) == 4
