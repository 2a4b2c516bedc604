"""Functions of two pieces that files spell with comparisons: recognised where float32 tests what the real numbers say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import TensorProto

from onnxsub.lower import lower, lower_nodes
from onnxsub.model import load_model
from onnxsub.ops.relu import Relu
from onnxsub.propagate import compute_bounds
from onnxsub.quantised import with_room
from tests.ops.test_spelled import Graph
from tests.ops.tools import nodes_of, run

F32 = np.float32


def relu(g: Graph) -> str:
    return g("Where", g("Greater", "x", 0.0), "x", 0.0)


def relu_of_a_product(g: Graph) -> str:
    return g("Mul", "x", g("Cast", g("GreaterOrEqual", "x", 0.0), to=TensorProto.FLOAT))


def leaky(g: Graph) -> str:
    return g("Where", g("Less", "x", 0.0), g("Mul", "x", 0.1), "x")


def magnitude(g: Graph) -> str:
    return g("Where", g("LessOrEqual", 0.0, "x"), "x", g("Neg", "x"))


def above_half(g: Graph) -> str:
    return g("Where", g("Less", "x", 0.5), 0.5, "x")


def below_six(g: Graph) -> str:
    return g("Where", g("Greater", g("Sub", "x", 0.6), 0.0), 0.6, "x")


def thresholded(g: Graph) -> str:
    return g("Mul", g("Cast", g("Greater", "x", 0.4), to=TensorProto.FLOAT), "x")


def thresholded_where(g: Graph) -> str:
    return g("Where", g("LessOrEqual", "x", 0.4), 0.0, "x")


SPELLED = {
    relu: "Relu", relu_of_a_product: "Relu", leaky: "Leaky", magnitude: "Leaky", above_half: "Clip", below_six: "Clip",
    thresholded: "Jump", thresholded_where: "Jump",
}  # fmt: skip


def relu_of_a_view(g: Graph) -> str:
    return g("Where", g("Less", g("Neg", g("Identity", "x")), 0.0), "x", 0.0)


def above_six_mirrored(g: Graph) -> str:
    return g("Where", g("Greater", 0.0, g("Sub", 0.6, "x")), "x", 0.6)


SPELLED |= {relu_of_a_view: "Relu", above_six_mirrored: "Clip"}


def points(count: int = 40) -> np.ndarray:
    """One sample each, thresholds among the numbers."""
    x = np.random.default_rng(5).normal(size=(count, 1, 3, 5)).astype(F32)
    x[:3, 0, 0, :4] = [0.0, 0.4, 0.5, 0.6]
    return x


@pytest.mark.parametrize("spell", SPELLED, ids=lambda f: f.__name__)
def test_functions_of_two_pieces_are_recognised(spell: Callable[[Graph], str]) -> None:
    g = Graph()
    model = g.model(spell(g))
    network = lower_nodes(nodes_of(model), "x", (3, 5), "y")
    assert [type(op).__name__ for op in network.activations] == [SPELLED[spell]]
    assert not network.activations[0].inner
    for x in points(5):
        (want,) = run(model, {"x": x})
        np.testing.assert_array_equal(network.values(torch.from_numpy(x).double())["y"].numpy().astype(F32), want)


def shifted(g: Graph) -> str:
    """At 0.025 the sum is 1e6 in float32."""
    return g("Where", g("Greater", g("Add", "x", 1e6), 1e6), "x", 0.0)


def shifted_mirrored(g: Graph) -> str:
    return g("Where", g("LessOrEqual", 1e6, g("Sub", 1e6, "x")), 0.0, "x")


def shifted_gate(g: Graph) -> str:
    return g("Mul", "x", g("Cast", g("Less", 1e6, g("Add", 1e6, "x")), to=TensorProto.FLOAT))


def shifted_and_back(g: Graph) -> str:
    """In real numbers x is tested."""
    return g("Where", g("Greater", g("Sub", g("Add", "x", 1e6), 1e6), 0.0), "x", 0.0)


def shifted_both(g: Graph) -> str:
    return g("Where", g("Greater", g("Add", "x", 1e6), g("Add", g("Mul", "x", 0.0), 1e6)), "x", 0.0)


def shifted_scaled(g: Graph) -> str:
    return g("Where", g("Greater", g("Mul", g("Add", "x", 1e6), 2.0), 2e6), "x", 0.0)


def scaled_to_nothing(g: Graph) -> str:
    """The product is less than float32 has numbers for, and 0."""
    return g("Where", g("Greater", g("Mul", g("Mul", "x", 1e-30), 1e-30), 0.0), "x", 0.0)


def scaled(g: Graph) -> str:
    return g("Where", g("Greater", g("Mul", "x", 2.0), 0.0), "x", 0.0)


ROUNDED = (shifted, shifted_mirrored, shifted_gate, shifted_and_back, shifted_both, shifted_scaled, scaled_to_nothing)


@pytest.mark.parametrize("spell", [*ROUNDED, scaled], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("centre", "eps"), [(0.025, 0.005), (-0.01, 0.005), (0.04, 0.02), (0.0, 0.1)])
def test_bounds_have_room_for_a_test_that_float32_rounds(spell: Callable[[Graph], str], centre: float, eps: float) -> None:
    """All are `max(x, 0)` in real numbers, and only `scaled` is in float32."""
    g = Graph()
    model = g.model(spell(g), last="Flatten")
    network = with_room(lower(load_model(model)), -1.0, 1.0)
    assert not [op for op in network.ops if isinstance(op, Relu)]
    low, high = np.full((3, 5), centre - eps, F32), np.full((3, 5), centre + eps, F32)
    x = np.linspace(low, high, 21, dtype=F32).clip(low, high)
    outputs = np.concatenate([run(model, {"x": sample[None]})[0].reshape(1, -1) for sample in x])
    if spell is not scaled and centre == 0.025:
        assert (outputs == 0).all()
    for method in ("ibp", "fastlin", "crown"):
        least, most = (t.numpy() for t in compute_bounds(network, low.astype(np.float64), high.astype(np.float64), method).output)
        assert ((outputs >= least - 1e-9) & (outputs <= most + 1e-9)).all(), method
