"""The minimum distance: against grids, between searches and solvers, at every moment a bracket."""

from __future__ import annotations

import _thread
import json
import threading

import numpy as np
import pytest

from onnxsub.errors import InputError, MissingDependencyError
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from onnxsub.verifiers.programs.solvers import SOLVERS
from onnxsub.verifiers.result import DistanceResult
from tests.random_models import PIECEWISE
from tests.verifiers.nets import UNIT, anchor, dense, exact_options, logits, measured, random_dense, random_network, worst


def solve(network, x0, label, space=UNIT, **options) -> DistanceResult:
    options.setdefault("threads", 1)
    return measured(network, x0, label, space, replay=logits(network), **options)


def check(network, x0, label, r: DistanceResult) -> None:
    """What every result promises."""
    assert 0 <= r.lower <= r.upper
    assert r.status in ("exact", "bracket", "misclassified", "none")
    if r.status == "exact":
        assert r.upper - r.lower <= r.settings["tol"]
    for t, result in r.targets.items():
        assert t != label
        assert result.lower <= result.upper
        assert result.lower >= r.lower - 1e-12
    if np.isfinite(r.upper):
        assert r.witness is not None
        assert r.witness.confirmed
        assert r.witness.x.dtype == np.float32
        assert np.abs(r.witness.x.astype(np.float64) - x0).max() == pytest.approx(r.upper, abs=1e-12)
        margin = worst(network, label, r.witness.x[None])[0]
        assert margin == pytest.approx(r.witness.margin, abs=1e-9)
        assert margin >= -2e-5
        assert (margin > 0) == (r.witness.kind == "strict")


def grid_distance(network, x0, label: int, steps: int) -> tuple[float, float]:
    """Distance of the nearest grid point that is reached, and the grid's half step."""
    axes = [np.linspace(0, 1, steps)] * len(x0)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(x0))
    reached = points[worst(network, label, points) >= 0]
    return (np.abs(reached - x0).max(1).min() if len(reached) else np.inf), 0.5 / (steps - 1)


@pytest.mark.parametrize("seed", range(12))
def test_against_a_grid_in_two_and_three_dimensions(seed: int) -> None:
    n = 2 + seed % 2
    network = random_dense(seed, n, 6, 5, 3)
    x0, label = anchor(network, seed)
    r = solve(network, x0, label)
    check(network, x0, label, r)
    grid, half = grid_distance(network, x0, label, 400 if n == 2 else 70)
    if r.status == "none":
        assert grid == np.inf
        return
    assert r.status == "exact"
    assert r.lower <= grid + 1e-9
    # a grid point within one step of the witness need not be reached, but never may one be nearer
    assert worst(network, label, x0[None])[0] < 0
    ball = UNIT.ball(x0, r.lower * (1 - 1e-9))
    inside = np.random.default_rng(seed).uniform(*ball, (20000, n))
    assert (worst(network, label, inside) < 0).all()
    if np.isfinite(grid):
        assert r.upper <= grid + 4 * half


def test_known_distance() -> None:
    # f_1 - f_0 = |x - 0.5| - 0.2 >= 0 at x <= 0.3 and x >= 0.7
    network = dense(([[1.0], [-1.0]], [-0.5, 0.5]), ([[0.0, 0.0], [1.0, 1.0]], [0.2, 0.0]))
    for search in ("direct", "bisect"):
        r = solve(network, np.array([0.45], dtype=np.float32), 0, search=search)
        assert r.status == "exact"
        assert r.upper == pytest.approx(0.15, abs=2e-6)
        assert r.lower <= 0.15 + 1e-9
        assert r.adversarial_label == 1


def test_known_distance_in_another_domain() -> None:
    network = dense(([[1.0], [-1.0]], [-50.0, 50.0]), ([[0.0, 0.0], [1.0, 1.0]], [20.0, 0.0]))
    r = solve(network, np.array([45.0], dtype=np.float32), 0, InputSpace(0, 255), tol=1e-3)
    assert r.status == "exact"
    assert r.upper == pytest.approx(15.0, abs=2e-3)


