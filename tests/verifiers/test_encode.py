"""Rows: every point of the network is a point of the model, and the model has no other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from onnxsub.ops.encoding import LinExpr
from onnxsub.propagate import compute_bounds
from onnxsub.region import InputSpace
from onnxsub.verifiers.programs import encode as build
from onnxsub.verifiers.programs.encode import Encoding, MilpModel, encode_network
from onnxsub.verifiers.programs.solvers import SOLVERS, SolverOptions, SolverStatus
from tests.random_models import PIECEWISE
from tests.verifiers.nets import UNIT, anchor, dense, logits, measured, random_dense, random_network

HIGHS = SOLVERS["highs"]


def encoded(network, x0, radius) -> Encoding:
    lower, upper = UNIT.ball(x0, radius)
    bounds = compute_bounds(network, lower, upper, "crown")
    return encode_network(network, x0, lower, upper, {name: bounds.arrays(name) for name in bounds.pre})


@pytest.mark.parametrize("seed", range(12))
def test_the_model_computes_the_network_at_a_fixed_input(seed: int) -> None:
    scip = SOLVERS["scip"]
    if not scip.is_available():
        pytest.skip("pyscipopt is not installed")
    network = random_network(seed, activations=PIECEWISE)
    x0, _ = anchor(network, seed)
    rng = np.random.default_rng(seed)
    x = np.clip(x0 + rng.uniform(-0.03, 0.03, x0.shape), 0, 1)
    e = encoded(network, x0, 0.03)
    inside = np.clip(x, *UNIT.ball(x0, 0.03)).reshape(-1)
    steps = (inside[e.moving] - e.origin.reshape(-1)[e.moving]) / e.radius
    expected = logits(network)(inside.reshape(1, *x0.shape))[0]
    for k in range(2):
        for sign in (1.0, -1.0):
            objective = e.logits.take(np.array([k])).scale(np.array([sign]))
            fixed = [(e.steps.take(np.array([i])), s - 1e-12, s + 1e-12) for i, s in enumerate(steps)]
            s = HIGHS.solve(e.model.problem(objective, *fixed), SolverOptions(threads=1))
            assert s.status is SolverStatus.OPTIMAL
            assert s.objective == pytest.approx(sign * expected[k], abs=1e-5)
            assert s.x is not None
            assert np.abs(e.point(s.x).reshape(-1) - inside).max() < 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_optima_lie_inside_bounds_and_are_attained(seed: int) -> None:
    # convolutions are hard at once: a smaller ball
    network, radius = (random_network(seed + 50, kind="dense"), 0.2) if seed < 4 else (random_network(seed + 50, kind="conv"), 0.01)
    x0, _ = anchor(network, seed)
    lower, upper = UNIT.ball(x0, radius)
    bounds = compute_bounds(network, lower, upper, "crown")
    e = encoded(network, x0, radius)
    low = HIGHS.solve(e.model.problem(e.logits.take(np.array([0]))), SolverOptions(threads=1))
    assert low.x is not None
    assert bounds.output[0][0, 0] - 1e-6 <= low.bound
    assert logits(network)(e.point(low.x)[None])[0, 0] == pytest.approx(low.objective, abs=1e-5)
    samples = np.random.default_rng(seed).uniform(lower, upper, (2000, *x0.shape))
    assert logits(network)(samples)[:, 0].min() >= low.bound - 1e-6


def test_distance_column_is_the_maximum_norm() -> None:
    network = random_dense(0, 3, 4, 2)
    x0 = np.array([0.0, 0.5, 0.95])
    e = encoded(network, x0, 0.3)
    distance = e.add_distance()
    want = np.array([0.1, 0.35, 1.0])
    fixed = [(e.steps.take(np.array([i])), s, s) for i, s in enumerate((want - x0) / e.radius)]
    s = HIGHS.solve(e.model.problem(distance, *fixed), SolverOptions())
    assert s.objective == pytest.approx(0.15, abs=1e-9)
    # the first element cannot move down and the last one hardly up
    without = encoded(network, x0, 0.3).model.problem(LinExpr.constants(np.zeros(1)))
    assert e.model.problem(distance).rows == without.rows + 5


def test_elements_that_cannot_move_have_no_column() -> None:
    network = random_dense(1, 4, 3, 2)
    x0 = np.full(4, 0.5)
    lower, upper = x0 - 0.1, x0 + 0.1
    lower[2] = upper[2] = 0.45
    bounds = compute_bounds(network, lower, upper, "crown")
    e = encode_network(network, x0, lower, upper, {name: bounds.arrays(name) for name in bounds.pre}, radius=0.1)
    assert e.moving.tolist() == [0, 1, 3]
    assert e.point(np.zeros(e.model.columns))[2] == 0.45


def test_tiny_coefficients_move_the_ends_outward() -> None:
    m = MilpModel({})
    x = m.continuous(np.array([-2.0, 0.0]), np.array([1.0, 5.0]))
    m.rows(LinExpr(sp.csr_array(np.array([[1.0, 3e-10]])), np.zeros(1)), 0.5, 1.0)
    p = m.problem(x.take(np.array([0])))
    assert p.A.nnz == 1
    assert p.row_lower[0] == pytest.approx(0.5 - 1.5e-9, abs=1e-15)
    assert p.row_upper[0] == pytest.approx(1.0 + 1.5e-9, abs=1e-15)


def test_tiny_coefficient_of_an_unbounded_column_is_refused() -> None:
    m = MilpModel({})
    x = m.continuous(np.array([-2.0, 0.0]), np.array([1.0, np.inf]))
    m.rows(LinExpr(sp.csr_array(np.array([[1.0, 3e-10]])), np.zeros(1)), 0.5, 1.0)
    with pytest.raises(ValueError, match="without bounds"):
        m.problem(x.take(np.array([0])))


def test_short_rows_need_no_variable() -> None:
    m = MilpModel({})
    x = m.continuous(np.zeros(3), np.ones(3))
    y = LinExpr(sp.csr_array(np.array([[2.0, 0, 0], [1.0, 1.0, 0], [0, 0, 0]])), np.array([1.0, 2.0, 3.0]))
    z = m.variables(y, np.zeros(3), np.full(3, 9.0))
    assert m.columns == 4
    point = np.array([0.25, 0.5, 0.0, 2.75])
    assert (z.widened(4).matrix @ point + z.constant).tolist() == [1.5, 2.75, 3.0]
    assert m.problem(x.take(np.array([0]))).rows == 1


def test_dense_fill_is_cut_by_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_dense(3, 12, 10, 10, 10, 3)
    x0, _ = anchor(network, 3)
    plain = encoded(network, x0, 0.05)
    monkeypatch.setattr(build, "_LARGE", 0)
    monkeypatch.setattr(build, "_FILL", 0.0)
    cut = encoded(network, x0, 0.05)
    assert cut.model.columns > plain.model.columns
    for k in range(3):
        values = [HIGHS.solve(e.model.problem(e.logits.take(np.array([k]))), SolverOptions()).objective for e in (plain, cut)]
        assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_every_input_is_a_column_of_its_own_size() -> None:
    network = random_dense(2, 3, 4, 2)
    x0 = np.array([10.0, 1e-7, 0.5])
    lower, upper = x0 - np.array([1e5, 2e-7, 0.0]), x0 + np.array([3e4, 1e-7, 1e5])
    bounds = compute_bounds(network, lower, upper, "crown")
    e = encode_network(network, x0, lower, upper, {name: bounds.arrays(name) for name in bounds.pre})
    low, high = (ends[e.steps.matrix.indices] for ends in e.model.column_ends())
    most = np.maximum(-low, high)
    assert (most <= 2.0).all()
    assert (most > 0.5).all()
    assert e.radius == 1e5
    assert e.units[[0, 2]].tolist() == [1e5, 1e5]  # an element that has the room of the ball keeps its unit
    # units differ by powers of two, so nothing is rounded
    assert np.frexp(e.units[1] / e.radius)[0] == 0.5
    distance = e.add_distance()
    for at, want in ((low, 1e5), (high, 1e5), ([0.0, high[1], 0.0], 0.0)):
        fixed = [(e.steps.take(np.array([i])), s, s) for i, s in enumerate(at)]
        s = HIGHS.solve(e.model.problem(distance, *fixed), SolverOptions())
        assert s.x is not None
        x = e.point(s.x)
        np.testing.assert_allclose(x, x0 + e.units * np.array(at))
        assert s.objective == pytest.approx(want, abs=1e-3)


@pytest.mark.parametrize("verifier", ["bab", "milp"])
@pytest.mark.parametrize("seed", range(4))
def test_a_lower_end_holds_for_features_of_very_different_size(seed: int, verifier: str) -> None:
    # the small feature is as wide as 1e-10 of the large one: in units of that one a solver could not see it move
    rng = np.random.default_rng(seed)
    size = np.array([4e4, 3e-6, 2.0])
    lower, upper = -size * rng.uniform(0.5, 2.0, 3), size * rng.uniform(0.5, 2.0, 3)
    x0 = (lower + (upper - lower) * rng.uniform(0.3, 0.7, 3)).astype(np.float32)
    first, second = rng.normal(size=(5, 3)) / size, rng.normal(size=(2, 5))
    network = dense((first, 0.3 * rng.normal(size=5)), (second, 0.1 * rng.normal(size=2)))
    label = int(logits(network)(x0[None])[0].argmax())
    r = measured(network, x0, label, InputSpace(lower, upper), verifier=verifier, replay=logits(network), timeout=3.0)
    # the nearest of many points that have another class
    points = lower + (upper - lower) * rng.random((40000, 3))
    f = logits(network)(points)
    near = np.abs(points - x0).max(axis=1)[f[:, 1 - label] > f[:, label]].min(initial=np.inf)
    assert r.lower <= near * (1 + 1e-6)
