"""A limit of nodes alone: the answer is the same on a machine of any speed."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from onnxsub.budget import NODE, Budget
from onnxsub.instance import Instance
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.options import ExactOptions, Limits
from tests.verifiers.nets import UNIT, anchor, measured, random_dense, random_network


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the clock of this process run so many times as fast, as if the machine were that much slower."""
    real = time.perf_counter

    def at(times: float) -> None:
        monkeypatch.setattr(time, "perf_counter", lambda: times * real())

    return at


def test_time_is_counted_in_nodes(slow: Callable[[float], None]) -> None:
    budget = Budget(nodes=10)
    assert budget.counted
    part = budget.part(3 * NODE)
    slow(1e6)
    assert budget.running
    assert part.running
    assert budget.remaining == np.inf
    budget.count(3)
    assert part.over
    assert budget.running
    assert budget.worked == pytest.approx(3 * NODE)
    budget.count(7)
    assert budget.over
    assert not Budget(5.0, nodes=10).counted
    assert not Budget().counted


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), 2, 3])
def test_the_same_answer_at_any_speed(seed: int, verifier: str, slow: Callable[[float], None]) -> None:
    network = random_network(seed, kind=("dense", "residual")[seed % 2], activations=("Relu",))
    x0, label = anchor(network, seed)
    found = []
    for times in (1.0, 300.0):
        slow(times)
        found.append(measure(Instance(network, x0, label, UNIT), ExactOptions(Limits(nodes=4, threads=1, tol=1e-6)), verifier))
    one, other = found
    assert (one.status, one.lower, one.upper, one.nodes) == (other.status, other.lower, other.upper, other.nodes)


@pytest.mark.parametrize("seed", [1, 5])
def test_it_ends_a_search_by_linear_programs(seed: int) -> None:
    network = random_dense(seed, 20, 30, 30, 3)
    x0, label = anchor(network, seed)
    whole = measured(network, x0, label, verifier="bab", threads=1, timeout=60.0)
    cut = measured(network, x0, label, verifier="bab", threads=1, nodes=10)
    assert whole.status == "exact"
    assert whole.nodes > 40
    assert cut.status == "bracket"
    assert 10 <= cut.nodes < 20  # a node looks at some others before it is split
    assert cut.lower <= whole.upper
    assert cut.upper >= whole.lower
