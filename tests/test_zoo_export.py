"""The ONNX files of the zoo, and their cards."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from onnxsub.errors import InputError, ModelError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.runtime import Runtime
from onnxsub.zoo import card as card_module
from onnxsub.zoo.architectures import ARCHITECTURES
from onnxsub.zoo.build import build
from onnxsub.zoo.checkpoint import read_checkpoint, write_checkpoint
from onnxsub.zoo.export import METADATA, check_export, to_onnx
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.pipeline import card_path, exported, read_cards, trained, write_model
from onnxsub.zoo.recipe import Phase, default_recipe, recipe_from_json
from tests.test_zoo_train import CLEAN, DATA, blobs


@pytest.mark.parametrize("name", list("ABCDEG"))
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["grey", "colour"])
def test_onnxruntime_and_torch_agree(name: str, shape: tuple[int, ...]) -> None:
    arch = ARCHITECTURES[name]
    net = build(arch, shape)
    proto = to_onnx(net, shape, default_recipe("mnist", name))
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.ir_version, proto.opset_import[0].version) == (8, 13)
    assert {n.op_type for n in proto.graph.node} <= {"Conv", "Relu", "Flatten", "Gemm"}
    assert check_export(proto, net, shape) < 1e-5
    model = load_model(proto)
    assert (model.input, model.input_shape, model.batch_fixed, model.outputs) == ("image", shape, False, 10)
    assert lower(model).units == arch.units(shape)
    assert sum(int(np.prod(t.dims)) for t in proto.graph.initializer) == arch.parameters(shape)


def test_one_row() -> None:
    net = build(ARCHITECTURES["C"], (1, 28, 28))
    recipe = default_recipe("mnist", "C", 0.1)
    proto = to_onnx(net, (1, 28, 28), recipe, one_row=True)
    onnx.checker.check_model(proto, full_check=True)
    model = load_model(proto)
    assert model.batch_fixed
    assert recipe_from_json(json.loads(model.metadata[METADATA])) == recipe
    x = np.random.default_rng(0).random((3, 1, 28, 28), dtype=np.float32)
    np.testing.assert_allclose(Runtime(model).logits(x), net(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


def test_a_wrong_export_is_found() -> None:
    shape, recipe = (1, 28, 28), default_recipe("mnist", "C")
    proto = to_onnx(build(ARCHITECTURES["C"], shape, seed=1), shape, recipe)
    with pytest.raises(ModelError, match="onnxruntime and torch differ"):
        check_export(proto, build(ARCHITECTURES["C"], shape, seed=2), shape)
    with pytest.raises(ModelError, match="no ONNX form of Softplus"):
        to_onnx(nn.Sequential(nn.Flatten(), nn.Softplus()), shape, recipe)


def test_first_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    a = build(ARCHITECTURES["A"], (1, 28, 28), seed=3)
    here = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), here)
    b = build(ARCHITECTURES["A"], (1, 28, 28), seed=3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(next(a.parameters()), next(build(ARCHITECTURES["A"], (1, 28, 28), seed=4).parameters()))


def test_from_recipe_to_card(tmp_path: Path) -> None:
    recipe = replace(CLEAN, budget=0.05, phases=(Phase(3, 1, 1.25),))
    state = trained(recipe, DATA, tmp_path / "state.pt", command="onnxsub zoo train C")
    proto, card = exported(state, DATA)
    path = tmp_path / "net.onnx"
    assert write_model(proto, card, path) == card_path(path) == tmp_path / "net.json"
    keys = json.loads((tmp_path / "net.json").read_text())
    assert keys["file"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert keys["file"]["bytes"] == path.stat().st_size
    assert recipe_from_json(keys["recipe"]) == recipe
    assert keys["architecture"]["units"] == lower(load_model(path)).units
    assert (keys["data"]["train"], keys["data"]["test"], keys["data"]["train_sha256"]) == (210, 100, DATA.train.sha256)
    assert keys["output"]["classes"] == 4
    assert [f["radius"] for f in keys["figures"]["under_attack"]] == [0.05]
    assert keys["figures"]["under_attack"][0]["accuracy"] <= keys["figures"]["accuracy"]
    assert keys["training"]["steps"] == 33
    assert keys["command"] == "onnxsub zoo train C"
    assert DATA.test is not None
    logits = Runtime(path).logits((DATA.test.x / np.float32(255)).astype(np.float32))
    assert keys["figures"]["accuracy"] == (logits.argmax(axis=1) == DATA.test.y).mean()
    (listed,) = read_cards(tmp_path)
    assert listed == {"path": str(path), **keys}


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trained(CLEAN, DATA, tmp_path / "state.pt")

    def never(*args: object, **kwargs: object) -> float:
        raise AssertionError("measured twice")

    monkeypatch.setattr(card_module, "robust_accuracy", never)
    again = trained(CLEAN, DATA, tmp_path / "state.pt")
    assert again.card == first.card
    assert exported(again)[1].to_json() == exported(first, DATA)[1].to_json()


def test_fewer_images_may_be_attacked(tmp_path: Path) -> None:
    recipe = replace(CLEAN, budget=0.05, phases=(Phase(3, 1, 1.25),))
    state = trained(recipe, DATA, tmp_path / "state.pt", attacked=10)
    assert state.card is not None
    figures = state.card["figures"]
    assert (figures["test_images"], figures["attack"]["images"]) == (100, 10)
    assert figures["under_attack"][0]["accuracy"] * 10 == pytest.approx(round(figures["under_attack"][0]["accuracy"] * 10))
    with pytest.raises(InputError, match="0 attacked test images are not possible"):
        trained(recipe, DATA, tmp_path / "state.pt", attacked=0)


def test_another_accuracy_under_onnxruntime_is_an_error(tmp_path: Path) -> None:
    state = trained(CLEAN, DATA, tmp_path / "state.pt")
    assert state.card is not None
    wrong = replace(state, card={**state.card, "figures": {**state.card["figures"], "accuracy": 0.123}})
    with pytest.raises(ModelError, match="onnxruntime finds an accuracy of"):
        exported(wrong, DATA)


def test_without_test_images_nothing_is_claimed(tmp_path: Path) -> None:
    state = trained(CLEAN, ImageSet("blobs", blobs(50), None), tmp_path / "state.pt")
    card = exported(state)[1].to_json()
    assert card["figures"] is None
    assert card["data"]["test"] == 0


def test_an_unfinished_training_has_no_card(tmp_path: Path) -> None:
    state = trained(CLEAN, DATA, tmp_path / "state.pt")
    write_checkpoint(replace(state, card=None), tmp_path / "other.pt")
    with pytest.raises(InputError, match="not finished; run the same onnxsub zoo train again"):
        exported(read_checkpoint(tmp_path / "other.pt"))


def test_notes_say_what_the_images_are() -> None:
    known = ImageSet("mnist", blobs(50), blobs(9), ({"file": "x.npz", "train": 50, "encoding": "JPEG (lossy)"},))
    assert card_module.facts(known, None, "cpu", "")["notes"] == [
        "trained on 50 of the 60,000 training images",
        "measured on 9 of the 10,000 test images",
        "50 of the training images went through JPEG (lossy)",
    ]
    assert card_module.facts(DATA, None, "cpu", "")["notes"] == []


def test_folders_of_cards(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"schema": "something else"}')
    assert read_cards(tmp_path) == []
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad.json' is no readable JSON"):
        read_cards(tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        read_cards(tmp_path / "none")
