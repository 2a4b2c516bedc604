"""The study of accuracy against robustness on tiny images: the grid, what is counted, and that three kills change no figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.errors import DivergedError, InputError, OptionError
from onnxsub.metrics.intervals import hoeffding_samples
from onnxsub.model import load_model
from onnxsub.study import tradeoff as study
from onnxsub.study.tradeoff import MEASURES, ascend, prepare, study_tradeoff
from onnxsub.study.tradeoff_grid import read_grid
from onnxsub.study.tradeoff_report import correlations, tables, write_report
from onnxsub.zoo.images import ImageSet
from tests.cli.conftest import Run
from tests.test_zoo_train import DATA, StopError, blobs

HEAD = "eps = 0.2\nerror = 0.25\nleast = 0.0\n"
NETWORKS = """
[[sgd]]
width = [4, 8]
activation = ["relu", "tanh"]
rate = 0.01
epochs = 4
[[pruned]]
width = 8
rate = 0.01
epochs = 4
share = [0.5, 0.9]
retrain = 1
"""
LEARNT = "[[sgd]]\nwidth = 16\nactivation = 'tanh'\nrate = 0.01\nepochs = 25\n"
BAYES = """
[[bayes]]
width = 4
step = 0.1
steps = 5
warm_up = 10
samples = 6
chains = 2
members = 3
"""


def grid_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(HEAD + text)
    return path


def test_a_grid_spans_its_lists(tmp_path: Path) -> None:
    grid = read_grid(grid_of(tmp_path, NETWORKS + BAYES))
    assert [m.name for m in grid.members] == [
        "sgd-mlp4x1-relu-r0.01-e4", "sgd-mlp4x1-tanh-r0.01-e4", "sgd-mlp8x1-relu-r0.01-e4", "sgd-mlp8x1-tanh-r0.01-e4",
        "pruned-mlp8x1-relu-r0.01-e4-p50x1-t1", "pruned-mlp8x1-relu-r0.01-e4-p90x1-t1",
        "bayes-mlp4x1-relu-step0.1-steps5-warmup10-samples6-chains2-members3",
    ]  # fmt: skip
    assert grid.members[4].base() == grid.members[2]
    assert grid.images == hoeffding_samples(0.25, 0.95) == 30
    some = "[[sgd]]\nwidth = [4, 8, 16]\ndepth = [1, 2]\nepochs = [1, 2]\n"
    whole = {m.name for m in read_grid(grid_of(tmp_path, some)).members}
    picked = [m.name for m in read_grid(grid_of(tmp_path, some + "pick = 5\n")).members]
    assert len(whole) == 12
    assert len(picked) == len(set(picked) & whole) == 5
    assert picked == [m.name for m in read_grid(grid_of(tmp_path, some + "pick = 5\n")).members]
    (one,) = read_grid(grid_of(tmp_path, "[[sgd]]\nfilters = 3\nkernel = 5\n")).members
    assert one.architecture == "cnn:3x1:k5:relu"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no network"),
        ("[[sgd]]\nrate = 0.1\n", "needs width"),
        ("[[sgd]]\nwidth = 4\nfilters = 4\n", "needs width"),
        ("[[sgd]]\nwidth = 4\nkernel = 3\n", "needs width"),
        ("[[sgd]]\nwidth = []\n", "empty list"),
        ("[[sgd]]\nwidth = [4, 4]\n", "twice"),
        ("[[sgd]]\nwidth = 4.5\n", "whole number"),
        ("[[sgd]]\nwidth = true\n", "whole number"),
        ("[[sgd]]\nwidth = 4\nrate = nan\n", "a finite number"),
        ("[[sgd]]\nwidth = 4\nactivation = 'swish'\n", "swish"),
        ("[[sgd]]\nwidth = 0\n", "mlp:0x1"),
        ("[[sgd]]\nwidth = 4\nshare = 0.5\n", "unknown key share"),
        ("[[sgd]]\nwidth = 4\npick = 2\n", "give 1 to 1"),
        ("[[sgd]]\nwidth = 4\nepochs = 0\n", "0 epochs"),
        ("[[pruned]]\nwidth = 4\nshare = 1.0\n", "--share 1"),
        ("[[bayes]]\nwidth = 4\nsamples = 2\n", "--samples 2"),
        ("[[bayes]]\nwidth = 4\nsamples = 4\nchains = 1\nmembers = 5\n", "members must be"),
        ("[sgd]\nwidth = 4\n", "must be tables"),
        ("depth = 3\n", "unknown key depth"),
        (f"[[sgd]]\nwidth = {list(range(1, 500))}\nepochs = {list(range(1, 500))}\n", "shorter"),
        ("[[sgd", "cannot be read as TOML"),
    ],
)  # fmt: skip
def test_grids_that_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says.replace("[", r"\[")) as caught:
        read_grid(grid_of(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("grid ")
    assert not isinstance(caught.value, OptionError)  # a file, not an option


def test_heads_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.toml"
    wrong = ("eps = 0", "eps = 'x'", "error = 0", "error = 1e-9", "confidence = 1", "train = 0", "seed = -1", "least = 2",
             "attack = 3", "attack = 'x'", "seed = 99999999999999999999")  # fmt: skip
    for line in wrong:
        path.write_text(f"{line}\n[[sgd]]\nwidth = 4\n")
        with pytest.raises(InputError):
            read_grid(path)
    with pytest.raises(InputError, match="does not exist"):
        read_grid(tmp_path / "none.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="TOML"):
        read_grid(path)


@pytest.mark.slow
def test_three_kills_change_no_figure(tmp_path: Path) -> None:
    grid = read_grid(grid_of(tmp_path, NETWORKS))
    whole = study_tradeoff(DATA, grid, tmp_path / "whole")
    assert {n["name"] for n in whole.networks} == {m.name for m in grid.members}
    for stop in (f"{grid.members[3].name}: begins", "attacks", f"{grid.members[2].name}: ascents"):

        def report(share: float, text: str, stop: str = stop) -> None:
            if text.startswith(stop):
                raise StopError

        with pytest.raises(StopError):
            study_tradeoff(DATA, grid, tmp_path / "cut", progress=report)
    again = study_tradeoff(DATA, grid, tmp_path / "cut")
    a, b = (json.loads(json.dumps(found.to_json())) for found in (whole, again))
    for document in (a, b):
        for network in document["networks"]:
            del network["seconds"]  # the time that making it took
    assert a == b
    written = write_report(again, tmp_path / "cut")
    assert [p.name for p in written] == [
        "tables.md", *(f"tradeoff-{n}.{e}" for n in ("scatter", "capacity", "training", "pruning") for e in ("svg", "png")),
    ]  # fmt: skip
    for network in whole.networks:
        for measure in MEASURES:
            figure = network[measure]
            assert 0 <= figure["lower"] <= figure["value"] <= figure["upper"] <= 1
            assert figure["upper"] - figure["lower"] <= 2 * grid.error
    found = correlations(whole, "sgd")["class"]
    assert found is None or found.count == 4
    assert [t.title for t in tables(whole)] == [
        "Accuracy and robustness, accurate networks", "Accuracy and robustness, all networks", "Pruning", "Networks",
    ]  # fmt: skip
    card = json.loads((tmp_path / "whole" / f"{grid.members[5].name}.json").read_text())
    assert (card["pruning"]["share"], card["pruning"]["rounds"]) == (0.9, 1)


def test_parts_share_the_work(tmp_path: Path) -> None:
    grid = read_grid(grid_of(tmp_path, NETWORKS))
    first = prepare(DATA, grid, tmp_path / "s", part=(1, 2))
    second = prepare(DATA, grid, tmp_path / "s", part=(2, 2))
    names = [m.name for m in grid.members]
    assert [n["name"] for n in first] == names[::2]
    assert [n["name"] for n in second] == names[1::2]
    seen: list[str] = []
    prepare(DATA, grid, tmp_path / "s", progress=lambda share, text: seen.append(text))
    assert all(text.endswith("begins") for text in seen)  # nothing is made twice
    for part in ((0, 2), (3, 2), (1, 0)):
        with pytest.raises(OptionError, match="--part"):
            prepare(DATA, grid, tmp_path / "s", part=part)


def test_the_change_is_that_of_the_file(tmp_path: Path) -> None:
    grid = read_grid(grid_of(tmp_path, LEARNT))
    prepare(DATA, grid, tmp_path / "s")
    model = load_model(tmp_path / "s" / f"{grid.members[0].name}.onnx")
    assert DATA.test is not None
    images = DATA.test.first(20)
    (still, near), (stands, far) = (ascend(model, images, eps, means=False) for eps in (1e-6, 0.5))
    assert near.max() < 1e-3
    assert still.all()
    assert far.mean() > 0.1
    assert not stands.all()
    same = ascend(model, images, 0.5, means=True)[1]  # were its outputs probabilities, their change would be that of the logits
    assert same.mean() > far.mean()
    again = ascend(model, images, 0.5, means=False)
    np.testing.assert_array_equal(far, again[1])
    np.testing.assert_array_equal(stands, again[0])


def test_the_fast_attack_needs_no_run(tmp_path: Path) -> None:
    grid = read_grid(grid_of(tmp_path, f'attack = "fast"\n{LEARNT}'))
    (network,) = study_tradeoff(DATA, grid, tmp_path / "s").networks
    assert not (tmp_path / "s" / "runs").exists()
    for measure in MEASURES:
        assert 0 <= network[measure]["lower"] <= network[measure]["value"] <= network[measure]["upper"] <= 1
    assert network["class"]["value"] < 1
    # what changes a probability by more than one half moves the mean by that
    assert network["change"]["value"] <= 1 - 0.5 * (1 - network["softmax"]["value"])


def test_a_training_that_diverges_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = study.trained

    def diverging(recipe: Any, *args: Any, **kwargs: Any) -> Any:
        if recipe.architecture == "mlp:8x1:relu":
            raise DivergedError("the training diverged")
        return real(recipe, *args, **kwargs)

    monkeypatch.setattr(study, "trained", diverging)
    grid = read_grid(grid_of(tmp_path, NETWORKS))
    made = prepare(DATA, grid, tmp_path / "s")
    diverged = [n["name"] for n in made if n["diverged"]]
    assert diverged == [m.name for m in grid.members if m.architecture == "mlp:8x1:relu"]


def test_bad_images(tmp_path: Path) -> None:
    grid = read_grid(grid_of(tmp_path, NETWORKS))
    with pytest.raises(InputError, match="has no test images"):
        study_tradeoff(ImageSet("blobs", blobs(20), None), grid, tmp_path / "s")
    with pytest.raises(InputError, match="30"):
        study_tradeoff(ImageSet("blobs", blobs(20), blobs(29, 1)), grid, tmp_path / "s")
    prepare(DATA, read_grid(grid_of(tmp_path, "[[sgd]]\nwidth = 3\nepochs = 1\n")), tmp_path / "s")
    with pytest.raises(InputError, match="other settings: members"):
        study_tradeoff(DATA, grid, tmp_path / "s")


def test_the_command_with_a_bayesian_network(onnxsub: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    monkeypatch.chdir(tmp_path)
    train, test = blobs(100), blobs(40, 1)
    np.savez("blobs.npz", x_train=train.x[:, 0], y_train=train.y, x_test=test.x[:, 0], y_test=test.y)
    grid_of(tmp_path, BAYES + "[[sgd]]\nwidth = [3, 4]\nepochs = 2\n")
    line = ("study", "tradeoff", "--grid", "grid.toml", "--data", "blobs.npz", "--run", "s")
    ran = onnxsub(*line, "--part", "1/2")
    assert (ran.code, "2 of 3 networks are made" in ran.err) == (0, True)
    keys = onnxsub(*line, "--json").json
    assert keys["schema"] == "onnxsub.study-tradeoff/1"
    by = {n["kind"]: n for n in keys["networks"]}
    assert set(by) == {"sgd", "bayes"}
    assert by["bayes"]["rhat"]["images"] == 40
    text = Path("s/tables.md").read_text()
    assert "Chains" in text
    ran = onnxsub(*line)
    assert (ran.code, "tables.md" in ran.out) == (0, True)
    assert onnxsub(*line, "--part", "x").code == 2
    assert onnxsub("study", "tradeoff", "--grid", "grid.toml", "--run", "t").code == 2
    assert onnxsub("study", "tradeoff", "--grid", "none.toml", "--data", "blobs.npz", "--run", "t").code == 4
    assert "tradeoff" in onnxsub("study", "--help").out
