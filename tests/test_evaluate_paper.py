"""`evaluate --protocol paper`: the reference experiment, by hand, against exact distances, and where the attack misleads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import onnxsub
from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.evaluate import paper_runs
from onnxsub.evaluate.distances import _selected, find_attack, find_original, find_substitute
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.paper import halved, precision_of
from onnxsub.evaluate.paper_attack import paper_attack
from onnxsub.evaluate.paper_summary import paper_figures
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.run import LEDGER, evaluate
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.evaluate.solver_runs import run_statistics
from onnxsub.evaluate.summary import summarise
from onnxsub.evaluate.task import Attacked, Task
from onnxsub.instance import Instance
from onnxsub.passes.certify import keeps_its_pieces
from onnxsub.passes.equal_radius import equal_radius
from onnxsub.pruning.prune import Adversarial, PruneOptions, build_substitute
from onnxsub.query import Query
from onnxsub.verifiers.box.model import BoxModel
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.programs.solvers.base import Solution, SolverStatus
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.verify import VerifyOptions, VerifyResult
from tests.evaluate_tools import rows
from tests.random_models import random_model
from tests.report_tools import ROW_LIKE

PRECISION, INTERVAL = 0.01, 0.5
SAMPLES = 6
CELL = INTERVAL / 64  # the first half of it that is not wider than the precision


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network of eleven units, three of whose adversarial points are none of their `act` substitutes."""
    folder = tmp_path_factory.mktemp("paper")
    onnx.save(random_model(18, kind="dense", classes=3), folder / "net.onnx")
    np.savez(folder / "data.npz", x=np.random.default_rng(0).random((10, 6)).astype(np.float32)[:SAMPLES])
    return folder / "net.onnx", folder / "data.npz"


