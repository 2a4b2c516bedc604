"""What is read as a known function is the file's own function to the last digit, and reading ends early where it leads nowhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from onnx import numpy_helper

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.functions import Gelu, HardSwish, Softplus, Swish
from onnxsub.propagate import compute_bounds
from tests.ops.test_spelled import SHAPE, Graph

UP = 1 + 2.0**-23  # the number of float32 behind 1


def _gelu(g: Graph) -> str:
    share = g("Add", g("Erf", g("Div", "x", math.sqrt(2))), 1.0)
    return g("Mul", g("Mul", "x", share), 0.5 * UP)


def _gelu_tanh(g: Graph) -> str:
    inner = g("Add", "x", g("Mul", g("Pow", "x", 3.0), 0.044715))
    share = g("Add", g("Tanh", g("Mul", inner, 0.7978845608)), 1.0)
    return g("Mul", g("Mul", "x", 0.5 * UP), share)


def _silu(g: Graph) -> str:
    return g("Mul", g("Mul", "x", UP), g("Sigmoid", g("Mul", "x", UP)))


def _hard_swish(g: Graph) -> str:
    return g("Mul", g("Mul", "x", g("Clip", g("Add", "x", 3.0 * UP), 0.0, 6.0)), 1 / 6)


CASES = {_gelu: Gelu, _gelu_tanh: Gelu, _silu: Swish, _hard_swish: HardSwish}


def _truth(network: Network, g: Graph, x: float) -> float:
    """The file's nodes in float64, with its own float32 constants."""
    values: dict[str, float] = {"x": x} | {w.name: float(numpy_helper.to_array(w)) for w in g.weights}
    one = {
        "Add": lambda a, b: a + b, "Mul": lambda a, b: a * b, "Div": lambda a, b: a / b, "Pow": lambda a, b: a**b,
        "Erf": math.erf, "Tanh": math.tanh, "Sigmoid": lambda a: 1 / (1 + math.exp(-a)), "Flatten": lambda a: a,
        "Clip": lambda a, low, high: min(max(a, low), high),
    }  # fmt: skip
    for node in g.nodes:
        values[node.output[0]] = one[node.op_type](*(values[i] for i in node.input))
    return values["y"]


@pytest.mark.parametrize("spelling", CASES, ids=lambda f: f.__name__)
def test_a_function_keeps_the_files_own_numbers(spelling: Callable[[Graph], str]) -> None:
    g = Graph()
    network = lower(load_model(g.model(spelling(g), last="Flatten")))
    assert any(isinstance(op, CASES[spelling]) for op in network.ops)
    for value in (0.75, -1.25, 2.9999998, 4.0, 2.0**20):
        x = torch.full((1, *SHAPE), value, dtype=torch.float64)
        truth = _truth(network, g, value)
        np.testing.assert_allclose(network.forward(x).numpy(), truth, rtol=2e-14, atol=2e-16)
        low, high = (t.numpy() for t in compute_bounds(network, x - 1e-9, x + 1e-9, "crown").output)
        assert (low <= truth).all()
        assert (truth <= high).all()


def _almost_clip(g: Graph) -> str:
    return g("Where", g("Less", "x", -4.0), -4.0 * UP, "x")


def _almost_leaky(g: Graph) -> str:
    return g("Where", g("GreaterOrEqual", "x", 2.0), "x", g("Mul", "x", UP))


def _almost_relu(g: Graph) -> str:
    return g("Where", g("Greater", "x", 1e-30), "x", 0.0)


@pytest.mark.parametrize("spelling", [_almost_clip, _almost_leaky, _almost_relu], ids=lambda f: f.__name__)
def test_pieces_that_nearly_meet_are_a_jump(spelling: Callable[[Graph], str]) -> None:
    g = Graph()
    network = lower(load_model(g.model(spelling(g), last="Flatten")))
    assert {type(op).__name__ for op in network.ops} & {"Either", "Jump"}
    at = {_almost_clip: -4.0, _almost_leaky: 2.0, _almost_relu: 0.0}[spelling]
    ends = tuple(torch.full((1, *SHAPE), v, dtype=torch.float64) for v in (at - 1e-9, at))
    low, high = (float(t.reshape(-1)[0]) for t in compute_bounds(network, *ends, "crown").output)
    values = {_almost_clip: (-4 * UP, -4.0), _almost_leaky: (2 * UP, 2.0), _almost_relu: (0.0,)}[spelling]
    assert all(low <= v <= high for v in values)


def test_a_softplus_that_gives_way_has_room_for_the_jump() -> None:
    g = Graph()
    soft = g("Softplus", "x")
    network = lower(load_model(g.model(g("Where", g("Greater", "x", 20.0), "x", soft), last="Flatten")))
    (unit,) = (op for op in network.ops if isinstance(op, Softplus))
    x = torch.full((1, *SHAPE), 20.0, dtype=torch.float64)
    low, high = unit.interval((x, x))
    assert float(low.max()) <= 20.0 < 20 + math.log1p(math.exp(-20.0)) <= float(high.min())
    assert unit.slopes(x - 1, x + 1)[0].isnan().all()


def test_numbers_that_cancel_are_read_exactly() -> None:
    # (x + 2^60 + 1) - 2^60 is x + 1 over the real numbers: float64 would say x
    g = Graph()
    shifted = g("Sub", g("Add", g("Add", "x", 2.0**60), 1.0), 2.0**60)
    network = lower(load_model(g.model(g("Where", g("Greater", "x", 0.0), shifted, 0.0), last="Flatten")))
    assert {type(op).__name__ for op in network.ops} & {"Either"}
    assert Fraction(2**60) + 1 != Fraction(float(2**60))


@pytest.mark.parametrize("kind", ["Mul", "Add"])
def test_long_chains_of_doublings_are_given_up(kind: str) -> None:
    g = Graph()
    tensor, previous = "x", "x"
    for i in range(300):
        # each node reads its forerunner twice, and every tenth the one before that as well
        previous, tensor = tensor, g(kind, tensor, previous if i % 10 == 9 else tensor)
    begun = time.process_time()
    model = g.model(g("Mul", tensor, tensor), last="Flatten")
    assert len(lower(load_model(model)).ops) >= 300
    assert time.process_time() - begun < 15
