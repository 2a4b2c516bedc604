"""Layer normalisation spelled out: read as the node, with its values and its limit; what only looks like one is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.normalised import Normalised
from onnxsub.propagate import compute_bounds
from tests.handmade import Net
from tests.ops.test_spelled import SHAPE, Graph
from tests.ops.tools import random, run

N = SHAPE[-1]
EPSILON = 1e-5


def mean(g: Graph, x: str, opset: int, axes: tuple[int, ...] = (-1,), keepdims: int = 1) -> str:
    if opset >= 18:
        return g("ReduceMean", x, g.integers(*axes), keepdims=keepdims)
    return g("ReduceMean", x, axes=list(axes), keepdims=keepdims)


def torch13(g: Graph, opset: int) -> str:
    """As the exporter of torch writes it."""
    d = g("Sub", "x", mean(g, "x", opset))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Pow", d, 2.0), opset), EPSILON)))


def two_differences(g: Graph, opset: int) -> str:
    d, again = (g("Sub", "x", mean(g, "x", opset)) for _ in range(2))
    return g("Div", again, g("Pow", g("Add", EPSILON, mean(g, g("Mul", d, d), opset)), 0.5))


def both_axes(g: Graph, opset: int) -> str:
    d = g("Sub", "x", mean(g, "x", opset, (1, 2)))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Mul", d, d), opset, (-1, -2)), EPSILON)))


def behind_a_layer(g: Graph, opset: int) -> str:
    h = g("Relu", "x")
    d = g("Sub", h, mean(g, h, opset))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Pow", d, 2.0), opset), EPSILON)))


def other_axes(g: Graph, opset: int) -> str:
    d = g("Sub", "x", mean(g, "x", opset))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Pow", d, 2.0), opset, (1,)), EPSILON)))


def not_centred(g: Graph, opset: int) -> str:
    d = g("Sub", "x", mean(g, "x", opset))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Mul", "x", "x"), opset), EPSILON)))


def a_cube(g: Graph, opset: int) -> str:
    d = g("Sub", "x", mean(g, "x", opset))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Pow", g("Abs", d), 3.0), opset), EPSILON)))


def not_the_last_axis(g: Graph, opset: int) -> str:
    d = g("Sub", "x", mean(g, "x", opset, (1,)))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Mul", d, d), opset, (1,)), EPSILON)))


def of_another(g: Graph, opset: int) -> str:
    d, other = g("Sub", "x", mean(g, "x", opset)), g("Mul", "x", 2.0)
    e = g("Sub", other, mean(g, other, opset))
    return g("Div", d, g("Sqrt", g("Add", mean(g, g("Mul", e, e), opset), EPSILON)))


Spelling = Callable[[Graph, int], str]
KNOWN = {torch13: N - 1, two_differences: N - 1, both_axes: math.prod(SHAPE) - 1, behind_a_layer: N - 1}
OTHERS = (other_axes, not_centred, a_cube, not_the_last_axis, of_another)


def model(spelling: Spelling, opset: int) -> onnx.ModelProto:
    g = Graph()
    return g.model(spelling(g, opset), opset, last="Flatten")


@pytest.mark.parametrize("opset", [13, 16, 18])
@pytest.mark.parametrize("spelling", [*KNOWN, *OTHERS], ids=lambda s: s.__name__)
def test_values_are_those_of_onnxruntime(spelling: Spelling, opset: int) -> None:
    file = model(spelling, opset)
    network, x = lower(load_model(file)), random((6, *SHAPE), 1, 2.0)
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x).double()).numpy()
    for i, point in enumerate(x):
        np.testing.assert_allclose(found[i], run(file, {"x": point[None]})[0][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("spelling", "square"), KNOWN.items(), ids=lambda s: getattr(s, "__name__", ""))
def test_it_keeps_the_limit_of_the_node(spelling: Spelling, square: int) -> None:
    network = lower(load_model(model(spelling, 13)))
    (step,) = [op for op in network.ops if isinstance(op, Normalised)]
    assert step.limit == pytest.approx(math.sqrt(square))
    for method in ("ibp", "crown"):
        low, high = compute_bounds(network, np.full(SHAPE, -9.0), np.full(SHAPE, 9.0), method).output
        assert float(high.max()) <= step.limit * (1 + 1e-6)
        assert float(low.min()) >= -step.limit * (1 + 1e-6)


@pytest.mark.parametrize("spelling", OTHERS, ids=lambda s: s.__name__)
def test_what_only_looks_like_one_has_no_limit(spelling: Spelling) -> None:
    network = lower(load_model(model(spelling, 13)))
    assert not any(isinstance(op, Normalised) for op in network.ops)


def test_a_batch_axis_that_was_moved_stays_readable() -> None:
    g = Graph()
    g("Transpose", "x", perm=[1, 0, 2])
    d = g("Sub", "t0", mean(g, "t0", 13))
    y = g("Div", d, g("Sqrt", g("Add", mean(g, g("Pow", d, 2.0), 13), EPSILON)))
    g("Transpose", y, perm=[1, 0, 2])
    file = g.model("t" + str(len(g.nodes) - 1), 13, last="Flatten")
    network, x = lower(load_model(file)), random((3, *SHAPE), 2, 2.0)
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x).double()).numpy()
    for i, point in enumerate(x):
        np.testing.assert_allclose(found[i], run(file, {"x": point[None]})[0][0], rtol=1e-5, atol=1e-5)


def test_an_epsilon_with_more_axes_is_added_all_the_same() -> None:
    """It gives the quotient more axes than what is normalised has: with one sample these are in front of it."""
    n = Net(4, 6)
    d = n.node("Sub", ["x", n.node("ReduceMean", ["x"], axes=[-1], keepdims=1)])
    spread = n.node("ReduceMean", [n.node("Mul", [d, d])], axes=[-1], keepdims=1)
    root = n.node("Sqrt", [n.node("Add", [spread, n.weight(np.full((1, 1, 1, 1), 0.1))])])
    file = n.model(n.gemm(n.node("Flatten", [n.node("Div", [d, root])]), 24, 3), 3)
    network = lower(load_model(file))
    for x in np.random.default_rng(0).random((3, 1, 4, 6), dtype=np.float32):
        np.testing.assert_allclose(network.forward(torch.as_tensor(x)).numpy(), run(file, {"x": x})[0], rtol=1e-5, atol=1e-5)