@pytest.fixture(scope="module")
def run(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the protocol, finished."""
    folder = tmp_path_factory.mktemp("paper") / "run"
    settings = Settings(protocol="paper", gammas=(0.9,), tol=PRECISION)
    plan = Plan.of((str(files[0]),), read_samples(str(files[1]), Choice(), labels="predicted"), settings)
    result = evaluate(plan, folder)
    assert result.counts["failed"] == 0, result.failures
    return folder


def query_of(files: tuple[Path, Path], index: int) -> Query:
    with np.load(files[1]) as archive:
        return onnxsub.make_query(files[0], archive["x"][index], threads=1)


def task_of(
    query: Query, settings: Settings, method: str | None = None, attacked: Attacked | None = None, verifier: str = "milp"
) -> Task:
    gamma = None if method is None else 0.9
    return Task(1, "original", "", "", query.x0, query.label, method, gamma, verifier, settings, 1, attacked)


def attacked_of(query: Query, settings: Settings) -> Attacked:
    found = find_attack(task_of(query, settings), query)
    assert found.point is not None
    return Attacked(found.result["d_adv"], found.point, found.result["adversarial_label"], found.result["margin"])


def test_the_distance_is_that_of_its_cell(run: Path, files: tuple[Path, Path]) -> None:
    """Every target is decided on so small a network: the exact distance lies in the last interval of the bisection."""
    for row in rows(run)[::3]:
        d = onnxsub.distance(query_of(files, row.index)).upper
        assert row.protocol_bnd is not None
        assert row.certain_bnd
        cell = min(INTERVAL, CELL * np.ceil(min(d, INTERVAL) / CELL))
        assert row.protocol_bnd == pytest.approx(cell, abs=1e-9), (row.index, d)
        if d < INTERVAL:
            assert row.status_bnd == "exact"
            assert row.d_bnd_lower is not None
            assert row.d_bnd_upper is not None
            assert row.d_bnd_lower - 1e-6 <= d <= row.d_bnd_upper + 1e-6


def test_a_point_that_is_not_adversarial_for_the_substitute_leaves_no_cell_empty(run: Path, files: tuple[Path, Path]) -> None:
    settings = Settings(protocol="paper", gammas=(0.9,), tol=PRECISION)
    missed = 0
    for row in rows(run):
        if row.method != "act" or row.status_hat == "none":
            continue
        query = query_of(files, row.index)
        point = attacked_of(query, settings)
        via = PruneOptions(method="act", select=_selected(settings, 0.9, query.network.units_and_windows))
        g = build_substitute(query, via, Adversarial(point.x_adv, point.d_adv, point.adversarial_label))
        logits = g.network.forward(torch.as_tensor(np.array(point.x_adv), dtype=torch.float64)[None])[0].detach().numpy()
        if logits.argmax() == query.label:
            missed += 1
            assert row.protocol_hat is not None
            assert row.protocol_bnd is not None
            assert 0 < row.protocol_hat <= INTERVAL
    assert missed >= 3, "the network is no test of it any more; take another seed"
    (cell,) = [line for line in summarise(rows(run)) if line.method == "act"]
    assert (cell.samples, cell.counted, cell.misclassified, cell.failed) == (SAMPLES, SAMPLES, 0, 0)
    assert None not in (cell.difference, cell.sd, cell.attack_difference)
    (line,) = paper_lines(run, "act")
    assert line["certain"] > 0
    assert line["certain_difference"] is not None


def answers(query: Query, point: Attacked, *ways: tuple[Settings, str]) -> Iterator[tuple[str | None, list[Mapping[str, Any]]]]:
    """The network (None) and each kind of substitute, and what settings and verifiers come to there."""
    for method in (None, "con", "lin", "act"):
        find = find_original if method is None else find_substitute
        yield method, [find(task_of(query, s, method, point, verifier), query).result for s, verifier in ways]


def paper_lines(run: Path, method: str) -> list[dict[str, Any]]:
    return [dict(paper_figures([r for r in rows(run) if r.method == method]))]


def test_known_points_save_programs_and_change_no_distance(files: tuple[Path, Path]) -> None:
    plain, saved = (Settings(protocol="paper", tol=PRECISION, known_points=known) for known in (False, True))
    spared = 0
    for index in range(2):
        query = query_of(files, index)
        point = attacked_of(query, plain)
        for method, (one, other) in answers(query, point, (plain, "milp"), (saved, "milp")):
            assert (one["protocol"], one["radii"]) == (other["protocol"], other["radii"]), (index, method)
            assert other["lower"] <= one["protocol"]
            assert other["runs"] <= one["runs"]
            spared += one["runs"] - other["runs"]
            if method is None:
                assert all(radius < other["upper"] or outcome != "reached" for _, radius, _, outcome in other["solver_runs"])
                assert max((r for _, r, _, _ in other["solver_runs"]), default=0.0) < point.d_adv
    assert spared > 0


def test_network_and_substitutes_are_asked_about_the_same_radii(run: Path) -> None:
    with Ledger(run / LEDGER, readonly=True) as ledger:
        results = [u.result for u in ledger.units() if u.kind != "attack" and u.result and "protocol" in u.result]
    attacked = sum(r.method == "act" and r.status_hat != "none" for r in rows(run))
    assert attacked == SAMPLES
    assert len(results) == SAMPLES + 3 * attacked
    for result in results:
        grid = {round(log[1] / CELL, 6) for log in result["solver_runs"]}
        assert all(place == int(place) for place in grid)
        assert result["radii"] == 6  # 0.25 to 0.5 / 64
        assert round(result["protocol"] / CELL, 9).is_integer()
        assert {log[3] for log in result["solver_runs"]} <= {"none", "reached", "undecided"}


def test_undecided_is_not_verified_and_the_search_goes_on(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver that never decides: radii that bounds do not prove are not verified, and the answer is not certain."""
    query, settings = query_of(files, 0), Settings(protocol="paper", tol=PRECISION)
    point = Attacked(INTERVAL, query.x0, 0, 0.0)
    limits: list[float] = []

    def never(self: Session, problem: Any, options: Any, seconds: float = 0.0, share: float = 1.0) -> Solution:
        limits.append(seconds)
        return Solution(SolverStatus.TIME_LIMIT, None, None, -np.inf, 0, 1.0)

    monkeypatch.setattr(Session, "solve", never)
    result = find_original(task_of(query, settings, attacked=point), query).result
    assert limits
    assert all(0 < s <= 60 for s in limits)
    assert result["radii"] == 6
    # the first target that fails ends a radius: one run each
    assert result["radii_undecided"] == result["runs"] == len(limits)
    assert len({radius for _, radius, _, _ in result["solver_runs"]}) == result["runs"]
    assert result["protocol"] <= min(radius for _, radius, _, _ in result["solver_runs"])
    # the attack's point does not steer the search, and its radius is beyond what was "not verified"
    assert not result["certain"]
    assert result["upper"] >= result["protocol"]


@pytest.mark.parametrize("known", [False, True])
def test_branch_and_bound_comes_to_the_same_distances(files: tuple[Path, Path], known: bool) -> None:
    settings = Settings(protocol="paper", tol=PRECISION, verifiers=("milp", "bab"), known_points=known)
    runs = 0
    for index in range(3):
        query = query_of(files, index)
        for _, (one, other) in answers(query, attacked_of(query, settings), (settings, "milp"), (settings, "bab")):
            assert (one["protocol"], one["radii"], one["status"]) == (other["protocol"], other["radii"], other["status"])
            assert other["certain"]
            assert {log[3] for log in other["solver_runs"]} <= {"none", "reached"}
            assert all(log[0] is None for log in other["solver_runs"])
            assert len({log[1] for log in other["solver_runs"]}) == other["runs"] <= other["radii"]
            runs += other["runs"]
    assert runs > 0


def test_what_branch_and_bound_leaves_open_is_not_verified(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    query, settings = query_of(files, 0), Settings(protocol="paper", tol=PRECISION, timeout=7.0, radius_timeout=5.0)
    limits: list[float | None] = []
    decide = paper_runs.decide_ball

    def never(instance: Instance, radius: float, options: VerifyOptions) -> VerifyResult:
        limits.append(options.limits.timeout)
        found = decide(instance, radius, options)
        assert found.targets
        first = next(iter(found.targets))
        return replace(found, status="unknown", witness=None, targets={**found.targets, first: "unknown"})

    monkeypatch.setattr(paper_runs, "decide_ball", never)
    result = find_original(task_of(query, settings, verifier="bab"), query).result
    assert result["runs"] == result["radii_undecided"] == len(limits) > 0
    assert all(limit is not None and 0 < limit <= 5.0 for limit in limits)  # what its bounds left of the limit of a radius
    assert not result["certain"]
    assert result["protocol"] <= min(radius for _, radius, _, _ in result["solver_runs"])


@pytest.mark.parametrize("verifier", ["milp", "bab"])
def test_bounds_have_the_limit_of_a_run(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, verifier: str) -> None:
    """What a large network is folded to took 26 minutes to bound, where a run had 20 s."""
    query, settings = query_of(files, 0), Settings(protocol="paper", tol=PRECISION, timeout=7.0)
    local, late = Bracket.local, list[float]()

    def bounded(search: Bracket, radius: float, *, branching: bool = False, budget: Budget | None = None) -> BoxModel:
        assert branching == (verifier == "bab")
        assert budget is not None
        assert 0 < budget.remaining <= 7.0
        if radius > 0.05:
            late.append(radius)
            raise OutOfTime
        found = local(search, radius, branching=branching, budget=budget)
        assert found.how.budget is search.budget  # what comes after the bounds has limits of its own
        return found

    monkeypatch.setattr(Bracket, "local", bounded)
    result = find_original(task_of(query, settings, verifier=verifier), query).result
    assert late
    assert result["radii"] > result["radii_undecided"] == len(late)
    assert result["protocol"] == min(late)
    assert not result["certain"]
    if verifier == "bab":
        assert [log[1] for log in result["solver_runs"] if log[3] == "undecided"] == late


def test_the_protocol_is_for_verifiers_of_ours() -> None:
    for options in ({"verifiers": ("marabou",)}, {"refine": True}):
        with pytest.raises(InputError, match="defined for --verifier milp or bab without --refine"):
            Settings(protocol="paper", **options)


def test_a_radius_has_a_limit_of_its_own(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    query = query_of(files, 0)
    settings = Settings(protocol="paper", tol=PRECISION, radius_timeout=1e-9)
    result = find_original(task_of(query, settings), query).result
    assert result["solver_runs"] == []
    assert result["radii_undecided"] > 0


@pytest.mark.parametrize(
    ("gamma", "units", "kept"), [(0.9, 4804, 481), (0.9, 4800, 480), (0.99, 4804, 49), (0.99, 100, 1), (0.0, 7, 7), (1.0, 7, 0)]
)
def test_at_most_a_share_is_a_ceiling(gamma: float, units: int, kept: int) -> None:
    assert _selected(Settings(protocol="paper"), gamma, units).keep == kept
    assert _selected(Settings(), gamma, units).pruned_of(units) == round(gamma * units)


def test_the_precision_is_that_of_the_data_set() -> None:
    paper = Settings(protocol="paper")
    assert precision_of(paper, (1, 28, 28)) == precision_of(paper, (784,)) == 1e-2
    assert precision_of(paper, (3, 32, 32)) == 1e-3
    assert precision_of(replace(paper, tol=0.3), (3, 32, 32)) == 0.3
    with pytest.raises(InputError, match=r"--interval 0\.005 is not larger than the precision 0\.01"):
        precision_of(replace(paper, interval=0.005), (1, 28, 28))
    with pytest.raises(InputError, match="no published precision for inputs of shape"):
        precision_of(paper, (4,))


@pytest.mark.parametrize(("distance", "low", "high"), [(0.3, 0.296875, 0.3046875), (0.6, 0.4921875, 0.5), (0.0, 0.0, 0.0078125)])
def test_bisection_by_hand(distance: float, low: float, high: float) -> None:
    assert halved(0.5, 1e-2, lambda r: r < distance) == (low, high)


def test_the_attack_bisects_without_chance(files: tuple[Path, Path]) -> None:
    query = next(q for q in (query_of(files, i) for i in range(SAMPLES)) if paper_attack(q, INTERVAL, 0.1).found)
    first, again = (paper_attack(query, INTERVAL, 1e-3) for _ in range(2))
    assert first.found
    assert first.x_adv is not None
    assert again.d_adv == first.d_adv
    assert query.margins(first.x_adv[None])[0][0] > 0
    assert first.d_adv <= 0.35
    exact = onnxsub.distance(query).upper
    assert exact - 1e-6 <= first.d_adv


def test_runs_are_counted_over_the_radii_of_the_network() -> None:
    bnd = [[1, 0.2, 3.0, "none"], [1, 0.4, 5.0, "reached"]]
    hat = [[1, 0.1, 100.0, "none"], [1, 0.2, 1.0, "none"], [2, 0.3, 2.0, "none"], [1, 0.5, 100.0, "reached"]]
    found = run_statistics(bnd, hat)
    assert (found["timed_bnd"], found["run_s_bnd"], found["timed_hat"], found["run_s_hat"]) == (2, 4.0, 2, 1.5)
    assert found["run_sd_bnd"] == pytest.approx(2**0.5)
    assert run_statistics(bnd, hat[:1])["run_s_hat"] is None
    assert run_statistics(None, hat)["timed_hat"] is None


def test_times_are_pooled_over_runs_of_samples_with_both_sides() -> None:
    """Against all seconds in one list."""
    logs = [
        ([[1, 0.25, 60.0, "undecided"], [1, 0.125, 2.0, "none"]], [[1, 0.25, 1.0, "reached"]]),
        ([[1, 0.25, 40.0, "reached"]], [[1, 0.25, 3.0, "none"], [2, 0.25, 5.0, "reached"], [1, 0.1, 9.0, "none"]]),
        ([[1, 0.25, 50.0, "undecided"]], []),  # bounds proved the substitute: no run, no part of the quotient
    ]
    made = [
        replace(ROW_LIKE, index=i, protocol_bnd=0.2, protocol_hat=0.3, certain_bnd=i < 1, certain_hat=True, time_prune=0.6,
                **run_statistics(*log))
        for i, log in enumerate(logs)
    ]  # fmt: skip
    line = paper_figures(made)
    without, with_ = np.array([60.0, 2.0, 40.0]), np.array([1.0, 3.0, 5.0])
    assert (line["paired"], line["runs_bnd"], line["runs_hat"]) == (2, 3, 3)
    assert line["run_bnd_s"] == pytest.approx(without.mean())
    assert line["run_bnd_sd"] == pytest.approx(without.std(ddof=1))
    assert line["run_hat_sd"] == pytest.approx(with_.std(ddof=1))
    assert line["run_prune_s"] == pytest.approx(1.2 / 3)
    assert line["run_speed_up"] == pytest.approx(without.mean() / (with_.mean() + 0.4))
    assert (line["certain"], line["certain_difference"]) == (1, pytest.approx(0.5))


def test_act_is_the_network_up_to_a_radius(files: tuple[Path, Path]) -> None:
    """Proved by bounds, hence true of sampled points; three per cent farther it is not proved any more."""
    settings, tried = Settings(protocol="paper", tol=PRECISION), 0
    for index in range(SAMPLES):
        query = query_of(files, index)
        attacked = find_attack(task_of(query, settings), query)
        if attacked.point is None or tried == 3:
            continue
        tried += 1
        point = Attacked(attacked.result["d_adv"], attacked.point, attacked.result["adversarial_label"], attacked.result["margin"])
        found = find_substitute(task_of(query, settings, "act", point), query).result
        via = PruneOptions(method="act", select=_selected(settings, 0.9, query.network.units_and_windows))
        g = build_substitute(query, via, Adversarial(point.x_adv, point.d_adv, point.adversarial_label)).network
        ball: Callable[[float], Any] = lambda r, q=query: q.space.ball(q.x0, r)  # noqa: E731
        radius = equal_radius(query.network, g, ball, INTERVAL, anchor=query.x0)
        assert found["equal_radius"] == radius
        assert radius > 0
        assert not keeps_its_pieces(query.network, g, ball(radius * 1.04), anchor=query.x0)
        low, high = ball(radius)
        x = low + (high - low) * np.random.default_rng(index).random((200, *query.x0.shape))
        with torch.no_grad():
            f, h = (n.forward(torch.as_tensor(x)).numpy() for n in (query.network, g))
        np.testing.assert_allclose(h, f, atol=1e-6)
