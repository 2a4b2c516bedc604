"""The study of importance on tiny images: what it counts, that three kills change no figure, and one line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.compress.choose import Choice
from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.samples import Choice as Rows
from onnxsub.evaluate.samples import Samples, read_samples
from onnxsub.model import load_model
from onnxsub.runtime import Runtime
from onnxsub.study.importance import StudyOptions, StudyResult, study_importance
from onnxsub.study.importance_report import tables, write_report
from onnxsub.study.rounds import RoundsOptions, in_turn, rounds
from onnxsub.zoo.images import ImageSet, Labelled
from tests.cli.conftest import Run
from tests.robustness_tools import Here
from tests.test_zoo_train import DATA, StopError, blobs

TINY = StudyOptions(
    "mlp:8x2", "full", 15, rounds=RoundsOptions(Choice(threshold=0.5), 2, 4, epochs=3, rate=0.01), draws=2, eps=0.15, timeout=20.0,
)  # fmt: skip


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    np.savez(tmp_path / "test.npz", x_test=DATA.test.x[:, 0], y_test=DATA.test.y)  # type: ignore[union-attr]
    return read_samples(tmp_path / "test.npz", Rows(None, 1, 3), "x_test", "y_test")


def stopped(after: int) -> Callable[[float, str], None]:
    left = after

    def report(share: float, text: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise StopError

    return report


def untimed(found: StudyResult) -> Any:
    """Its figures without how long they took."""
    keys = json.loads(json.dumps(found.to_json()))
    for model in keys["models"].values():
        del model["seconds"]
    return keys


@pytest.mark.slow
def test_three_kills_change_no_figure(tmp_path: Path, samples: Samples) -> None:
    calls = 0

    def count(share: float, text: str) -> None:
        nonlocal calls
        calls += 1

    whole = study_importance(DATA, samples, TINY, tmp_path / "whole", engine=Here(), progress=count)
    for stop in (calls // 3, calls // 3, calls // 4):
        with pytest.raises(StopError):
            study_importance(DATA, samples, TINY, tmp_path / "cut", engine=Here(), progress=stopped(stop))
    again = study_importance(DATA, samples, TINY, tmp_path / "cut", engine=Here())
    assert untimed(again) == untimed(whole)
    for name in ("original", "compressed"):
        assert (tmp_path / "cut" / f"{name}.onnx").read_bytes() == (tmp_path / "whole" / f"{name}.onnx").read_bytes()

    original, compressed = whole.models["original"], whole.models["compressed"]
    removed = [sum(r["layers"][i]["removed"] for r in whole.rounds) for i in range(2)]
    assert sum(removed) > 0
    assert compressed["units"] == [8 - n for n in removed]
    assert compressed["bytes"] < original["bytes"]
    for model in (original, compressed):
        pairs = model["pairs"]
        assert pairs["planned"] == 3 * (3 - model["misclassified"])
        assert sum(pairs[word] for word in ("example", "tie", "none", "undecided")) == pairs["planned"]
        assert pairs["example"] == sum(map(sum, model["targeted"])) == model["objective"]["examples"]["count"]
        assert sum(c["example"] for c in model["by_source"].values()) == pairs["example"]
        assert sum(c["example"] for c in model["by_target"].values()) == pairs["example"]
        if pairs["example"]:
            assert model["objective"]["examples"]["max"] < 0
    assert whole.models["original"]["pairs"]["example"] > 0, "the test shows nothing where no example exists"

    written = write_report(whole, tmp_path / "whole")
    assert [p.name for p in written] == ["tables.md", "examples.svg", "examples.png"]
    text = written[0].read_text()
    assert text.count("### ") == len(tables(whole)) == 5
    assert "| examples |" in text
    with pytest.raises(InputError, match="other settings: eps"):
        study_importance(DATA, samples, replace(TINY, eps=0.2), tmp_path / "whole")


def test_removal_is_compared_with_as_many(tmp_path: Path) -> None:
    """Masking by hand gives the accuracy that a round says, and the smaller file the scores of the masked one."""
    from onnxsub.compress.remove import masked
    from onnxsub.zoo.tune import accuracy_of

    assert DATA.test is not None
    from onnxsub.zoo.pipeline import exported, trained

    state = trained(TINY.recipe_of("blobs"), DATA, tmp_path / "s.pt")
    model = load_model(exported(state, DATA)[0])
    done = rounds(model, DATA, replace(TINY.rounds, rounds=1, epochs=0), tmp_path / "r")
    (first,) = done.rounds
    gone = {layer["name"]: np.array(layer["positions"], dtype=int) for layer in first["layers"]}
    by_hand = load_model(masked(model, gone))
    assert accuracy_of(by_hand, DATA.test) == first["accuracy"]["removed"] == first["accuracy"]["retrained"]
    x = np.random.default_rng(0).random((20, *model.input_shape)).astype(np.float32)
    wanted, found = (Runtime(m).logits(x) for m in (by_hand, load_model(done.file)))
    assert np.abs(wanted - found).max() <= 1e-5 * max(1.0, float(np.abs(wanted).max()))


def test_a_round_that_removes_nothing_is_the_last(tmp_path: Path) -> None:
    from onnxsub.zoo.pipeline import exported, trained

    state = trained(TINY.recipe_of("blobs"), DATA, tmp_path / "s.pt")
    model = load_model(exported(state, DATA)[0])
    options = RoundsOptions(Choice(threshold=-1.0), rounds=3, images=4)
    done = rounds(model, DATA, options, tmp_path / "r")
    assert done.rounds == ()
    assert load_model(done.file).sha256 == model.sha256
    with pytest.raises(InputError, match="no unit scores below"):
        study_importance(DATA, read(tmp_path), replace(TINY, rounds=options), tmp_path / "s")


def read(folder: Path) -> Samples:
    assert DATA.test is not None
    np.savez(folder / "test.npz", x_test=DATA.test.x[:, 0], y_test=DATA.test.y)
    return read_samples(folder / "test.npz", Rows(None, 1, 2), "x_test", "y_test")


def test_the_classes_in_turn() -> None:
    y = np.array([0, 0, 0, 2, 1, 2, 0])
    images = Labelled(np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), y)
    assert in_turn(images, 5).x.ravel().tolist() == [0, 4, 3, 1, 5]
    assert in_turn(images, 7).y.tolist() == [0, 1, 2, 0, 2, 0, 0]
    with pytest.raises(InputError, match="fewer --images"):
        in_turn(images, 8)


def test_bad_input(tmp_path: Path, samples: Samples) -> None:
    with pytest.raises(InputError, match="has no test images"):
        study_importance(ImageSet("blobs", blobs(20), None), samples, TINY, tmp_path / "s")
    with pytest.raises(OptionError, match="--draws 0"):
        StudyOptions(draws=0)
    with pytest.raises(OptionError, match="leave out --by"):
        StudyOptions(rounds=RoundsOptions(Choice("random", share=0.5)))
    with pytest.raises(InputError, match="eps"):
        StudyOptions(eps=float("nan"))
    for wrong in ({"rounds": 0}, {"images": 0}, {"epochs": -1}, {"timeout": 0.0}):
        with pytest.raises(OptionError):
            RoundsOptions(**wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_the_command(onnxsub: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train, test = blobs(210), blobs(30, 1)
    np.savez("blobs.npz", x_train=train.x[:, 0], y_train=train.y, x_test=test.x[:, 0], y_test=test.y)
    line = ("study", "importance", "--data", "blobs.npz", "--architecture", "mlp:6x2", "--epochs", 5, "--threshold", 0.5,
            "--scored", 2, "--retrained", 1, "--draws", 1, "--images", 1, "--eps", "8/255", "--run", "s")  # fmt: skip
    keys = onnxsub(*line, "--json").json
    assert keys["schema"] == "onnxsub.study-importance/1"
    assert keys["eps"] == 8 / 255
    assert {name: set(t) for name, t in keys["transfer"].items()} == {
        "original on compressed": {"examples", "right"}, "compressed on original": {"examples", "right"},
    }  # fmt: skip
    ran = onnxsub(*line)
    assert (ran.code, "tables.md" in ran.out) == (0, True)
    assert "other settings: seed is 0 there and 3 here" in onnxsub(*line, "--seed", 3).line
    assert onnxsub("study", "importance", "--run", "t").code == 2
    assert onnxsub("study", "importance", "--data", "none.npz", "--run", "t").code == 4
    assert "importance" in onnxsub("study", "--help").out
