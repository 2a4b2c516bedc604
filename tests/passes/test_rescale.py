"""Layers on one scale: the same function to the last bit, and one network for all that differ by powers of two only."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import numpy as np
import pytest
import torch

from onnxsub.instance import Instance
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Operator
from onnxsub.passes.rescale import exponent_of, rescaled
from onnxsub.propagate.balance import InexactError, groups, scaled
from onnxsub.region import InputSpace
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.verify import VerifyOptions, decide_ball
from tests.random_dags import random_dag
from tests.random_models import ACTIVATIONS, PIECEWISE, random_model
from tests.verifiers.nets import dense

MAKES = {
    "all": partial(random_model, activations=ACTIVATIONS),
    "dense": partial(random_model, kind="dense", activations=PIECEWISE),
    "residual": partial(random_model, kind="residual", activations=PIECEWISE),
    "dag": partial(random_dag, activations=ACTIVATIONS),
}
SEEDS = 14
KS = (-100, -61, -10, -1, 1, 10, 61, 100)


def made(kind: str, seed: int) -> tuple[Network, np.ndarray]:
    network = lower(load_model(MAKES[kind](seed)))
    return network, np.random.default_rng(seed).random(network.input_shape)


def points(network: Network, seed: int) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).uniform(-1, 2, (40, *network.input_shape)))


def kinds_of(network: Network) -> set[str]:
    return {type(op).__name__ for op in network.ops}


def alternating(network: Network, k: int) -> dict[str, int]:
    """Every second group of tensors times 2^k, the others times 2^-k."""
    found: dict[str, int] = {}
    for i, group in enumerate(groups(network)):
        found |= dict.fromkeys(group, k if i % 2 == 0 else -k)
    return found


def same_op(one: Operator, other: Operator) -> bool:
    """Whether two operators are the same, number by number."""
    if type(one) is not type(other):
        return False
    for field in (f for f in dataclasses.fields(one) if f.compare and not f.name.startswith("_")):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Operator):
            if not same_op(a, b):
                return False
        elif isinstance(a, np.ndarray | float):
            if a is not b and not np.array_equal(a, b):
                return False
        elif a != b:
            return False
    return True


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_function_is_the_same_to_the_last_bit(seed: int, kind: str) -> None:
    network, x0 = made(kind, seed)
    x = points(network, seed)
    for k in (0, 37, -80):
        far = scaled(network, alternating(network, k))
        found = rescaled(far, x0)
        assert torch.equal(found.forward(x), network.forward(x))
        assert torch.equal(rescaled(far, x0, lambda _: 2.0**4).forward(x), torch.ldexp(network.forward(x), torch.tensor(-5)))
        assert (found.input, found.input_shape, found.output, found.output_shape) == (
            network.input, network.input_shape, network.output, network.output_shape,
        )  # fmt: skip


@pytest.mark.parametrize("kind", MAKES)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_scaled_layers_become_one_network_number_by_number(seed: int, kind: str) -> None:
    network, x0 = made(kind, seed)
    wanted = rescaled(network, x0, lambda _: 4.0)
    for k in KS:
        exponents = alternating(network, k)
        far = scaled(network, exponents)
        found = rescaled(far, x0, lambda _: 4.0)
        assert len(found.ops) == len(wanted.ops)
        assert all(same_op(a, b) for a, b in zip(found.ops, wanted.ops, strict=True))
        assert (found.output, found.input) == (wanted.output, wanted.input)


@pytest.mark.parametrize("kind", MAKES)
def test_the_largest_value_of_a_layer_is_near_one(kind: str) -> None:
    checked = 0
    for seed in range(8):
        network, x0 = made(kind, seed)
        found = rescaled(scaled(network, alternating(network, 70)), x0)
        values = found.values(torch.as_tensor(x0)[None])
        for group in groups(found):
            size = max(float(values[n].abs().max()) for n in group if values[n].numel())
            assert size == 0 or 0.5 <= size < 1
            checked += size > 0
    assert checked > 8


def test_the_networks_here_have_the_operators_that_matter() -> None:
    networks = [made(kind, seed)[0] for kind in MAKES for seed in range(SEEDS)]
    used = set().union(*(kinds_of(n) for n in networks))
    assert used >= {"Clip", "Sigmoid", "Tanh", "Sum", "Concat", "MaxPool", "AveragePool", "Relu", "Leaky", "Scale", "Dense", "Conv"}
    # and scaling touches them: in these networks a unit of its own is possible on both sides of a Clip, a Sum, a MaxPool
    inside = {
        type(op).__name__ for n in networks for op in n.ops if alternating(n, 1).get(op.output, 0) and op.inputs[0] != n.input
    }
    assert inside >= {"Clip", "Sum", "Concat", "MaxPool", "Relu", "Leaky"}


def test_units_in_front_of_a_smooth_operator_and_at_the_ends_stay() -> None:
    sigmoid = partial(random_model, activations=("Sigmoid",), kind="dense")
    network = lower(load_model(sigmoid(1)))
    x0 = np.random.default_rng(1).random(network.input_shape)
    found, values = rescaled(network, x0), network.values(torch.as_tensor(x0)[None])
    again = found.values(torch.as_tensor(x0)[None])
    smooth = [op for op in network.ops if type(op).__name__ == "Sigmoid"]
    assert smooth
    for op in smooth:
        assert torch.equal(again[op.inputs[0]], values[op.inputs[0]])
        assert torch.equal(again[op.output], values[op.output])


@pytest.mark.parametrize(("size", "exponent"), [(1.0, 1), (0.5, 0), (0.75, 0), (2.0**-60, -59), (3e200, math.frexp(3e200)[1])])
def test_exponents(size: float, exponent: int) -> None:
    assert exponent_of(size) == exponent
    assert 0.5 <= math.ldexp(size, -exponent_of(size)) < 1


@pytest.mark.parametrize("size", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_size_has_exponent_zero(size: float) -> None:
    assert exponent_of(size) == 0


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e300])
def test_sizes_at_the_ends_of_float64_leave_numbers(size: float) -> None:
    assert math.isfinite(2.0 ** -exponent_of(size))
    network = dense(([[size]], [0.0]), ([[1.0], [0.0]], [0.0, 0.0]))
    x = torch.tensor([[0.75]], dtype=torch.float64)
    found = rescaled(network, np.array([0.75]), lambda _: 0.75 * size)
    y = found.forward(x)
    assert torch.isfinite(y).all()
    assert 0 < float(y[0, 0]) <= 1
    assert float(y[0, 1]) == 0


def far_apart(live: float) -> Network:
    """A unit that never opens, with a pre-activation of -1e304, beside one whose values are as small as `live`."""
    return dense(([[0.0], [live]], [-1e304, 0.0]), ([[0.0, 0.0], [0.0, 1.0]], [0.0, -0.4 * live]))


@pytest.mark.parametrize("live", [1e-5, 1e-25, 1e-36])
def test_no_weight_is_lost_where_a_group_holds_numbers_far_apart(live: float) -> None:
    network = far_apart(live)
    x = torch.linspace(0, 1, 11, dtype=torch.float64)[:, None]
    found = rescaled(network, np.array([0.1]))
    assert torch.equal(found.forward(x), network.forward(x))
    with pytest.raises(InexactError):
        scaled(network, dict.fromkeys(groups(network)[0], -1010))


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("live", [1e-5, 1e-25, 1e-36])
def test_numbers_far_apart_prove_nothing_wrong(live: float, verifier: str) -> None:
    """Class 1 begins at x = 0.4."""
    instance = Instance(far_apart(live), np.array([0.1]), 0, InputSpace(0.0, 1.0))
    assert decide_ball(instance, 0.35, VerifyOptions(verifier=verifier)).status != "proved"
    found = measure(instance, verifier=verifier)
    assert found.lower <= 0.3 + 1e-6
