"""Training that goes on from a model file: which weights, that they come back into the file, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxsub.errors import InputError, OptionError
from onnxsub.model import Model, load_model
from onnxsub.region import InputSpace
from onnxsub.zoo.file_net import as_module, with_weights
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.tune import accuracy_of, tune_recipe, tuned
from tests.handmade import Net, run
from tests.test_zoo_train import DATA, StopError, blobs

PLAIN = InputSpace()


def images(channels: int = 1) -> ImageSet:
    return ImageSet("blobs", blobs(300, channels=channels), blobs(100, 1, channels))


def convolution(channels: int = 1) -> Model:
    """Conv with and without a bias, BatchNormalization, MatMul and Add, a residual sum, Gemm with alpha and beta."""
    net = Net(channels, 8, 8, seed=1)
    h = net.node("Relu", [net.filters("x", channels, 4, 3)])
    norm = [net.weight(v) for v in (np.ones(4), np.zeros(4), 0.1 * np.ones(4), np.ones(4))]
    h = net.node("BatchNormalization", [h, *norm])
    bias = net.weight(np.zeros(3))
    h = net.node("Relu", [net.node("Conv", [h, net.weight(net.gauss(3, 4, 3, 3, fan=36)), bias])])
    h = net.node("Flatten", [h], axis=1)
    h = net.node("Add", [net.node("MatMul", [h, net.weight(net.gauss(48, 10, fan=48))]), net.weight(np.zeros(10))])
    h = net.node("Relu", [h])
    h = net.node("Add", [h, net.node("Relu", [net.gemm(h, 10, 10)])])
    w, b = net.weight(net.gauss(10, 4, fan=10)), net.weight(np.ones((1, 4)))
    return load_model(net.model(net.named("Gemm", [h, w, b], "logits", alpha=0.5, beta=2.0), 4))


def flat() -> Model:
    net = Net(64, seed=2)
    h = net.node("Relu", [net.gemm("x", 64, 12)])
    return load_model(net.model(net.gemm(h, 12, 4, "logits"), 4))


@pytest.mark.parametrize("space", [PLAIN, InputSpace(mean=(0.3,), std=(0.5,)), InputSpace(0.0, 255.0, (120.0,), (60.0,))])
def test_a_file_is_trained_and_written_back(space: InputSpace) -> None:
    model, data = convolution(), images()
    assert data.test is not None
    net = as_module(model, space, data.shape, data.classes)
    assert sum(p.numel() for p in net.parameters()) == 36 + 108 + 3 + 480 + 10 + 100 + 10 + 40 + 4
    with_weights(model, net, space, data.shape)  # raises unless torch and onnxruntime agree
    before = accuracy_of(model, data.test, space)
    proto = tuned(model, tune_recipe("blobs", model, space, epochs=10, rate=1e-2), data, space=space)
    after = load_model(proto)
    assert before < 0.6 < 0.75 < accuracy_of(after, data.test, space)
    fixed = {t.name: numpy_helper.to_array(t) for t in model.source.graph.initializer}
    moved = {t.name for t in proto.graph.initializer if not np.array_equal(numpy_helper.to_array(t), fixed[t.name])}
    assert len(moved) == len(fixed) - 4, "the four numbers of the BatchNormalization stay"
    assert [n.op_type for n in proto.graph.node] == [n.op_type for n in model.source.graph.node]


def test_images_in_another_layout() -> None:
    data = images()
    assert data.test is not None
    model = flat()
    proto = tuned(model, tune_recipe("blobs", model, PLAIN, epochs=4, rate=1e-2), data)
    assert accuracy_of(load_model(proto), data.test) > 0.9 > accuracy_of(model, data.test)
    colour = ImageSet("blobs", blobs(20, channels=3), None)
    with pytest.raises(InputError, match="an image has shape"):
        as_module(convolution(), PLAIN, colour.shape, 4)


def test_an_interrupted_training_writes_the_same_file(tmp_path: Path) -> None:
    model = flat()
    recipe = tune_recipe("blobs", model, PLAIN, budget=0.1, epochs=2, seed=3)
    whole = tuned(model, recipe, DATA)
    stops = 0
    for stop in (1, 2, 1):
        left = stop

        def report(share: float, text: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StopError

        with pytest.raises(StopError):
            tuned(model, recipe, DATA, tmp_path / "s.pt", progress=report)
        stops += 1
    assert stops == 3
    assert tuned(model, recipe, DATA, tmp_path / "s.pt") == whole
    with pytest.raises(InputError, match="of another training: start"):
        tuned(model, replace(recipe, start="other"), DATA, tmp_path / "s.pt")
    with pytest.raises(InputError, match="of another training: budget"):
        tuned(model, replace(recipe, budget=0.2), DATA, tmp_path / "s.pt")


def test_weights_that_several_nodes_read_stay() -> None:
    net = Net(64, seed=2)
    h = net.node("Relu", [net.gemm("x", 64, 12)])
    shared = net.weight(net.gauss(12, 12, fan=12))
    h = net.node("Relu", [net.node("MatMul", [net.node("Relu", [net.node("MatMul", [h, shared])]), shared])])
    model = load_model(net.model(net.gemm(h, 12, 4, "logits"), 4))
    assert sum(p.numel() for p in as_module(model, PLAIN, DATA.shape, 4).parameters()) == 64 * 12 + 12 + 12 * 4 + 4
    proto = tuned(model, tune_recipe("blobs", model, PLAIN, epochs=1), DATA)
    x = np.random.default_rng(0).random((3, 64)).astype(np.float32)
    assert np.abs(run(proto, x) - run(model.source, x)).max() > 1e-4


def test_a_constant_node_and_external_names() -> None:
    net = Net(64, seed=4)
    h = net.node("Relu", [net.gemm("x", 64, 12)])
    net.nodes.append(onnx.helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(
        net.gauss(12, 4, fan=12).astype(np.float32))))  # fmt: skip
    model = load_model(net.model(net.named("MatMul", [h, "w"], "logits"), 4))
    net_ = as_module(model, PLAIN, DATA.shape, 4)
    assert sum(p.numel() for p in net_.parameters()) == 64 * 12 + 12 + 48
    assert DATA.test is not None
    proto = tuned(model, tune_recipe("blobs", model, PLAIN, epochs=4, rate=1e-2), DATA)
    onnx.checker.check_model(proto)
    assert accuracy_of(load_model(proto), DATA.test) > accuracy_of(model, DATA.test)


def test_a_single_logit() -> None:
    net = Net(64, seed=4)
    h = net.node("Relu", [net.gemm("x", 64, 12)])
    model = load_model(net.model(net.gemm(h, 12, 1, "logits"), 1))
    full = blobs(300)
    two = ImageSet("two", type(full)(full.x, (full.y > 1).astype(np.int64)), None)
    proto = tuned(model, tune_recipe("two", model, PLAIN, epochs=4, rate=1e-2), two)
    assert accuracy_of(load_model(proto), two.train) > 0.9


def test_what_is_refused(tmp_path: Path) -> None:
    model = flat()
    with pytest.raises(InputError, match="has 4 classes, the images have labels up to 6"):
        as_module(model, PLAIN, DATA.shape, 7)
    net = Net(64)
    fixed = load_model(net.model(net.named("Mul", ["x", net.weight(np.ones(64))], "logits"), 64))
    with pytest.raises(InputError, match="no weights that can be trained"):
        as_module(fixed, PLAIN, DATA.shape, 4)
    for numbers in ({"epochs": 0}, {"budget": float("nan")}, {"seed": -1}):
        with pytest.raises(OptionError):
            tune_recipe("blobs", model, PLAIN, **numbers)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="learning rate"):
        tune_recipe("blobs", model, PLAIN, rate=float("inf"))
    with pytest.raises(InputError, match="diverged in epoch 1"):
        tuned(model, tune_recipe("blobs", model, PLAIN, rate=1e30), DATA, tmp_path / "s.pt")


def test_a_model_in_double_precision_stays_so() -> None:
    net = Net(64, seed=2, dtype=np.float64)
    h = net.node("Relu", [net.gemm("x", 64, 12)])
    model = load_model(net.model(net.gemm(h, 12, 4, "logits"), 4))
    proto = tuned(model, tune_recipe("blobs", model, PLAIN, epochs=1), DATA)
    assert {t.data_type for t in proto.graph.initializer} == {onnx.TensorProto.DOUBLE}
    assert torch.tensor(numpy_helper.to_array(proto.graph.initializer[0])).isfinite().all()


def test_the_recipe_of_other_weights_is_left_out() -> None:
    """A report groups networks by it."""
    proto = flat().source
    for key, value in (("onnxsub.zoo", json.dumps({"budget": 0.0})), ("mine", "stays")):
        prop = proto.metadata_props.add()
        prop.key, prop.value = key, value
    model = load_model(proto)
    written = load_model(tuned(model, tune_recipe("blobs", model, PLAIN, epochs=1, budget=0.1), images()))
    assert "onnxsub.zoo" not in written.metadata
    assert written.metadata["mine"] == "stays"
