"""The clock: whatever computes bounds looks at its budget often, and ends when it is over."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.relu import Relu
from onnxsub.passes.certify import keeps_its_pieces, worst_margin_bound
from onnxsub.propagate import METHODS, bounds, compute_bounds, linear_range, margin_bounds
from onnxsub.propagate.backward import terms
from tests.random_models import random_model
from tests.resnet18 import resnet18


class Watched(Budget):
    """Notes the processor's time between two looks; may end at the n-th."""

    def __init__(self, looks: float = np.inf) -> None:
        super().__init__()
        self.most, self.looks, self.longest, self._before = looks, 0, 0.0, time.process_time()

    @property
    def over(self) -> bool:
        now = time.process_time()
        self.longest, self._before = max(self.longest, now - self._before), now
        self.looks += 1
        return self.looks > self.most


def setting(network: Network, eps: float) -> tuple[np.ndarray, np.ndarray]:
    x0 = np.random.default_rng(0).random(network.input_shape)
    return np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_ends_bounds_wherever_it_is_over(method: str) -> None:
    network = lower(load_model(random_model(11, kind="residual")))
    box = setting(network, 0.1)
    whole = Watched()
    expected = compute_bounds(network, *box, method, steps=2, budget=whole)
    assert whole.looks >= len(network.ops)
    for looks in np.linspace(0, whole.looks - 1, 7).astype(int):
        with pytest.raises(OutOfTime):
            compute_bounds(network, *box, method, steps=2, budget=Watched(int(looks)))
    again = compute_bounds(network, *box, method, steps=2)  # without a clock the same
    assert torch.equal(again.output[0], expected.output[0])


def test_everything_that_bounds_takes_a_budget() -> None:
    network = lower(load_model(random_model(11, kind="residual")))
    box = setting(network, 0.1)
    found = compute_bounds(network, *box)
    ends = tuple(torch.as_tensor(end)[None] for end in box)
    name = network.activations[-1].inputs[0]
    for ask in (
        lambda budget: margin_bounds(network, found, np.eye(network.classes), budget=budget),
        lambda budget: linear_range(network, name, torch.arange(3), found.relaxations, *ends, budget=budget),
        lambda budget: worst_margin_bound(network, box, 0, budget=budget),
        lambda budget: keeps_its_pieces(network, network, box, budget=budget),
    ):
        with pytest.raises(OutOfTime):
            ask(Watched(0))


def test_what_takes_long_is_cut_into_pieces_that_give_the_same() -> None:
    """Rows of one transpose are done in parts where they take long."""
    network = lower(load_model(random_model(11, kind="residual")))
    ops = [op for op in network.ops if getattr(op, "weight", None) is not None]
    assert all(terms(op) > 1 for op in ops)  # type: ignore[arg-type]
    box = setting(network, 0.1)
    plain = compute_bounds(network, *box)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxsub.propagate.backward._WORK", 1)
        cut = Watched()
        pieces = compute_bounds(network, *box, budget=cut)
    whole = Watched()
    compute_bounds(network, *box, budget=whole)
    assert cut.looks > 2 * whole.looks
    for a, b in zip(plain.output, pieces.output, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["crown", "alpha-crown"])
def test_looks_are_near_each_other_on_a_large_network(method: str) -> None:
    network = lower(load_model(resnet18()))
    assert network.units == 47_104
    box = setting(network, 5e-4)
    units = {op.output: torch.arange(128) for op in network.nonlinear}
    for looks in (150, 600):
        budget = Watched(looks)
        with pytest.raises(OutOfTime):
            compute_bounds(network, *box, method, units=units, steps=2, budget=budget)
        assert budget.longest < 0.4  # 0.09 s where it was measured


def test_a_method_without_an_implementation_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    network = lower(load_model(random_model(2)))
    monkeypatch.setattr(bounds, "METHODS", (*METHODS, "new"))
    with pytest.raises(NotImplementedError, match="bounds method 'new' is in METHODS but has no implementation"):
        compute_bounds(network, *setting(network, 0.1), "new")
    assert set(METHODS) == set(bounds._KINDS)
    with pytest.raises(ValueError, match="unknown mode of linear bounds 'magic'; choose one of fastlin, crown"):
        Relu(op_type="Relu", node="r", inputs=("z",), output="h", in_shapes=((1,),), out_shape=(1,)).relax(
            -torch.ones(1, 1), torch.ones(1, 1), "magic"
        )
