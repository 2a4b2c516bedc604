"""The clock of one question."""

from __future__ import annotations

import math
import threading
import time

import pytest

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError


def test_without_limits_it_never_ends() -> None:
    budget = Budget()
    budget.count(10**9)
    assert budget.running
    assert not budget.limited
    assert math.isinf(budget.remaining)
    budget.check()
    assert budget.cut is None


def test_time_is_over_and_the_innermost_stage_is_named() -> None:
    budget = Budget(0.01)

    def work() -> None:
        with budget.stage("outer"), budget.stage("inner"):
            time.sleep(0.02)
            budget.check()

    with pytest.raises(OutOfTime):
        work()
    assert budget.over
    assert budget.cut == "inner"
    assert "'inner'" in budget.why
    assert "--timeout" in budget.why


def test_nodes_end_it_whatever_the_clock_says() -> None:
    budget = Budget(nodes=5)
    part = budget.part(100.0)
    part.count(4)
    assert budget.running
    part.count(1)
    assert budget.nodes == 5
    assert budget.over
    assert part.over
    assert "--nodes" in budget.why


def test_a_part_ends_before_the_whole_and_books_there() -> None:
    budget = Budget(100.0)
    part = budget.part(0.0)
    with part.stage("a"):
        time.sleep(0.002)
    assert part.over
    assert budget.running
    assert budget.cut is None  # the end of a part is not the end of the question
    assert budget.times["a"] >= 0.002
    assert budget.part(1e9).deadline == budget.deadline


def test_stop_ends_every_part() -> None:
    stop = threading.Event()
    part = Budget(stop=stop).part(10.0)
    stop.set()
    assert part.over
    assert part.why.startswith("interrupted")


def test_a_stage_inside_a_stage_counts_once() -> None:
    budget = Budget()
    with budget.stage("a"):
        time.sleep(0.002)
        with budget.stage("b"):
            time.sleep(0.02)
    assert budget.times["b"] >= 0.02
    assert budget.times["a"] < 0.02


@pytest.mark.parametrize("limits", [{"timeout": 0.0}, {"timeout": math.nan}, {"nodes": 0}])
def test_limits_that_are_none(limits: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Budget(**limits)  # type: ignore[arg-type]
