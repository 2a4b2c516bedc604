"""`onnxsub importance` and `onnxsub compress`: documents, files, tables, and one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.handmade import Net
from tests.test_zoo_train import blobs


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    net = Net(4, seed=3)
    h = net.node("Relu", [net.gemm("x", 4, 8)])
    h = net.node("Relu", [net.gemm(h, 8, 6)])
    onnx.save(net.model(net.gemm(h, 6, 3, "logits"), 3), str(tmp_path / "model.onnx"))
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x_test=rng.random((20, 4)).astype(np.float32), y_test=np.arange(20) % 3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_score_and_remove(folder: Path, onnxsub: Any) -> None:
    scored = onnxsub("importance", "model.onnx", "--data", "data.npz", "--images", "3", "-o", "scored.onnx", "--json")
    assert scored.code == 0, scored.err
    document = scored.json
    assert (document["schema"], document["status"], document["data"]["images"]) == ("onnxsub.importance/1", "optimal", 3)
    (folder / "scores.json").write_text(scored.out)
    ran = onnxsub("compress", "scored.onnx", "--threshold", "0.9", "--data", "data.npz", "-o", "smaller.onnx", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["schema"] == "onnxsub.compress/1"
    removed = sum(x["removed"] for x in ran.json["layers"])
    assert removed > 0
    assert ran.json["bytes"]["after"] == (folder / "smaller.onnx").stat().st_size
    assert ran.json["difference"] <= 1e-5
    assert ran.json["accuracy"]["samples"] == 20
    again = onnxsub("compress", "model.onnx", "--scores", "scores.json", "--threshold", "0.9", "-o", "again.onnx", "--json")
    assert [x["positions"] for x in again.json["layers"]] == [x["positions"] for x in ran.json["layers"]]
    for by in ("magnitude", "random"):
        other = onnxsub("compress", "scored.onnx", "--by", by, "--threshold", "0.9", "-o", f"{by}.onnx", "--json")
        assert [x["removed"] for x in other.json["layers"]] == [x["removed"] for x in ran.json["layers"]]
    table = onnxsub("compress", "model.onnx", "--by", "magnitude", "--share", "0.5", "-o", "half.onnx")
    assert "7 of 14 units, by magnitude" in table.out


def test_scores_of_another_file_of_the_same_shape(folder: Path, onnxsub: Any) -> None:
    """Its units are others, however many there are."""
    assert onnxsub("importance", "model.onnx", "--data", "data.npz", "--images", "3", "-o", "scored.onnx").code == 0
    (folder / "scores.json").write_text(onnxsub("importance", "scored.onnx", "--data", "data.npz", "--images", "3", "--json").out)
    other = onnx.load("model.onnx")
    for tensor in other.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[::-1].copy(), tensor.name))
    onnx.save(other, "other.onnx")
    for scores in ("scored.onnx", "scores.json"):
        ran = onnxsub("compress", "other.onnx", "--scores", scores, "--threshold", "0.9")
        assert (ran.code, "holds scores of another file" in ran.line) == (4, True), ran.err
    for model, scores in (("model.onnx", "scored.onnx"), ("scored.onnx", "scored.onnx"), ("scored.onnx", "scores.json")):
        assert onnxsub("compress", model, "--scores", scores, "--threshold", "0.9", "-o", "smaller.onnx").code == 0


@pytest.mark.usefixtures("folder")
def test_mistakes(onnxsub: Any) -> None:
    for words, code, said in (
        (("compress", "model.onnx"), 4, "holds no scores"),
        (("compress", "model.onnx", "--share", "0.5"), 2, "--share is of --by"),
        (("compress", "model.onnx", "--by", "random", "--share", "2"), 2, "--share 2"),
        (("compress", "model.onnx", "--by", "random", "--share", "0.5", "--limit", "3"), 2, "add --data"),
        (("importance", "model.onnx", "--data", "data.npz", "--weight", "0"), 2, "every score is 0"),
        (("importance", "model.onnx", "--data", "data.npz", "--most", "1"), 4, "too many for highs"),
    ):
        ran = onnxsub(*words)
        assert (ran.code, said in ran.err) == (code, True), (words, ran.err)
        assert len(ran.err.strip().splitlines()) == 1
    assert not Path("model-smaller.onnx").exists(), "nothing is written before a mistake is told"


@pytest.mark.parametrize(
    ("scores", "said"),
    [([], "has 8 units, scored were 0"), ([0.0] * 7, "scored were 7"), ([[0.0] * 8], "write it again"), (["a"], "write it again")],
)
def test_scores_that_are_none(folder: Path, onnxsub: Any, scores: Any, said: str) -> None:
    layer = next(node.output[0] for node in onnx.load("model.onnx").graph.node if node.op_type == "Relu")
    (folder / "scores.json").write_text(json.dumps({"layers": [{"name": layer, "scores": scores}]}))
    ran = onnxsub("compress", "model.onnx", "--scores", "scores.json")
    assert (ran.code, said in ran.err) == (4, True), ran.err


def test_scores_in_the_file_that_are_none(folder: Path, onnxsub: Any) -> None:
    proto = onnx.load("model.onnx")
    proto.ir_version = 10
    proto.graph.node[1].metadata_props.add(key="onnxsub.importance.scores", value="[0.5,")
    onnx.save(proto, str(folder / "broken.onnx"))
    ran = onnxsub("compress", "broken.onnx")
    assert (ran.code, "no list of numbers" in ran.err) == (4, True), ran.err


def test_the_size_of_a_model_counts_the_weights_beside_it(folder: Path, onnxsub: Any) -> None:
    """PyTorch writes the weights into a file of their own; the smaller model has them inside."""
    inside = (folder / "model.onnx").stat().st_size
    apart = {"save_as_external_data": True, "location": "beside.data", "size_threshold": 0}
    onnx.save(onnx.load("model.onnx"), str(folder / "beside.onnx"), **apart)
    ran = onnxsub("compress", "beside.onnx", "--by", "random", "--share", "0.5", "-o", "small.onnx", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["bytes"]["after"] == (folder / "small.onnx").stat().st_size < inside <= ran.json["bytes"]["before"]


@pytest.fixture
def blobs_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of 8x8, a model of them with 12 and 8 units, and the working folder beside them."""
    net = Net(64, seed=2)
    h = net.node("Relu", [net.gemm("x", 64, 12)])
    h = net.node("Relu", [net.gemm(h, 12, 8)])
    onnx.save(net.model(net.gemm(h, 8, 4, "logits"), 4), str(tmp_path / "model.onnx"))
    train, test = blobs(200), blobs(60, 1)
    np.savez(tmp_path / "blobs.npz", x_train=train.x[:, 0], y_train=train.y, x_test=test.x[:, 0], y_test=test.y)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_score_remove_retrain_twice(blobs_file: Path, onnxsub: Any) -> None:
    line = ("compress", "model.onnx", "--retrain", "blobs.npz", "--rounds", 2, "--epochs", 15, "--rate", 0.01, "--images", 4,
            "--threshold", 0.5, "--data", "blobs.npz")  # fmt: skip
    ran = onnxsub(*line, "-o", "smaller.onnx", "--json")
    assert ran.code == 0, ran.err
    keys = ran.json
    assert keys["schema"] == "onnxsub.compress/1"
    assert [r["file"] for r in keys["rounds"]] == ["round-1.onnx", "round-2.onnx"]
    for r in keys["rounds"]:
        assert r["scores"] == "optimal"
        assert sum(layer["removed"] for layer in r["layers"]) > 0
        assert r["bytes"]["after"] < r["bytes"]["before"]
        assert r["difference"] <= 1e-5
    assert keys["rounds"][0]["accuracy"]["retrained"] > max(0.6, keys["rounds"][0]["accuracy"]["removed"])
    assert keys["accuracy"]["after"] == pytest.approx(keys["rounds"][1]["accuracy"]["retrained"])
    assert keys["before"] == pytest.approx(keys["accuracy"]["before"])
    assert keys["bytes"]["after"] == (blobs_file / "smaller.onnx").stat().st_size
    before = (blobs_file / "smaller.onnx").read_bytes()
    again = onnxsub(*line, "-o", "smaller.onnx")
    assert "2 rounds, by scores" in again.out
    assert (blobs_file / "smaller.onnx").read_bytes() == before
    other = onnxsub(*line, "-o", "smaller.onnx", "--epochs", 4)
    assert (other.code, "epochs is 15 there and 4 here" in other.err) == (4, True)
    attacked = onnxsub("compress", "model.onnx", "--by", "random", "--share", 0.5, "--retrain", "blobs.npz", "--adv", "8/255",
                       "--epochs", 2, "--run", "r", "-o", "a.onnx", "--json")  # fmt: skip
    assert attacked.json["rounds"][0]["scores"] is None
    assert attacked.json["retraining"]["budget"] == 8 / 255


