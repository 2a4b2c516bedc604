"""`onnxsub zoo bayes`: the file, its card, and chains that do not agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxsub.model import load_model
from onnxsub.runtime import Runtime
from tests.cli.conftest import Run
from tests.test_zoo_train import DATA, SIDE


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    assert DATA.test is not None
    arrays = {"x_train": DATA.train.x, "y_train": DATA.train.y, "x_test": DATA.test.x, "y_test": DATA.test.y}
    np.savez(tmp_path / "blobs.npz", **arrays)
    return tmp_path / "blobs.npz"


def test_a_posterior_becomes_a_file_with_a_card(onnxsub: Run, blobs: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    ask = ["zoo", "bayes", "mlp:6", "--data", blobs, "--images", 100, "--warm-up", 20, "--samples", 20, "--chains", 2,
           "--members", 7, "--step", 0.1, "--steps", 8, "--attacked", 10, "--run", tmp_path / "chains",
           "-o", tmp_path / "b.onnx"]  # fmt: skip
    done = onnxsub(*ask, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    card = json.loads((tmp_path / "b.json").read_text())
    assert told == {**card, "written": told["written"]}
    assert card["posterior"]["members"] == 7
    assert len(card["posterior"]["accepted"]) == 2
    assert card["data"]["train"] == 100
    assert card["figures"]["accuracy"] > 0.9
    assert Runtime(load_model(tmp_path / "b.onnx")).logits(np.zeros((1, 1, SIDE, SIDE), dtype=np.float32)).shape == (1, 4)
    assert json.loads(onnxsub(*ask, "--json").out) == told  # nothing is sampled again
    assert "R-hat" in onnxsub(*ask).out
    listed = json.loads(onnxsub("zoo", "list", tmp_path, "--json").out)["networks"]
    assert [network["path"] for network in listed] == [str(tmp_path / "b.onnx")]
    other = onnxsub(*ask, "--prior", 3)
    assert other.code == 4
    assert "another posterior: prior is 1.0 there and 3.0 here" in other.err


def test_chains_that_do_not_mix_are_said(onnxsub: Run, blobs: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    done = onnxsub("zoo", "bayes", "mlp:6", "--data", blobs, "--no-adapt", "--step", "1e-6", "--steps", 1, "--warm-up", 0,
                   "--samples", 4, "--chains", 2, "--members", 2, "--attacked", 5, "--run", tmp_path / "c",
                   "-o", tmp_path / "b.onnx")  # fmt: skip
    assert done.code == 0, done.err
    assert "the chains do not agree" in done.err
    card = json.loads((tmp_path / "b.json").read_text())
    assert card["posterior"]["rhat"]["mixed"] is False
    assert any("do not agree" in note for note in card["notes"])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--prior", "nan"], 2, "--prior nan"),
        (["--members", "0"], 2, "--members 0"),
        (["--images", "0"], 2, "0 images"),
        (["--samples", "3"], 2, "--samples 3"),
        (["-o", "x.txt"], 2, ".onnx"),
    ],
)
def test_what_cannot_be_sampled(onnxsub: Run, blobs: Path, tmp_path: Path, words: list[str], code: int, says: str) -> None:
    pytest.importorskip("pyro", reason="pyro-ppl is not installed")
    done = onnxsub("zoo", "bayes", "mlp:6", "--data", blobs, "--run", tmp_path / "c", *words)
    assert done.code == code
    assert says in done.err
    assert len(done.err.splitlines()) == 1
