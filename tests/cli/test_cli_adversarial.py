"""`onnxsub adversarial`: its document, its files, the table for people, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.metrics.adversarial import work_pair
from onnxsub.runtime import Runtime
from tests.robustness_tools import Here

pyarrow = pytest.importorskip("pyarrow.parquet", reason="results are written as Parquet (extra report)")

QUICK = ("--eps", "0.02", "--timeout", "2")


@pytest.fixture
def data(digits: Path) -> tuple[str, ...]:
    """The options of three anchors of the bundled data."""
    with np.load(digits / "anchors.npz") as archive:
        names = list(archive.files)
        x = archive[next(n for n in names if archive[n].ndim > 1)][:3]
    np.savez(digits / "data.npz", x_test=x, y_test=Runtime(digits / "digits.onnx").logits(_fed(x, digits)).argmax(1))
    return ("--data", "data.npz")


def _fed(x: np.ndarray, folder: Path) -> np.ndarray:
    model = Runtime(folder / "digits.onnx").model
    scaled = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    return scaled.reshape(len(x), *model.input_shape)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in this process: starting others is tested elsewhere."""
    monkeypatch.setattr("onnxsub.evaluate.drive.Processes", lambda jobs, run_id: Here())


@pytest.mark.usefixtures("here")
def test_a_whole_run(digits: Path, data: tuple[str, ...], onnxsub: Any) -> None:
    ran = onnxsub(
        "adversarial", "digits.onnx", *data, "--index", "0,2", "--targets", "runner-up", *QUICK, "--transfer", "digits.onnx",
        "--run", "kept", "-o", "examples.npz", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    document = ran.json
    assert document["schema"] == "onnxsub.adversarial/1"
    assert document["settings"]["eps"] == 0.02
    assert document["pairs"]["planned"] == document["pairs"]["done"] == 2
    assert document["data"]["samples"] == [0, 2]
    assert document["output"] == "examples.npz"
    assert document["other"]["pairs"] == document["pairs"]
    for row in document["transfer"]:  # the same model twice
        assert row["examples"] == row["fooled"] == row["beyond"] == document["pairs"]["example"]
    rows = pyarrow.read_table(digits / "kept" / "results.parquet").to_pylist()
    assert len(rows) == 2  # a model that is given twice is worked on once
    assert [r["upper"] for r in rows] == [r["upper"] for r in document["results"]]
    assert json.loads((digits / "kept" / "adversarial.json").read_text())["results"] == document["results"]
    with np.load(digits / "examples.npz") as arrays:
        assert len(arrays["x"]) == document["pairs"]["example"]
        if len(arrays["x"]):
            f = Runtime(digits / "digits.onnx").logits(arrays["x"])
            i = np.arange(len(f))
            assert (f[i, arrays["target"]] > f[i, arrays["label"]]).all()


def test_models_of_one_file_name_are_told_apart(digits: Path, data: tuple[str, ...], onnxsub: Any) -> None:
    (digits / "old").mkdir()
    (digits / "old" / "digits.onnx").write_bytes((digits / "digits.onnx").read_bytes())
    ran = onnxsub(
        "adversarial", "digits.onnx", *data, "--limit", 1, "--targets", "runner-up", *QUICK, "--transfer", "old/digits.onnx",
        "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert len({(t["made_on"], t["tried_on"]) for t in ran.json["transfer"]}) == 4


def test_the_table_for_people(data: tuple[str, ...], onnxsub: Any) -> None:
    ran = onnxsub("adversarial", "digits.onnx", *data, "--limit", 1, "--targets", "0,1", *QUICK, "--verifier", "milp")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    for word in ("eps 0.02", "f_y - f_t", "examples from", "of pairs"):
        assert word in ran.out


@pytest.mark.usefixtures("here")
def test_an_interruption_prints_and_keeps_what_is_done(
    digits: Path, data: tuple[str, ...], onnxsub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def work(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return work_pair(*args)

    monkeypatch.setattr("onnxsub.evaluate.pairs.work.work_pair", work)
    ran = onnxsub("adversarial", "digits.onnx", *data, "--targets", "runner-up", *QUICK, "--run", "kept", "--json")
    assert ran.code == 130
    assert ran.json["interrupted"] is True
    assert ran.json["pairs"]["done"] == 1
    assert ran.json["pairs"]["planned"] == 3
    assert pyarrow.read_table(digits / "kept" / "results.parquet").num_rows == 1
    assert "the same command goes on" in ran.err
    again = onnxsub("adversarial", "digits.onnx", *data, "--targets", "runner-up", *QUICK, "--run", "kept", "--json")
    assert (again.code, again.json["pairs"]["done"], calls) == (0, 3, 4)  # one, the interrupted one, two more
    other = onnxsub("adversarial", "digits.onnx", *data, "--targets", "runner-up", "--eps", "0.03", "--run", "kept")
    assert (other.code, "settings.eps is 0.02 there and 0.03 here" in other.line) == (4, True)


def test_an_interruption_without_a_folder(data: tuple[str, ...], onnxsub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def work(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return work_pair(*args)

    monkeypatch.setattr("onnxsub.metrics.adversarial_pairs.work_pair", work)
    ran = onnxsub("adversarial", "digits.onnx", *data, "--targets", "runner-up", *QUICK, "--json")
    assert (ran.code, ran.json["interrupted"], ran.json["pairs"]["done"]) == (130, True, 1)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--eps", "-1"), "not a radius"),
        (("--eps", "0.1", "--targets", "best"), "--targets 'best'"),
        (("--eps", "0.1", "--targets", "77"), "out of range"),
        (("--eps", "0.1", "--timeout", "0"), "--timeout"),
        (("--eps", "0.1", "--tol", "0"), "--tol"),
        (("--eps", "0.1", "--jobs", "0"), "--jobs"),
        (("--eps", "0.1", "--threads", "0"), "--threads"),
        (("--eps", "0.1", "--seed", "-1"), "--seed"),
        (("--eps", "0.1", "--index", "9"), "out of range"),
        (("--eps", "0.1", "--std", "x"), "neither a list of numbers"),
        (("--eps", "0.1", "-o", "examples.npy"), "ending"),
        (("--eps", "0.1", "--engine", "ray"), "add --run DIR"),
        (("--eps", "0.1", "--run", "a.txt"), "cannot make the folder"),
        (("--eps", "0.1", "--transfer", "none.onnx"), "none.onnx"),
    ],
)
def test_bad_input_is_one_line(
    digits: Path, data: tuple[str, ...], onnxsub: Any, options: tuple[str, ...], what: str
) -> None:
    (digits / "a.txt").write_text("mine")
    ran = onnxsub("adversarial", "digits.onnx", *data, *options)
    of_files = what in ("out of range", "cannot make the folder", "none.onnx")
    assert ran.code == (4 if of_files else 2)
    assert what in ran.line
