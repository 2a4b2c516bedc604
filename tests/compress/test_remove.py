"""Units out of a file: smaller, and equal to the masked network under onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnxsub.compress.choose import below, magnitudes, randomly, smallest
from onnxsub.compress.remove import TOLERANCE, check_equal, masked, remove_units
from onnxsub.errors import InputError, ModelError
from onnxsub.lower import lower
from onnxsub.model import load_model
from tests.handmade import Net, run


def layers(proto: ModelProto) -> list[str]:
    return [node.output[0] for node in proto.graph.node if node.op_type == "Relu"]


def dense() -> ModelProto:
    net = Net(4)
    h = net.node("Relu", [net.gemm("x", 4, 6)])
    w, b = net.weight(net.rng.normal(size=(6, 5))), net.weight(net.rng.normal(size=5))
    h = net.node("Relu", [net.node("Add", [net.node("MatMul", [h, w]), b])])
    return net.model(net.gemm(h, 5, 3, "logits"), 3)


def pooled(kind: str) -> ModelProto:
    net = Net(2, 8, 8)
    h = net.node("Relu", [net.filters("x", 2, 4, 3)])
    h = net.node(kind, [h], kernel_shape=[2, 2], strides=[2, 2])
    h = net.node("Relu", [net.filters(h, 4, 6, 2)])
    h = net.node("Flatten", [h], axis=1)
    h = net.node("Relu", [net.gemm(h, 24, 5)])
    return net.model(net.gemm(h, 5, 3, "logits"), 3)


def normalised() -> ModelProto:
    """BatchNormalization behind the Relu: a masked channel is a constant that is not 0, and goes into the next bias."""
    net = Net(2, 6, 6)
    h = net.node("Relu", [net.filters("x", 2, 4, 3)])
    numbers = [net.weight(net.rng.normal(size=4)) for _ in range(3)]
    h = net.node("BatchNormalization", [h, *numbers, net.weight(net.rng.random(4) + 0.5)])
    bias = net.weight(net.rng.normal(size=5))
    h = net.node("Relu", [net.node("Conv", [h, net.weight(net.rng.normal(size=(5, 4, 2, 2))), bias])])
    h = net.node("Reshape", [h, net.weight([-1, 45], np.int64)])
    return net.model(net.gemm(h, 45, 3, "logits"), 3)


def turned() -> ModelProto:
    """Channels last before the dense layer: the entries of one channel are not neighbours."""
    net = Net(2, 4, 4)
    h = net.node("Relu", [net.gemm(net.node("Flatten", ["x"], axis=1), 32, 6)])
    return net.model(net.gemm(h, 6, 3, "logits"), 3)


@pytest.mark.parametrize(
    "proto", [dense(), pooled("MaxPool"), pooled("AveragePool"), normalised(), turned()],
    ids=["dense", "max", "average", "norm", "flat"],
)  # fmt: skip
def test_smaller_and_equal_to_the_mask(proto: ModelProto) -> None:
    model = load_model(proto)
    gone = {name: np.array([0, 2]) for name in layers(proto)}
    smaller, told = remove_units(model, gone)
    if any(t.reason for t in told):
        pytest.fail(str(told))
    assert len(smaller.SerializeToString()) < len(proto.SerializeToString())
    assert [load_model(smaller).nodes[-1].op_type, sum(t.removed for t in told)] == ["Gemm", 2 * len(gone)]
    x = np.random.default_rng(4).normal(size=(9, *model.input_shape)).astype(np.float32)
    wanted = run(masked(model, gone), x)
    assert np.abs(wanted - run(smaller, x)).max() <= TOLERANCE * max(1.0, np.abs(wanted).max())
    assert np.abs(wanted - run(proto, x)).max() > 1e-3, "the mask changes something"
    assert check_equal(model, smaller, gone) < 1e-5
    with pytest.raises(ModelError, match="differs"):
        check_equal(model, proto, gone)


def test_a_residual_sum_is_named_and_stays() -> None:
    net = Net(4)
    h = net.node("Relu", [net.gemm("x", 4, 5)])
    inner = net.node("Relu", [net.gemm(h, 5, 5)])
    total = net.node("Add", [h, inner])
    proto = net.model(net.gemm(total, 5, 3, "logits"), 3)
    gone = {name: np.array([1]) for name in layers(proto)}
    smaller, told = remove_units(load_model(proto), gone)
    assert all(t.removed == 0 and "residual sum" in t.reason for t in told)
    assert smaller.graph == proto.graph


def test_scores_of_another_model() -> None:
    model = load_model(dense())
    with pytest.raises(InputError, match="no tensor"):
        remove_units(model, {"nothing": np.array([0])})
    with pytest.raises(InputError, match="6 units"):
        remove_units(model, {layers(model.source)[0]: np.array([6])})


def test_which_units_go() -> None:
    proto = dense()
    first, second = layers(proto)
    sizes = magnitudes(lower(load_model(proto)))
    assert [len(s) for s in sizes.values()] == [6, 5]
    gone = smallest(sizes, {first: 2})
    assert set(np.argsort(sizes[first])[:2]) == set(gone[first])
    assert len(gone[second]) == 0
    scores: dict[str, Any] = {first: np.array([0.0, 0.5, 1.0]), second: np.array([1e-4, 5e-4])}
    assert {name: list(p) for name, p in below(scores, 1e-3).items()} == {first: [0], second: [0]}
    drawn = randomly({first: 6, second: 5}, {first: 3, second: 9}, seed=1)
    assert (len(drawn[first]), len(drawn[second])) == (3, 4)
    assert (drawn[first] == randomly({first: 6, second: 5}, {first: 3}, seed=1)[first]).all()


def test_the_reader_of_an_old_weight_keeps_it() -> None:
    """Two nodes share one initializer: the one that shrinks gets a copy."""
    net = Net(5)
    w, b = net.weight(net.rng.normal(size=(5, 5))), net.weight(net.rng.normal(size=5))
    h = net.node("Relu", [net.node("Gemm", ["x", w, b])])
    h = net.node("Relu", [net.node("Gemm", [h, w, b])])
    proto = net.model(net.gemm(h, 5, 3, "logits"), 3)
    gone = {layers(proto)[0]: np.array([3])}
    smaller, (told,) = remove_units(load_model(proto), gone)
    assert told.removed == 1
    assert check_equal(load_model(proto), smaller, gone) < 1e-5


def test_a_mask_inside_is_of_the_type_that_the_layer_computes_in() -> None:
    """The input is float32, the layers compute in float16."""
    net = Net(4, dtype=np.float16)
    narrow = net.node("Cast", ["x"], to=10)
    h = net.node("Relu", [net.gemm(narrow, 4, 6)])
    wide = net.node("Cast", [net.gemm(h, 6, 3)], to=1)
    net.dtype = np.dtype(np.float32)
    proto = net.model(wide, 3)
    gone = {layers(proto)[0]: np.array([1, 4])}
    smaller, (told,) = remove_units(load_model(proto), gone)
    assert told.removed == 2
    assert check_equal(load_model(proto), smaller, gone) < 1e-3


def test_units_along_another_axis_stay() -> None:
    """As many tokens as units: the scores are of the tokens, which no column of the weight writes."""
    net = Net(3, 5)
    h = net.node("Relu", [net.node("MatMul", ["x", net.weight(net.rng.normal(size=(5, 3)))])])
    h = net.node("Transpose", [h], perm=[0, 2, 1])
    h = net.node("MatMul", [h, net.weight(net.rng.normal(size=(3, 4)))])
    proto = net.model(net.gemm(net.node("Flatten", [h]), 12, 3), 3)
    _, (told,) = remove_units(load_model(proto), {layers(proto)[0]: np.array([0])})
    assert (told.removed, "another axis" in told.reason) == (0, True)


def test_a_constant_meets_the_padding_of_an_average() -> None:
    net = Net(2, 8, 8)
    h = net.node("Relu", [net.filters("x", 2, 4, 3)])
    h = net.node("Add", [h, net.weight(net.rng.normal(size=(1, 4, 1, 1)))])
    h = net.node("AveragePool", [h], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER", count_include_pad=1)
    proto = net.model(net.gemm(net.node("Flatten", [h]), 36, 3), 3)
    _, (told,) = remove_units(load_model(proto), {layers(proto)[0]: np.array([0])})
    assert (told.removed, "padding" in told.reason) == (0, True)


def test_two_layers_of_the_same_units() -> None:
    """The positions of the second layer are those before the first one lost its units."""
    net = Net(4)
    h = net.node("Relu", [net.gemm("x", 4, 6)])
    h = net.node("Relu", [net.node("Sub", [net.weight(net.rng.normal(size=6) + 1), h])])
    proto = net.model(net.gemm(h, 6, 3), 3)
    first, second = layers(proto)
    gone = {first: np.array([0, 2]), second: np.array([1, 5])}
    smaller, told = remove_units(load_model(proto), gone)
    assert [(t.units, t.removed) for t in told] == [(6, 2), (6, 0)]
    assert "went with" in told[1].reason
    assert check_equal(load_model(proto), smaller, {first: gone[first]}) < 1e-5