@pytest.mark.usefixtures("blobs_file")
def test_mistakes_of_retraining(onnxsub: Any) -> None:
    base = ("compress", "model.onnx", "--by", "magnitude", "--share", "0.5")
    for words, code, said in (
        ((*base, "--rounds", 2), 2, "--rounds is of --retrain"),
        ((*base, "--run", "r"), 2, "--run is of --retrain"),
        ((*base, "--retrain", "none.npz"), 4, "none.npz"),
        ((*base, "--retrain", "no-set"), 2, "no-set"),
        ((*base, "--retrain", "blobs.npz", "--rounds", 0), 2, "--rounds 0"),
        ((*base, "--retrain", "blobs.npz", "--rate", "nan"), 4, "learning rate"),
        ((*base, "--retrain", "blobs.npz", "--epochs", -1), 2, "--epochs -1"),
        (("compress", "model.onnx", "--retrain", "blobs.npz", "--images", 900), 4, "fewer --images"),
        (("compress", "model.onnx", "--threshold", "nan"), 2, "--threshold nan"),
    ):
        ran = onnxsub(*words)
        assert (ran.code, said in ran.err) == (code, True), (words, ran.err)
        assert len(ran.err.strip().splitlines()) == 1, ran.err
    assert not Path("model-smaller.onnx").exists()


@pytest.mark.parametrize("kind", ["Tanh", "Sigmoid", "LeakyRelu"])
def test_other_activations_are_removed_without_scores(kind: str, tmp_path: Path, onnxsub: Any) -> None:
    net = Net(4, seed=3)
    h = net.node(kind, [net.gemm("x", 4, 8)])
    onnx.save(net.model(net.gemm(h, 8, 3, "logits"), 3), str(tmp_path / "model.onnx"))
    for by in ("magnitude", "random"):
        ran = onnxsub("compress", tmp_path / "model.onnx", "--by", by, "--share", "0.5", "-o", tmp_path / "s.onnx", "--json")
        assert ran.code == 0, ran.err
        assert [x["removed"] for x in ran.json["layers"]] == [4]
        assert ran.json["difference"] <= 1e-5
    np.savez(tmp_path / "d.npz", x_test=np.zeros((3, 4), np.float32), y_test=np.arange(3))
    scored = onnxsub("importance", tmp_path / "model.onnx", "--data", tmp_path / "d.npz")
    assert "--by magnitude --share" in scored.line
