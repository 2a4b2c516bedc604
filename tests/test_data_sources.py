"""Data sets as people have them: folders of images, tables, labels of every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.anchors import read_anchor
from onnxsub.errors import InputError
from onnxsub.evaluate.labels import class_numbers, read_classes
from onnxsub.evaluate.samples import Choice, Samples, anchor_of, read_samples

Image = pytest.importorskip("PIL.Image")

TABLE = "id,width,height,label\n7,0.5,1,2\n8,0.25,0,0\n9,0.125,1,1\n"


def folder(root: Path, **images: list[np.ndarray[Any, Any]]) -> Path:
    for name, pictures in images.items():
        (root / name).mkdir(parents=True)
        for i, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def grey(value: int, size: tuple[int, ...] = (4, 5)) -> np.ndarray[Any, Any]:
    return np.full(size, value, np.uint8)


def refused(source: Path, message: str, **how: Any) -> None:
    with pytest.raises(InputError, match=message) as info:
        read_samples(source, Choice(), **how)
    assert "\n" not in str(info.value)


# --- folders


def test_a_folder_of_a_folder_per_class(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", dog=[grey(10), grey(11)], cat=[grey(i) for i in range(6)])
    (path / "cat" / "notes.txt").write_text("no image")
    (path / ".hidden").mkdir()
    found = read_samples(path, Choice())
    assert found.x.shape == (8, 4, 5)
    assert found.x.dtype == np.uint8
    assert found.y is not None
    np.testing.assert_array_equal(found.y, (found.x[:, 0, 0] >= 10).astype(int))  # cat is 0, dog is 1
    assert found.notes == ("classes are the sorted names: cat is 0, dog is 1; another order: --classes",)
    np.testing.assert_allclose(anchor_of(found.x[0], (1, 4, 5), (0.0, 1.0), "x"), found.x[0][None] / 255, rtol=1e-6)


def test_the_order_of_a_folder_mixes_classes_and_is_that_of_the_names(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", a=[grey(i) for i in range(12)], b=[grey(100 + i) for i in range(12)])
    first = read_samples(path, Choice(limit=8))
    assert first.y is not None
    assert set(first.y.tolist()) == {0, 1}
    other = folder(tmp_path / "elsewhere", a=[grey(i) for i in range(12)], b=[grey(100 + i) for i in range(12)])
    again = read_samples(other, Choice(limit=8))
    np.testing.assert_array_equal(again.x, first.x)
    assert again.sha256 == first.sha256
    Image.fromarray(grey(200)).save(other / "a" / "0.png")
    assert read_samples(other, Choice()).sha256 != read_samples(path, Choice()).sha256


def test_classes_of_a_folder_as_stated(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", cat=[grey(1)], dog=[grey(2)], kitten=[grey(3)])
    found = read_samples(path, Choice(), classes=read_classes("dog=0,cat=1,kitten=1"))
    assert found.y is not None
    assert dict(zip(found.x[:, 0, 0].tolist(), found.y.tolist(), strict=True)) == {1: 1, 2: 0, 3: 1}
    assert found.notes == ()
    refused(path, "class name 'dog', which --classes does not name", classes=read_classes("cat,kitten"))


def test_folders_that_are_numbers(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", **{str(i): [grey(i)] for i in range(11)})
    refused(path, "'10' is number 2 in the order of the names; say with --classes numeric that '10' is class 10")
    for word, of_ten in (("numeric", 10), ("sorted", 2)):
        found = read_samples(path, Choice(), classes=(word,))
        assert found.y is not None
        assert found.y[found.x[:, 0, 0] == 10].tolist() == [of_ten]
    padded = folder(tmp_path / "p", **{f"{i:02}": [grey(i)] for i in range(11)})
    found = read_samples(padded, Choice())
    assert found.y is not None
    np.testing.assert_array_equal(found.y, found.x[:, 0, 0])


def test_grey_images_among_coloured_ones(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", a=[grey(7), grey(9, (4, 5, 3))])
    assert sorted(read_samples(path, Choice()).x[:, 0, 0].tolist()) == [[7, 7, 7], [9, 9, 9]]


def test_images_without_classes(tmp_path: Path) -> None:
    path = folder(tmp_path, d=[grey(1), grey(2)]) / "d"
    refused(path, "has no labels: give each class a folder of its own in it, or say --labels predicted")
    assert read_samples(path, Choice(), labels="predicted").y is None


def test_folders_that_are_refused(tmp_path: Path) -> None:
    refused(folder(tmp_path / "sizes", a=[grey(1), grey(2, (5, 5))]), "give all of them the model's size")
    split = folder(tmp_path / "split" / "train", a=[grey(1)]).parent
    refused(split, "has folders in 'train' and no images; name one of its parts, for instance '.*train'")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no images")
    wide = tmp_path / "wide"
    (wide / "a").mkdir(parents=True)
    Image.fromarray(np.full((4, 5), 300, np.uint16)).save(wide / "a" / "0.png")
    refused(wide, "has 16 bits a channel")
    refused(folder(tmp_path / "ok", a=[grey(1)]), "leave out --array", array="x")


# --- tables


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def values(found: Samples) -> list[Any]:
    return [found.x.tolist(), None if found.y is None else found.y.tolist()]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_a_header(tmp_path: Path, delimiter: str) -> None:
    path = written(tmp_path / "t.csv", TABLE.replace(",", delimiter))
    found = read_samples(path, Choice(index=(2, 0)), array="height,width")
    assert values(found) == [[[1, 0.125], [1, 0.5]], [1, 2]]
    assert found.labels == "label"
    assert found.notes == ("column 'label' of t.csv holds the labels; name others with --label-column, --array",)
    stated = read_samples(path, Choice(), labels="height")
    assert stated.x.tolist()[0] == [7, 0.5, 2]
    assert stated.notes == ()


def test_what_pandas_writes(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", ",a,b,target\n0,1,2,1.0\n1,3,4,0.0\n")
    assert values(read_samples(path, Choice())) == [[[1, 2], [3, 4]], [1, 0]]
    path = written(tmp_path / "t.csv", "0,1,2\n0.5,0.25,1\n")  # a frame without names
    assert values(read_samples(path, Choice(), labels="2")) == [[[0.5, 0.25]], [1]]


def test_a_csv_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "0.5,3,1\n0.25,4,0\n")
    refused(path, r"name their column with --label-column \(0, 1, 2\)")
    assert values(read_samples(path, Choice(), labels="2")) == [[[0.5, 3], [0.25, 4]], [1, 0]]


def test_names_as_labels(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "a,class\n1,setosa\n2,virginica\n3,setosa\n")
    found = read_samples(path, Choice())
    assert values(found) == [[[1], [2], [3]], [0, 1, 0]]
    assert "setosa is 0, virginica is 1" in found.notes[1]
    found = read_samples(path, Choice(limit=1), classes=read_classes("virginica,setosa"))
    assert values(found) == [[[1]], [1]]


def test_several_columns_are_one_hot(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "a,no,yes\n1,0,1\n2,1,0\n")
    assert values(read_samples(path, Choice(), labels="no,yes")) == [[[1], [2]], [1, 0]]


def test_without_labels_a_column_of_labels_is_no_feature(tmp_path: Path) -> None:
    found = read_samples(written(tmp_path / "t.csv", TABLE), Choice(), labels="predicted")
    assert found.x.shape == (3, 3)
    assert "'label' of t.csv is no input" in found.notes[0]


def test_tables_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for text, message in (
        ("a,label\n1,\n", "row 0 of column 'label' is empty"),
        ("a,label\nx,1\n", "row 0 of column 'a' is 'x', which is no number"),
        ("a,label\n1\n", "row 0 has 1 values, the first line 2"),
        ("a,a,label\n1,2,0\n", "two columns 'a'"),
        ("a,label\n", "has no rows"),
        ("a,label\n1,0.5\n", "labels are one integer per image"),
        ("label\n1\n", "no columns beside the labels"),
    ):
        refused(written(path, text), message)
    refused(written(path, TABLE), "--label-column: t.csv has no column 'species'; it has id, width", labels="species")
    refused(tmp_path / "t.parquet", "does not exist; give an .npz, .npy, .csv or .parquet file, or a folder")
    refused(Path("mnits"), "did you mean 'mnist'")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    path = tmp_path / "t.parquet"
    columns: dict[str, Any] = {"a": pyarrow.array([1, 2], "uint8"), "b": [0.5, None], "label": ["x", "y"]}
    parquet.write_table(pyarrow.table(columns), path)
    refused(path, "row 1 of column 'b' is empty")
    assert values(read_samples(path, Choice(), array="a")) == [[[1.0], [2.0]], [0, 1]]  # a small count is no grey value
    images = pyarrow.array([[[0, 255], [1, 2]], [[3, 4], [5, 6]]], pyarrow.list_(pyarrow.list_(pyarrow.uint8())))
    parquet.write_table(pyarrow.table({"image": images, "label": [1, 0]}), path)
    found = read_samples(path, Choice())
    assert found.x.dtype == np.uint8
    assert values(found) == [[[[0, 255], [1, 2]], [[3, 4], [5, 6]]], [1, 0]]
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    refused(tmp_path / "bad.parquet", "cannot be read")


def test_a_row_of_a_table_as_an_anchor(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", TABLE)
    np.testing.assert_array_equal(read_anchor(path, (3,), index=1), [8, 0.25, 0])
    np.testing.assert_array_equal(read_anchor(path, (4,), index=1), [8, 0.25, 0, 0])
    np.testing.assert_array_equal(read_anchor(path, (2,), index=2, array="height,width"), [1, 0.125])
    with pytest.raises(InputError, match="holds 3 rows; say which one with --index"):
        read_anchor(path, (3,))
    with pytest.raises(InputError, match="has 3 rows, so --index 3 is out of range"):
        read_anchor(path, (3,), index=3)


# --- labels


@pytest.mark.parametrize(
    "y", [[2, 0, 1], [2.0, 0.0, 1.0], [[2], [0], [1]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], [[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]]
)
def test_labels_of_every_form(y: list[Any]) -> None:
    found, names = class_numbers(np.array(y), None, "labels")
    assert found.tolist() == [2, 0, 1]
    assert found.dtype == np.int64
    assert names is None


@pytest.mark.parametrize("y", [[0.5, 1.0], [np.nan, 1.0], [[1, 1], [0, 1]], [[0.2, 0.8], [1, 0]], [1j]])
def test_what_is_no_label(y: list[Any]) -> None:
    with pytest.raises(InputError, match="labels are one integer per image, a one-hot row, or a name"):
        class_numbers(np.array(y), None, "labels")


def test_numbers_can_be_given_classes() -> None:
    found, _ = class_numbers(np.array([-1, 1, -1]), read_classes("-1=0,1=1"), "labels")
    assert found.tolist() == [0, 1, 0]


def test_class_files(tmp_path: Path) -> None:
    assert read_classes(str(written(tmp_path / "c.txt", "cat\n\ndog\n"))) == ("cat=0", "dog=1")
    assert read_classes(str(written(tmp_path / "c.json", '{"dog": 3, "cat": 1}'))) == ("dog=3", "cat=1")
    assert read_classes(str(written(tmp_path / "c.json", '["b", "a"]'))) == ("b=0", "a=1")
    for text in ("a,a", "a=0,b", "a=x", "", str(tmp_path / "none.txt"), str(written(tmp_path / "bad.json", "[1]"))):
        with pytest.raises(InputError, match="--classes"):
            read_classes(text)


def test_a_single_array_has_no_name(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"x\.npy holds numbers without a name; leave out --array"):
        read_samples(str(tmp_path / "x.npy"), Choice(), "foo", "predicted")


# --- runs


def test_a_run_finds_its_samples_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxsub.evaluate.plan import Plan, difference, plan_again, read_plan, write_plan
    from onnxsub.evaluate.settings import Settings

    monkeypatch.chdir(tmp_path)
    model = Path(__file__).parents[1] / "models" / "digits.onnx"
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    folder(tmp_path / "d", seven=list(pictures[:3]), four=list(pictures[3:]))
    rows = "\n".join(",".join(map(str, [*p.reshape(-1).tolist(), "four"])) for p in pictures)
    written(tmp_path / "t.csv", ",".join([*(f"p{i}" for i in range(64)), "class"]) + "\n" + rows + "\n")
    for source in ("d", "t.csv"):
        samples = read_samples(source, Choice(limit=4), classes=read_classes("four=4,seven=7"))
        plan = Plan.of((str(model),), samples, Settings(mean=tuple(np.linspace(0, 1, 64)), std=(1.0,)))
        write_plan(plan, tmp_path / "run.toml")
        recorded = read_plan(tmp_path / "run.toml")
        again = plan_again(recorded)
        assert difference(recorded, again.to_json()) is None
        np.testing.assert_array_equal(again.samples.x, samples.x)
        np.testing.assert_array_equal(again.samples.y, samples.y)
        other = Plan.of((str(model),), read_samples(source, Choice(limit=4), classes=read_classes("four=5,seven=7")), plan.settings)
        assert "data.classes" in str(difference(recorded, other.to_json()))
    Image.fromarray(pictures[0] // 2).save(tmp_path / "d" / "seven" / "0.png")
    assert read_samples("d", Choice()).sha256 != read_samples("d", Choice(limit=1)).sha256


def test_a_sample_of_a_folder_as_an_anchor(tmp_path: Path) -> None:
    path = folder(tmp_path / "d", cat=[grey(51, (8, 8)), grey(102, (8, 8))], dog=[grey(255, (8, 8))])
    found = read_samples(path, Choice())
    for i in range(3):
        np.testing.assert_array_equal(read_anchor(path, (1, 8, 8), index=i), anchor_of(found.x[i], (1, 8, 8), (0.0, 1.0), "x"))
    with pytest.raises(InputError, match="holds 3 images; say which one with --index N"):
        read_anchor(path, (1, 8, 8))
    with pytest.raises(InputError, match="has 3 images, so --index 3 is out of range"):
        read_anchor(path, (1, 8, 8), index=3)
