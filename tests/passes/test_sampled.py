"""Networks that jump: where samples of the domain have another class, the attack has a point at most as far as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import onnxsub.passes.attack.attacker as attacker_module
from onnxsub.budget import Budget
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.attack.descent import Objective
from onnxsub.passes.attack.sampled import jumps, nearer_points, sampled_points
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from tests.handmade import Net

UNIT = InputSpace(0.0, 1.0)
M = 16
Units = Callable[[Net, int], str]


def signs(net: Net, n: int) -> str:
    return net.node("Sign", [net.gemm("x", n, M)])


def two_layers(net: Net, n: int) -> str:
    return net.node("Sign", [net.gemm(signs(net, n), M, M)])


def chosen(net: Net, n: int) -> str:
    """One of two affine functions, by a condition of the input."""
    condition = net.node("Greater", [net.gemm("x", n, M), net.weight(np.zeros(M))])
    return net.node("Where", [condition, net.gemm("x", n, M), net.gemm("x", n, M)])


def compared(net: Net, n: int) -> str:
    condition = net.node("Greater", [net.gemm("x", n, M), net.weight(np.zeros(M))])
    return net.node("Where", [condition, net.weight(np.ones(M)), net.weight(np.full(M, -0.5))])


def rectified(net: Net, n: int) -> str:
    return net.node("Relu", [net.gemm("x", n, M)])


def rare(units: Units, n: int, share: float, seed: int) -> tuple[Query, Array]:
    """A question about the class that most points of the domain have, and samples that have the other one."""

    def built(limit: float) -> Model:
        net = Net(n, seed=seed)
        sums = net.node("Gemm", [units(net, n), net.weight(net.gauss(1, M, fan=M))], transB=1)
        last = [sums, net.weight(np.array([[0.0], [1.0]])), net.weight(np.array([limit, 0.0]))]
        return load_model(net.model(net.node("Gemm", last, transB=1), 2))

    x = np.random.default_rng(seed).random((20_000, n)).astype(np.float32)
    values = Runtime(built(0.0)).raw(x)[:, 1].astype(np.float64)
    limit = np.quantile(values, 1 - share)
    # between two values of a step function; the largest one is left
    model = built(float(values[values <= min(limit, np.partition(np.unique(values), -2)[-2])].max()) * 1.000001)
    y = Runtime(model).raw(x)
    other = y[:, 1] > y[:, 0]
    assert other.any()
    return make_query(model, x[~other][0], space=UNIT), x[other]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("n", "share"), [(4, 0.1), (4, 0.002), (12, 0.01), (100, 0.002)])
@pytest.mark.parametrize("units", [signs, two_layers, chosen, compared])
def test_it_is_as_near_as_the_nearest_sample(units: Units, n: int, share: float, seed: int) -> None:
    query, other = rare(units, n, share, seed)
    found = attack(query, AttackOptions(threads=1))
    assert found.found
    assert found.x_adv is not None
    assert found.d_adv <= np.abs(other - query.x0).max(1).min()
    assert query.margins(found.x_adv[None])[0][0] > 0


@pytest.mark.parametrize("units", [two_layers, compared])
def test_a_distance_has_an_upper_end(units: Units) -> None:
    query, other = rare(units, 4, 0.002, 0)
    found = distance(query, DistanceOptions(Limits(nodes=50, threads=1)))
    assert found.witness is not None
    assert found.lower <= found.upper <= np.abs(other - query.x0).max(1).min()


def test_moves_lead_nearer_and_every_point_has_another_class() -> None:
    query, _ = rare(compared, 12, 0.01, 1)
    assert jumps(query.network)
    o = Objective(query.network, query.x0, query.label, UNIT, device="cpu", dtype=torch.float32)
    first = sampled_points(o, 1.0, 1.0, torch.Generator().manual_seed(0), Budget())
    assert first is not None
    first = first.take(torch.nonzero(first.best.isfinite())[:, 0])
    assert len(first.best)
    near = nearer_points(o, first, 1.0, torch.Generator().manual_seed(0), Budget())
    assert bool((near.best <= first.best).all())
    assert float(near.best.min()) < 0.9 * float(first.best.min())
    for track in (first, near):
        assert track.point.abs().amax(1).tolist() == pytest.approx(track.best.tolist(), rel=1e-6)
        assert bool((o.worst(track.point, Budget())[0] > 0).all())


def test_it_ends_with_the_budget() -> None:
    query, _ = rare(compared, 12, 0.01, 1)
    o = Objective(query.network, query.x0, query.label, UNIT, device="cpu", dtype=torch.float32)
    over, generator = Budget(), torch.Generator()
    over.stop.set()
    assert sampled_points(o, 1.0, 1.0, generator, over) is None
    first = sampled_points(o, 1.0, 1.0, generator, Budget())
    assert first is not None
    assert torch.equal(nearer_points(o, first, 1.0, generator, over).best, first.best)


def test_other_networks_are_attacked_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> None:
        pytest.fail("this network does not jump")

    for name in ("sampled_points", "nearer_points"):
        monkeypatch.setattr(attacker_module, name, never)
    query, _ = rare(rectified, 4, 0.1, 0)
    assert not jumps(lower(query.model))
    assert attack(query, AttackOptions(threads=1)).found