@pytest.mark.parametrize("search", ["direct", "bisect"])
def test_no_boundary_inside_the_domain(search: str) -> None:
    network = dense(([[1.0], [-1.0]], [-0.5, 0.5]), ([[0.0, 0.0], [1.0, 1.0]], [0.8, 0.0]))
    r = solve(network, np.array([0.45], dtype=np.float32), 0, search=search)
    assert (r.status, r.lower, r.upper, r.witness) == ("none", np.inf, np.inf, None)
    document = json.loads(dumps(r))
    assert document["distance"] is None
    assert document["adversarial_label"] is None


def test_boundary_at_the_end_of_the_domain() -> None:
    # |x - 0.5| >= 0.5 at the two ends only
    network = dense(([[1.0], [-1.0]], [-0.5, 0.5]), ([[0.0, 0.0], [1.0, 1.0]], [0.5, 0.0]))
    r = solve(network, np.array([0.25], dtype=np.float32), 0)
    assert r.status == "exact"
    assert r.upper == pytest.approx(0.25, abs=1e-6)
    assert r.witness is not None
    assert r.witness.kind in ("tie", "strict")


def test_misclassified_and_tied_anchors() -> None:
    network = dense(([[1.0], [-1.0]], [0.0, 1.0]))
    wrong = solve(network, np.array([0.25], dtype=np.float32), 0)
    assert (wrong.status, wrong.lower, wrong.upper) == ("misclassified", 0.0, 0.0)
    assert wrong.adversarial_label == 1
    tied = solve(network, np.array([0.5], dtype=np.float32), 0)
    assert (tied.status, tied.upper) == ("exact", 0.0)
    assert tied.witness is not None
    assert tied.witness.kind == "tie"


@pytest.mark.parametrize("seed", range(10))
def test_direct_is_bisect(seed: int) -> None:
    network = random_network(seed, activations=PIECEWISE, kind=("dense", "conv", "residual")[seed % 3] if seed < 4 else "dense")
    x0, label = anchor(network, seed)
    solver = "scip" if SOLVERS["scip"].is_available() else "highs"
    direct, bisect = (solve(network, x0, label, search=s, solver=solver) for s in ("direct", "bisect"))
    for r in (direct, bisect):
        check(network, x0, label, r)
    assert direct.status == bisect.status != "bracket"
    if direct.status == "exact":
        assert abs(direct.upper - bisect.upper) <= 1e-5
        assert max(direct.lower, bisect.lower) <= min(direct.upper, bisect.upper)


@pytest.mark.parametrize("seed", range(20, 28))
def test_solvers_agree(seed: int) -> None:
    network = random_network(seed, activations=("Relu", "LeakyRelu"), kind="dense")
    x0, label = anchor(network, seed)
    results = [solve(network, x0, label, solver=name) for name, s in SOLVERS.items() if s.is_available()]
    assert {r.status for r in results} in ({"exact"}, {"none"})
    for r in results:
        check(network, x0, label, r)
        if r.status == "exact":
            assert abs(r.upper - results[0].upper) <= 1e-5


@pytest.mark.parametrize("change", [{"tighten": "none"}, {"fold": "never"}, {"bounds_method": "ibp"}, {"attack": False}])
@pytest.mark.parametrize("seed", [1, 3, 30])
def test_every_way_gives_the_same(seed: int, change: dict[str, object]) -> None:
    network = random_network(seed, kind="dense")
    x0, label = anchor(network, seed)
    reference, other = solve(network, x0, label), solve(network, x0, label, **change)
    check(network, x0, label, other)
    assert other.status == reference.status
    if reference.status == "exact":
        assert abs(other.upper - reference.upper) <= 1e-5


def test_minimising_the_distance_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (2, 5, 31):
        network = random_network(seed, kind="dense")
        x0, label = anchor(network, seed)
        decided = solve(network, x0, label)
        with monkeypatch.context() as patched:
            # nothing is decided: what is left is to minimise the distance of every class
            patched.setattr("onnxsub.verifiers.milp.distance._decide", lambda *_: "stuck")
            minimised = solve(network, x0, label)
        check(network, x0, label, minimised)
        assert minimised.status == decided.status
        if decided.status == "exact":
            assert abs(minimised.upper - decided.upper) <= 1e-5


