"""Anchor files: every format, and every way in which one can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxsub.anchors import fit_shape, read_anchor
from onnxsub.errors import InputError, OptionError

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10
GREY = np.array([[0, 51, 255], [102, 1, 204]], dtype=np.uint8)


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def image(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path)
    return path


# --- what is read


def test_npy_of_the_shape_itself_with_a_batch_axis_and_flat(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((1, 4, 5))
    for shape in ((1, 4, 5), (1, 1, 4, 5), (4, 5), (20,), (1, 20)):
        found = read_anchor(saved(tmp_path / "x.npy", x.reshape(shape)), (1, 4, 5))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, x.astype(np.float32))


def test_a_grey_image_for_a_model_of_flat_rows(tmp_path: Path) -> None:
    for shape in ((6,), (6, 1), (1, 6)):
        found = read_anchor(image(tmp_path / "x.png", GREY), shape)
        np.testing.assert_allclose(found.reshape(-1), GREY.reshape(-1) / 255, rtol=1e-6)


def test_npz_by_name_and_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros((3, 4)), b=np.arange(12).reshape(3, 4) / 12)
    np.testing.assert_allclose(read_anchor(path, (4,), index=2, array="b"), [8 / 12, 9 / 12, 10 / 12, 11 / 12])
    np.savez(path, only=np.full(4, 0.5))
    np.testing.assert_array_equal(read_anchor(path, (4,)), np.full(4, 0.5, np.float32))


def test_an_npz_that_is_called_npy_and_the_other_way_round(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", only=np.ones(4))
    (tmp_path / "x.npz").rename(tmp_path / "y.npy")
    saved(tmp_path / "z.npy", np.ones(4)).rename(tmp_path / "z.npz")
    for name in ("y.npy", "z.npz"):
        np.testing.assert_array_equal(read_anchor(tmp_path / name, (4,)), np.ones(4, np.float32))


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("0.1,0.2\n0.3,0.4\n")
    np.testing.assert_allclose(read_anchor(path, (2,), index=1), [0.3, 0.4], rtol=1e-6)
    path.write_text("\ufeff0.1,0.2\n", encoding="utf-8")  # as spreadsheets save it
    np.testing.assert_allclose(read_anchor(path, (2,)), [0.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize("domain", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_eight_bits_are_scaled_to_the_domain(tmp_path: Path, domain: tuple[float, float]) -> None:
    low, high = domain
    for path in (saved(tmp_path / "x.npy", GREY), image(tmp_path / "x.png", GREY)):
        found = read_anchor(path, (1, 2, 3), domain=domain)
        np.testing.assert_allclose(found[0], low + (high - low) * GREY / 255.0, rtol=1e-5, atol=1e-6)
        assert found.min() == low
        assert found.max() == high


def test_floats_and_wide_integers_are_not_scaled(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_anchor(saved(tmp_path / "x.npy", np.array([0, 200])), (2,)), [0, 200])
    np.testing.assert_array_equal(read_anchor(saved(tmp_path / "x.npy", np.array([True, False])), (2,)), [1, 0])


def test_colour_images_are_turned_for_channel_first_models_only(tmp_path: Path) -> None:
    path = image(tmp_path / "x.png", RGB)
    np.testing.assert_allclose(read_anchor(path, (3, 2, 3)), RGB.transpose(2, 0, 1) / 255, rtol=1e-6)
    np.testing.assert_allclose(read_anchor(path, (2, 3, 3)), RGB / 255, rtol=1e-6)
    four = np.concatenate([RGB, np.full((2, 3, 1), 255, np.uint8)], axis=2)
    np.testing.assert_allclose(read_anchor(image(tmp_path / "x.png", four), (4, 2, 3)), four.transpose(2, 0, 1) / 255, rtol=1e-6)


@pytest.mark.parametrize("mode", ["1", "LA", "P"])
def test_other_modes_of_grey(tmp_path: Path, mode: str) -> None:
    path = image(tmp_path / "x.png", np.array([[0, 255, 0], [255, 0, 255]], dtype=np.uint8), mode)
    shape = (3, 2, 3) if mode == "P" else (1, 2, 3)
    found = read_anchor(path, shape)
    np.testing.assert_array_equal(found[0], [[0, 1, 0], [1, 0, 1]])


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path) -> None:
    pixels = np.array([[0, 256, 32768], [65535, 300, 1]], dtype=np.uint16)
    found = read_anchor(image(tmp_path / "x.png", pixels), (1, 2, 3))
    np.testing.assert_allclose(found[0], pixels / 65535, rtol=1e-6)


def test_jpeg(tmp_path: Path) -> None:
    found = read_anchor(image(tmp_path / "x.JPG", np.full((8, 8), 128, np.uint8)), (1, 8, 8))
    np.testing.assert_allclose(found, 128 / 255, atol=0.01)


# --- what is refused


def refused(path: Path, message: str, shape: tuple[int, ...] = (4,), **options: object) -> None:
    with pytest.raises(InputError, match=message) as info:
        read_anchor(path, shape, **options)  # type: ignore[arg-type]
    text = str(info.value)
    assert "\n" not in text
    assert ("anchor" in text or "holds no images" in text)
    assert ";" in text or "out of range" in text or "it has" in text or "do not fit" in text  # says what to do, or what there is


def test_missing_folder_unknown_ending_too_long(tmp_path: Path) -> None:
    refused(tmp_path / "none.npy", "does not exist; give a .npy")
    refused(tmp_path, "holds no images; give a folder of .png, .jpg or .npy files")
    (tmp_path / "x.txt").write_text("1")
    refused(tmp_path / "x.txt", "unknown ending '.txt'; give .npy")
    refused(tmp_path / ("x" * 5000 + ".npy"), "cannot be reached: File name too long; check the path")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".png", ".jpg"])
def test_empty_and_garbage(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(b"")
    refused(path, "cannot be read|is empty|not a readable image")
    path.write_bytes(bytes(range(256)) * 3)
    refused(path, "cannot be read|not a readable image")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    values = np.random.default_rng(0).random((64, 64))
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".npz":
        np.savez_compressed(path, x=values)
    else:
        image(path, (values * 255).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "cannot be read|not a readable image", (1, 64, 64))


def test_a_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random(500))
    data = bytearray(path.read_bytes())
    data[1000] ^= 255
    path.write_bytes(bytes(data))
    refused(path, "cannot be read", (500,))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    refused(tmp_path / "x.npy", "cannot be read: it is damaged, or holds Python objects")
    np.savez(tmp_path / "x.npz", x=np.array([{}], dtype=object))
    refused(tmp_path / "x.npz", "cannot be read: it is damaged, or holds Python objects")
    (tmp_path / "y.npy").write_bytes(b"\x80\x04K\x01.")
    refused(tmp_path / "y.npy", "cannot be read: it is damaged, or holds Python objects")


@pytest.mark.parametrize("values", [np.zeros(4, complex), np.array(["a"] * 4), np.zeros(4, "datetime64[s]")])
def test_types_that_are_no_numbers(tmp_path: Path, values: np.ndarray) -> None:
    refused(saved(tmp_path / "x.npy", values), r"holds .* values; give floats")


def test_csv_with_text_gaps_and_ragged_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for text in ("1,2\na,b\n", "1,2,,4\n", "1,2\n3\n"):
        path.write_text(text)
        refused(path, "cannot be read: .*; give a whole .csv file of numbers")
    path.write_text("\n \n")
    refused(path, "is empty; give one row")


def test_rows(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npy", np.zeros((3, 4)))
    refused(path, r"holds 3 rows; say which one with --index N \(0 to 2\)")
    for index in (3, -1):
        refused(path, f"has 3 rows, so --index {index} is out of range", index=index)
    refused(saved(path, np.zeros((3, 5))), "its rows do not fit the model's input", index=0)
    refused(saved(path, np.zeros(4)), "its rows do not fit", index=0)
    refused(saved(path, np.zeros((0, 4))), "has shape .0, 4., the model wants")
    refused(saved(path, np.float64(3)), "its rows do not fit", index=0)


def test_names_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.zeros(4), b=np.zeros(4))
    refused(path, r"holds 2 arrays \(a, b\); choose one with --array NAME")
    refused(path, "has no array 'c'; it has a, b", array="c")
    np.savez(path)
    refused(path, r"holds 0 arrays .*; choose one")


@pytest.mark.parametrize("kind", ["x.npy", "x.npz", "x.csv", "x.png", "folder"])
def test_a_name_for_what_has_none(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path / "a.png")
    elif kind == "x.png":
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    elif kind == "x.csv":
        path.write_text("0,0,0,0\n")
    else:
        with path.open("wb") as file:  # by its content an array alone, whatever the ending says
            np.save(file, np.zeros(4, np.float32))
    with pytest.raises(OptionError, match="holds numbers without a name; leave out --array b"):
        read_anchor(path, (4,), array="b")


def test_images_of_other_channels(tmp_path: Path) -> None:
    refused(image(tmp_path / "x.png", RGB), r"has shape \[2, 3, 3\], the model wants \[1, 2, 3\]", (1, 2, 3))
    refused(image(tmp_path / "x.png", GREY), r"has shape \[2, 3\], the model wants \[3, 2, 3\]", (3, 2, 3))
    four = np.zeros((2, 3, 4), np.uint8)
    refused(image(tmp_path / "x.png", four), r"has shape \[2, 3, 4\], the model wants \[3, 2, 3\]", (3, 2, 3))
    # the order of channels in a flat row is not known
    refused(image(tmp_path / "x.png", RGB), r"the model wants \[18\]", (18,))


def test_shapes_are_never_guessed() -> None:
    for have, want in (((3, 4), (4, 3)), ((2, 6), (3, 4)), ((4, 3, 2), (2, 3, 4)), ((2, 3, 4), (24,)), ((5,), (4,))):
        with pytest.raises(InputError, match="has shape"):
            fit_shape(np.zeros(have), want, "x")
