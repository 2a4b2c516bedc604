"""`onnxsub zoo prune`: a checkpoint becomes a file with fewer weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.test_zoo_train import DATA


@pytest.fixture
def trained(onnxsub: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert DATA.test is not None
    monkeypatch.chdir(tmp_path)
    arrays = {"x_train": DATA.train.x, "y_train": DATA.train.y, "x_test": DATA.test.x, "y_test": DATA.test.y}
    np.savez("blobs.npz", **arrays)
    assert onnxsub("zoo", "train", "mlp:8", "--data", "blobs.npz", "--epochs", 2, "--attacked", 5, "-o", "net.onnx").code == 0
    return tmp_path


def test_a_training_is_pruned(onnxsub: Run, trained: Path) -> None:
    ask = ("zoo", "prune", "net.pt", "--data", "blobs.npz", "--share", 0.75, "--rounds", 2, "--epochs", 1, "--attacked", 5,
           "-o", "pruned.onnx")  # fmt: skip
    told = onnxsub(*ask, "--json").json
    assert told["pruning"] == {"share": 0.75, "rounds": 2, "epochs": 1, "rate": 0.001, "sparsity": 0.75}
    assert told == {**json.loads(Path("pruned.json").read_text()), "written": told["written"]}
    assert "75.0% of the weights are 0 after 2 rounds" in onnxsub(*ask).out
    assert "--share 0.75 --rounds 2" in told["command"]
    assert {"pruned.1.pt", "pruned.2.pt"} <= {p.name for p in trained.iterdir()}
    other = onnxsub(*ask[:6], 0.5, *ask[7:])
    assert (other.code, "another training" in other.line) == (4, True)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--share", "1.5"), 2, "--share 1.5"),
        (("--share", "0.5", "--rounds", "0"), 2, "--rounds 0"),
        (("--share", "0.5", "--rate", "-1"), 4, "learning rate"),
        (("--share", "0.5", "--rate", "1e20"), 4, "diverged"),
    ],
)
def test_what_cannot_be_pruned(onnxsub: Run, trained: Path, words: tuple[str, ...], code: int, says: str) -> None:
    done = onnxsub("zoo", "prune", "net.pt", "--data", "blobs.npz", "-o", "p.onnx", *words)
    assert done.code == code
    assert says in done.line


def test_files_that_are_none(onnxsub: Run, trained: Path) -> None:
    Path("no.pt").write_bytes(b"none")
    done = onnxsub("zoo", "prune", "no.pt", "--data", "blobs.npz", "--share", 0.5, "-o", "p.onnx")
    assert (done.code, "damaged" in done.line) == (4, True)
    assert onnxsub("zoo", "prune", "net.pt", "--share", 0.5, "-o", "p.onnx").code == 2
    assert onnxsub("zoo", "prune", "net.pt", "--data", "blobs.npz", "-o", "p.onnx").code == 2
