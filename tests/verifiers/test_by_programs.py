"""Bounds by linear programs: proved by their multipliers, tighter than cuts, and good for the same distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.verifiers.options import MilpOptions
from onnxsub.verifiers.programs.dual_bound import Multipliers, safe_minimum
from onnxsub.verifiers.programs.solvers import Problem
from tests.random_models import PIECEWISE
from tests.verifiers.nets import UNIT, anchor, box_model, decided, logits, measured, random_network

MOST = 40  # binaries: two linear programs each


@pytest.mark.parametrize("seed", range(20))
def test_any_multipliers_give_a_bound(seed: int) -> None:
    import scipy.sparse as sp
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    n, m = 8, 6
    A = rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.6)
    inside = rng.uniform(-1, 1, n)
    low, high = A @ inside - rng.random(m), A @ inside + rng.random(m)
    low[0], high[1] = -np.inf, np.inf
    c = rng.normal(size=n)
    ends = np.full(n, -1.0), np.ones(n)
    problem = Problem(c, 0.0, sp.csc_array(A), low, high, *ends, np.zeros(n, dtype=bool))
    program = Multipliers.of(problem)
    finite_low, finite_high = np.isfinite(low), np.isfinite(high)
    best = linprog(
        c, A_ub=np.concatenate([A[finite_high], -A[finite_low]]), b_ub=np.concatenate([high[finite_high], -low[finite_low]]),
        bounds=[(-1, 1)] * n, method="highs",
    )  # fmt: skip
    assert best.status == 0
    for _ in range(50):
        assert safe_minimum(program, c, rng.normal(size=m) * rng.choice([0.1, 1.0, 10.0])) <= best.fun
    duals = np.zeros(m)
    upper, lower = best.ineqlin.marginals[: finite_high.sum()], best.ineqlin.marginals[finite_high.sum() :]
    duals[finite_high] += upper
    duals[finite_low] -= lower
    assert safe_minimum(program, c, duals) == pytest.approx(best.fun, abs=1e-7)


@pytest.mark.parametrize("radius", [0.05, 0.2])
@pytest.mark.parametrize("seed", range(10))
def test_reached_points_lie_inside_and_nothing_gets_looser(seed: int, radius: float) -> None:
    network = random_network(seed, activations=PIECEWISE)
    x0, label = anchor(network, seed)
    rng = np.random.default_rng(seed)
    local = box_model(network, x0, label, radius)
    lower, upper = UNIT.ball(x0, radius)
    samples = rng.uniform(lower, upper, (3000, *x0.shape))
    points = np.concatenate([samples, np.where(rng.random((1500, *x0.shape)) < 0.5, lower, upper)])
    values = local.network.values(torch.tensor(points))
    f = logits(local.network)(points)
    for t in local.open:
        reached = f[:, t] >= f[:, label]
        cut = local.clause(t)
        if cut is not None and cut.binaries > MOST:
            continue
        found = None if cut is None else cut.tightened(Budget())
        if found is None or cut is None:
            assert not reached.any()
            continue
        for op in local.network.nonlinear:
            z = values[op.inputs[0]][torch.tensor(reached)].flatten(1).numpy()
            l, u = found.intervals[op.output]
            assert (l >= cut.intervals[op.output][0]).all()
            assert (u <= cut.intervals[op.output][1]).all()
            assert (z >= l - 1e-9).all()
            assert (z <= u + 1e-9).all()
        assert found.binaries <= cut.binaries


def test_it_tightens_what_cuts_leave() -> None:
    """Else the test above would hold for doing nothing."""
    gained = 0.0
    for seed in range(6):
        network = random_network(seed, kind="dense")
        x0, label = anchor(network, seed)
        local = box_model(network, x0, label, 0.3)
        for t in local.open:
            cut = local.clause(t)
            found = None if cut is None else cut.tightened(Budget())
            if cut is None or found is None:
                continue
            before, after = (sum(float((u - l).sum()) for l, u in m.intervals.values()) for m in (cut, found))
            gained = max(gained, 1 - after / before)
    assert gained > 0.05


@pytest.mark.parametrize("kind", ["dense", "conv", "pool"])
@pytest.mark.parametrize("seed", range(3))
def test_distances_agree(seed: int, kind: str) -> None:
    network = random_network(seed, kind=kind, activations=("Relu",))
    x0, label = anchor(network, seed)
    results = {
        how: measured(network, x0, label, threads=1, tighten=how) for how in ("none", "cut", "lp")
    }
    assert len({r.status for r in results.values()}) == 1
    if results["cut"].status == "exact":
        for r in results.values():
            assert r.upper == pytest.approx(results["cut"].upper, abs=1e-5)
            assert r.lower <= results["cut"].upper + 1e-6


def test_decisions_agree() -> None:
    network = random_network(3, kind="dense")
    x0, label = anchor(network, 3)
    exact = measured(network, x0, label, threads=1)
    assert exact.status == "exact"
    for factor, status in ((0.99, "proved"), (1.01, "violated")):
        for how in ("none", "cut", "lp"):
            found = decided(network, x0, label, factor * exact.upper, threads=1, tighten=how, attack=False)
            assert found.status == status


def test_the_work_can_be_cut_off() -> None:
    network = random_network(5, kind="dense")
    x0, label = anchor(network, 5)
    local = box_model(network, x0, label, 0.3)
    for t in local.open:
        cut = local.clause(t)
        if cut is None:
            continue
        same = cut.tightened(Budget().part(0.0))
        assert same is not None
        for name, (l, u) in same.intervals.items():
            assert np.array_equal(l, cut.intervals[name][0])
            assert np.array_equal(u, cut.intervals[name][1])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="--tighten 'true' is unknown; choose one of cut, lp, none"):
        MilpOptions(tighten="true")


def test_results_say_how() -> None:
    network = random_network(1, kind="dense")
    x0, label = anchor(network, 1)
    assert measured(network, x0, label, tighten="lp", threads=1).settings["tighten"] == "lp"
