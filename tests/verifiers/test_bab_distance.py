"""Branch and bound against the MILP: two methods, one answer; and what limits and interruptions leave standing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch

from onnxsub.budget import Budget
from onnxsub.errors import InputError, UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.nodes import Waiting
from onnxsub.verifiers.bab.question import Question
from onnxsub.verifiers.bab.radius import Asked, Schedule
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.options import BabOptions
from tests.random_dags import random_dag
from tests.verifiers.nets import UNIT, anchor, decided, logits, measured, random_dense

GRAPHS = int(os.environ.get("ONNXSUB_GRAPHS", "30"))  # 200: as many as benchmarks/RESULTS.md reports
SLACK = 1e-6  # a replayed tie and a bound may round to different sides


def case(seed: int) -> tuple[Network, Array, int] | None:
    network = lower(load_model(random_dag(seed)))
    if network.classes < 2:
        return None
    x0 = np.random.default_rng(seed).uniform(0.1, 0.9, network.input_shape).astype(np.float32)
    with torch.no_grad():
        label = int(network.forward(torch.tensor(x0[None])).argmax())
    return network, x0, label


def agree(seed: int, timeout: float) -> None:
    found = case(seed)
    if found is None:
        pytest.skip(f"the random graph {seed} has a single class")
    network, x0, label = found
    try:
        one = measured(network, x0, label, timeout=timeout)
    except UnsupportedOperatorError as error:
        pytest.skip(f"the random graph {seed} has no MILP: {error}")
    other = measured(network, x0, label, verifier="bab", timeout=timeout)
    assert other.verifier == "bab"
    if one.status == other.status == "exact":
        assert abs(one.upper - other.upper) <= 1e-5
    elif "none" in (one.status, other.status):
        # whoever proved that there is no boundary: the other found none
        assert math.isinf(one.upper)
        assert math.isinf(other.upper)
    assert one.lower <= other.upper + SLACK
    assert other.lower <= one.upper + SLACK


@pytest.mark.parametrize("seed", [s for s in range(30) if s not in (3, 4, 5, 7, 13, 18, 25, 26)])
def test_the_milp_agrees_on_random_graphs(seed: int) -> None:
    agree(seed, 10.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 18, *range(30, 30 + GRAPHS)])
def test_the_milp_agrees_on_more_random_graphs(seed: int) -> None:
    agree(seed, 5.0)


@pytest.mark.parametrize("seed", range(8))
def test_no_sampled_point_is_nearer(seed: int) -> None:
    network = random_dense(seed, 6, 12, 10, 3)
    x0, label = anchor(network, seed)
    result = measured(network, x0, label, verifier="bab")
    assert result.status in ("exact", "none")
    radius = min(result.lower, 1.0)
    low, high = UNIT.ball(x0, radius * (1 - 1e-6))
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(low, high, (4000, *x0.shape)), np.where(rng.random((4000, *x0.shape)) < 0.5, low, high)])
    f = logits(network)(points)
    assert (f.argmax(axis=1) == label).all()


@pytest.mark.parametrize("seed", range(6))
def test_decisions_on_both_sides_of_the_distance(seed: int) -> None:
    network = random_dense(seed, 6, 12, 10, 3)
    x0, label = anchor(network, seed)
    distance = measured(network, x0, label)
    assert distance.status == "exact"
    below, above = (decided(network, x0, label, eps, verifier="bab") for eps in (0.98 * distance.lower, 1.02 * distance.upper))
    assert (below.status, above.status) == ("proved", "violated")
    assert decided(network, x0, label, 0.98 * distance.lower).status == "proved"
    assert above.witness is not None
    assert above.witness.radius <= 1.02 * distance.upper
    assert above.witness.margin >= 0


def test_a_radius_of_zero_and_numbers_that_are_none() -> None:
    network = random_dense(0, 6, 12, 10, 3)
    x0, label = anchor(network, 0)
    assert decided(network, x0, label, 0.0, verifier="bab").status == "proved"
    for eps in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="not a radius"):
            decided(network, x0, label, eps, verifier="bab")


def test_a_time_limit_leaves_a_bracket_that_holds() -> None:
    network = random_dense(5, 20, 40, 40, 40, 4)
    x0, label = anchor(network, 5)
    result = measured(network, x0, label, verifier="bab", timeout=1.0, attack=True)
    assert result.lower <= result.upper
    if math.isfinite(result.upper):
        assert result.witness is not None
        f = logits(network)(result.witness.x[None].astype(np.float64))[0]
        assert f[label] <= np.delete(f, label).max() + 1e-5 * np.abs(f).max()


def test_ctrl_c_leaves_a_bracket_that_holds() -> None:
    network = random_dense(3, 8, 16, 16, 3)
    x0, label = anchor(network, 3)
    exact = measured(network, x0, label, verifier="bab")
    calls = 0

    def stop(lower: float, upper: float, text: str) -> None:
        nonlocal calls
        calls += 1
        if text == "attack":
            raise KeyboardInterrupt

    result = measured(network, x0, label, verifier="bab", progress=stop)
    assert calls > 0
    assert result.interrupted
    assert result.lower <= exact.upper + SLACK
    assert result.upper >= exact.lower - SLACK


def noted(monkeypatch: pytest.MonkeyPatch, ask: Callable[[Question, Budget], None] = Question.run) -> list[str]:
    """Questions and plain bounds in their order, as they come; `ask` is what a question does."""
    events: list[str] = []
    certify = Bracket.certify

    def run(question: Question, budget: Budget) -> None:
        events.append("question")
        ask(question, budget)

    def bounds(bracket: Bracket) -> None:
        events.append("bounds")
        certify(bracket)

    monkeypatch.setattr(Question, "run", run)
    monkeypatch.setattr(Bracket, "certify", bounds)
    return events


def test_plain_bounds_have_their_say_when_the_first_question_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_dense(3, 8, 16, 16, 3)
    x0, label = anchor(network, 3)
    ask = Question.run

    def first(question: Question, budget: Budget) -> None:
        if len(events) > 1:
            ask(question, budget)
        else:  # something little is proved, then the time is over
            question.goal.prove(1 if label != 1 else 0, 1e-6)

    events = noted(monkeypatch, first)
    assert measured(network, x0, label, verifier="bab").status == "exact"
    assert events[:2] == ["question", "bounds"]
    assert events.count("bounds") == 1
    events.clear()
    measured(network, x0, label, verifier="bab", timeout=1.0)
    assert events[0] == "bounds"  # where time is short they come first


def test_plain_bounds_wait_where_they_are_cheap_and_nothing_may_end_the_search_before(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_dense(2, 30, 100, 100, 4)
    x0, label = anchor(network, 2)
    events = noted(monkeypatch)
    plain = measured(network, x0, label, verifier="bab", timeout=9.0, nodes=1)
    assert events[0] == "bounds"
    assert plain.lower > 0.03
    for options in ({"nodes": 1}, {"nodes": 1, "timeout": 60.0}):
        events.clear()
        assert measured(network, x0, label, verifier="bab", **options).lower >= plain.lower
        assert events[0] == "bounds"
    events.clear()
    found = measured(network, x0, label, verifier="bab", timeout=20.0)
    assert events[0] == "question"
    assert found.lower >= plain.lower


def test_depth_first_when_memory_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_dense(3, 8, 24, 24, 3)
    x0, label = anchor(network, 3)
    exact = measured(network, x0, label)
    monkeypatch.setattr(Waiting, "nbytes", property(lambda node: 2**26))
    result = measured(network, x0, label, verifier="bab", bab=BabOptions(memory=2**26, leaf=0, narrow=0))
    assert result.status == "exact"
    assert abs(result.upper - exact.upper) <= 1e-5


def test_the_same_seed_gives_the_same_answer() -> None:
    network = random_dense(4, 8, 24, 24, 3)
    x0, label = anchor(network, 4)
    one, other = (measured(network, x0, label, verifier="bab") for _ in range(2))
    assert (one.status, one.lower, one.upper, one.nodes) == (other.status, other.lower, other.upper, other.nodes)
    assert one.witness is not None
    assert other.witness is not None
    assert np.array_equal(one.witness.x, other.witness.x)


def test_smooth_activations_have_a_bracket() -> None:
    network, x0, label = case(3) or pytest.fail("the graph has two classes")
    result = measured(network, x0, label, verifier="bab", timeout=5.0)
    assert result.lower <= result.upper
    low, high = UNIT.ball(x0, min(result.lower, 1.0) * (1 - 1e-6))
    points = np.random.default_rng(0).uniform(low, high, (4000, *x0.shape))
    assert (logits(network)(points).argmax(axis=1) == label).all()


@pytest.mark.parametrize("memory", [-1.0, 0.0, math.nan, math.inf])
def test_memory_must_be_a_number_of_gib(memory: float) -> None:
    with pytest.raises(InputError, match="--memory"):
        BabOptions.of_gib(memory)


@pytest.mark.parametrize(("cut", "late"), [(False, math.inf), (True, 0.2)])
def test_a_large_tree_that_came_nearer_goes_on_at_its_radius(cut: bool, late: float) -> None:
    schedule = Schedule()
    schedule.note(0.2, Asked(proved=False, better=True, seconds=5.0, cut=cut))
    assert schedule.late == late
    assert not cut or schedule.radius(0.199, 0.3, 20.0) == 0.2


def answer(seconds: float, *, cut: bool = False, hard: bool = False) -> Asked:
    return Asked(proved=True, better=False, seconds=seconds, tree=seconds - 1, cut=cut, hard=hard)


def test_what_cuts_close_is_no_steeper_once_the_growth_is_known() -> None:
    radii = {}
    for hard in (False, True):
        schedule = Schedule()
        schedule.note(0.10, answer(1.5))
        schedule.note(0.11, answer(3.0, cut=True, hard=hard))
        radii[hard] = schedule.radius(0.11, 0.3, 50.0)
    unknown = Schedule()
    unknown.note(0.11, answer(3.0, cut=True))
    assert 0.11 * 1.01 <= unknown.radius(0.11, 0.3, 50.0) < radii[False]
    assert unknown.radius(0.11, 0.3, 1e6) == pytest.approx(0.11 * 1.015)  # however much time there is
    assert 0.11 * 1.01 <= radii[True] < radii[False] < 0.11 * 1.1


def test_a_step_is_short_where_a_question_is_dear_and_the_growth_unknown() -> None:
    dear, cheap = Schedule(), Schedule()
    dear.note(0.10, answer(4.0))
    cheap.note(0.10, Asked(proved=True, better=False, seconds=0.5, tree=0.2))
    assert 0.101 <= dear.radius(0.10, 0.3, 40.0) <= 0.103 * (1 + 1e-9)
    assert 0.103 < cheap.radius(0.10, 0.3, 40.0) < 0.12
    # what comes before the tree is paid once more in any case: where little more is left, so is the step
    slow = Schedule()
    slow.note(0.10, Asked(proved=True, better=False, seconds=10.0, tree=0.5))
    assert slow.radius(0.10, 0.3, 20.0) == pytest.approx(0.101)


def test_a_tree_that_is_about_to_end_goes_on() -> None:
    radii = {}
    for ending in (False, True):
        schedule = Schedule()
        schedule.note(0.10, answer(4.0))
        schedule.note(0.12, Asked(proved=False, better=False, seconds=9.0, ending=ending))
        radii[ending] = schedule.radius(0.10, 0.3, 20.0)
    assert radii[True] == 0.12
    assert radii[False] < 0.11
    schedule.note(0.12, answer(12.0))
    assert schedule.radius(0.12, 0.3, 20.0) > 0.12


def test_the_last_question_of_a_steep_schedule_gets_all_that_is_left() -> None:
    schedule = Schedule()
    schedule.note(0.10, answer(8.0, cut=True, hard=True))
    assert schedule.budget(30.0) == 30.0
    assert schedule.budget(40.0) == pytest.approx(16.0)


def test_one_question_gets_all_that_is_left_where_two_more_would_not_end() -> None:
    schedule = Schedule()
    schedule.note(0.10, answer(4.0))
    assert schedule.budget(15.0) == pytest.approx(6.0)  # nothing says how fast proofs get longer
    schedule.note(0.11, answer(8.0))
    assert schedule.budget(30.0) == 30.0
    assert schedule.budget(40.0) == pytest.approx(16.0)
    assert 0.11 * 1.01 < schedule.radius(0.11, 0.3, 30.0) < 0.11 * 1.06
    schedule.note(0.12, Asked(proved=False, better=False, seconds=5.0))
    assert schedule.budget(30.0) == pytest.approx(12.0)  # it was too far once
    unlimited = Schedule(limited=False)
    unlimited.note(0.10, answer(4.0))
    unlimited.note(0.11, answer(8.0))
    assert unlimited.budget(30.0) == pytest.approx(12.0)