def test_a_good_start_point_is_used_and_a_bad_one_ignored() -> None:
    network = random_dense(4, 3, 6, 3)
    x0, label = anchor(network, 4)
    reference = solve(network, x0, label)
    assert reference.witness is not None
    for start in (reference.witness.x, x0, np.ones(3, dtype=np.float32)):
        r = measured(network, x0, label, threads=1, start=start, replay=logits(network))
        assert r.status == "exact"
        assert abs(r.upper - reference.upper) <= 1e-5


def test_the_replay_has_the_last_word() -> None:
    network = random_dense(6, 3, 6, 3)
    x0, label = anchor(network, 6)
    safe = np.zeros(3)
    safe[label] = 1.0
    r = measured(network, x0, label, threads=1, replay=lambda x: np.tile(safe, (len(x), 1)))
    assert r.status in ("bracket", "none")
    assert r.upper == np.inf
    assert r.adversarial_label is None
    if r.status == "bracket":
        assert r.witness is not None
        assert r.witness.kind == "rejected"


def hard():
    network = random_dense(0, 30, 60, 60, 60, 10)
    x0, label = anchor(network, 0)
    return network, x0, label


def test_time_limit_returns_a_bracket() -> None:
    network, x0, label = hard()
    r = solve(network, x0, label, timeout=1.0, tol=1e-9)
    check(network, x0, label, r)
    assert not r.interrupted
    assert r.status in ("bracket", "exact")
    assert r.upper < np.inf


def test_ctrl_c_returns_a_bracket() -> None:
    network, x0, label = hard()
    timer = threading.Timer(1.0, _thread.interrupt_main)
    timer.start()
    r = solve(network, x0, label, tol=1e-9)
    timer.join()
    check(network, x0, label, r)
    assert r.interrupted
    assert json.loads(dumps(r))["interrupted"] is True


def test_progress_is_a_narrowing_bracket() -> None:
    network = random_dense(8, 4, 8, 8, 4)
    x0, label = anchor(network, 8)
    seen: list[tuple[float, float]] = []
    r = measured(
        network, x0, label, threads=1, search="bisect", replay=logits(network),
        progress=lambda lower, upper, text: seen.append((lower, upper)),
    )  # fmt: skip
    assert len(seen) > 2
    lowers, uppers = zip(*seen, strict=True)
    assert list(lowers) == sorted(lowers)
    assert list(uppers) == sorted(uppers, reverse=True)
    assert lowers[-1] <= r.upper


def test_json_has_the_keys_of_the_contract() -> None:
    network = random_dense(4, 3, 6, 3)
    x0, label = anchor(network, 4)
    document = json.loads(dumps(solve(network, x0, label)))
    assert document["schema"] == "onnxsub.distance/1"
    keys = "status distance lower upper adversarial_label witness verifier solver targets nodes time_s settings"
    assert set(keys.split()) <= set(document)
    assert set(document["witness"]) == {"path", "kind", "margin"}
    assert set(document["targets"]["0" if label else "1"]) == {"lower", "upper", "status"}
    assert document["time_s"]["total"] > 0


@pytest.mark.parametrize(
    "bad",
    [{"solver": "cplex"}, {"search": "secant"}, {"tol": 0.0}, {"tol": float("nan")}, {"timeout": 0}, {"threads": 0},
     {"bounds_method": "x"}, {"fold": "x"}, {"feasibility": 1.0}],
)  # fmt: skip
def test_options_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(InputError) as e:
        exact_options(**bad)
    assert "\n" not in str(e.value)


def test_missing_solver_is_said_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise MissingDependencyError('solver scip is not installed; run pip install "onnxsub[scip]"')

    monkeypatch.setattr(type(SOLVERS["scip"]), "module", refuse)
    network, x0, label = hard()
    with pytest.raises(MissingDependencyError, match="pip install"):
        solve(network, x0, label, solver="scip")
