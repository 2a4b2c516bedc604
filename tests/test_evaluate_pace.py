"""How long a run still takes, units that are under way included."""

from __future__ import annotations

import pytest

from onnxsub.evaluate import pace
from onnxsub.evaluate.ledger import Group, Unit
from onnxsub.evaluate.pace import Pace
from onnxsub.evaluate.task import Outcome


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


def unit(number: int, kind: str = "decide", state: str = "pending") -> Unit:
    return Unit(number, "net", 100 + number, kind, None, None, "bab", None, state, 0, 0, None, None, None)


def grouped(units: list[Unit]) -> list[Group]:
    return [Group(u.kind, u.method, u.gamma, u.verifier, u.state, 1, u.seconds or 0.0, bool(u.seconds)) for u in units]


def done(run: Pace, which: Unit, seconds: float) -> None:
    run.note([which], Outcome(which.id, "done", seconds=seconds))


def test_nothing_is_known_at_first_and_then_at_least_what_has_passed(clock: Clock) -> None:
    units = [unit(i) for i in range(4)]
    told: list[str] = []
    run = Pace(grouped(units), 1, lambda share, text: told.append(text))
    assert run.remaining is None
    run.begin(units[0])
    clock.now = 10.0
    assert run.remaining == pytest.approx(30.0)  # three more, as long as this one at least
    run.tell()
    assert told == ["0 of 4 units, more than 30 s left; decide of sample 100 for 10 s"]


def test_a_unit_under_way_has_less_to_go(clock: Clock) -> None:
    units = [unit(i) for i in range(4)]
    told: list[str] = []
    run = Pace(grouped(units), 1, lambda share, text: told.append(text))
    run.begin(units[0])
    clock.now = 20.0
    done(run, units[0], 20.0)
    assert run.remaining == pytest.approx(60.0)
    run.begin(units[1])
    clock.now = 35.0
    assert run.remaining == pytest.approx(45.0)
    run.tell()
    assert told[-1] == "1 of 4 units, 1.7/min, about 45 s left; decide of sample 101 for 15 s"
    clock.now = 60.0  # it takes 40 s by now: the mean is at least 30
    assert run.remaining == pytest.approx(60.0)
    done(run, units[1], 40.0)
    assert run.remaining == pytest.approx(60.0)


def test_units_side_by_side_and_a_lost_worker(clock: Clock) -> None:
    units = [unit(i) for i in range(3)]
    run = Pace(grouped(units), 2, None)
    for one in units[:2]:
        run.begin(one)
    clock.now = 8.0
    done(run, units[0], 8.0)
    assert run.remaining == pytest.approx((8.0 + 0.0) / 2)
    run.note([], Outcome(units[1].id, "died"))  # it is to be done again
    assert run.remaining == pytest.approx(8.0)


def test_progress_is_told_seldom_and_at_the_end(clock: Clock) -> None:
    units = [unit(i) for i in range(1000)]
    told: list[str] = []
    run = Pace(grouped(units), 1, lambda share, text: told.append(text))
    for one in units:
        clock.now += 0.001
        done(run, one, 0.001)
        run.tell()
    assert len(told) <= 12
    assert told[-1].startswith("1,000 of 1,000 units")


def test_what_was_done_before_is_counted_by_kind(clock: Clock) -> None:
    before = [Group("decide", "cr", 0.1, None, "done", 30, 60.0, 30), Group("decide", "cr", 0.1, None, "failed", 5, 10.0, 5)]
    left = [Group("decide", "cr", 0.1, None, "pending", 10, 0.0, 0), Group("draw", None, 0.1, None, "done", 2, 0.0, 0)]
    run = Pace([*before, *left], 1, None)
    assert (run.total, run.settled, run.failed, run.left) == (47, 37, 5, 10)
    assert run.remaining == pytest.approx(20.0)
