"""Units out of the ledger, through the engine, and back into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from onnxsub.evaluate.anchored import Anchors
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.job import Job, Watch
from onnxsub.evaluate.ledger import Ledger, Unit
from onnxsub.evaluate.pace import Pace
from onnxsub.evaluate.task import Outcome

__all__ = ["DEATHS", "do_units", "enough"]

DEATHS = 3
"""A unit whose worker was lost so often is failed."""

_AHEAD = 0.05
"""Seconds of work that may wait for each worker: what takes less than a commit is handed out in lots."""

_WEIGHT = 0.1  # of the last unit in the mean time of the recent ones

Summary = TypeVar("Summary")


def do_units(
    job: Job[Summary], ledger: Ledger, engine: Engine, limit: float | None, anchors: Anchors, pace: Pace, watch: Watch | None
) -> None:
    """Until every unit is settled, or enough are.

    Args:
        limit: seconds after which a unit is killed; None: never.
    """
    under_way: dict[int, Unit] = {}
    ended: Sequence[Outcome] = ()
    seconds = _AHEAD
    while True:
        with ledger.together():  # one commit for what has ended and what begins
            for outcome in ended:
                settled = _book(job, ledger, under_way.pop(outcome.id), outcome)
                pace.note(settled, outcome)
                seconds += _WEIGHT * (outcome.seconds - seconds)
                if watch is not None:
                    watch.note(settled)
            if watch is None:
                ahead = min(engine.queue, int(_AHEAD / max(seconds, 1e-9)))
                begun = ledger.take(engine.jobs * (1 + ahead) - len(under_way))
            else:
                begun = _wanted(ledger, engine.jobs, len(under_way), watch)
        if ended:
            pace.tell()
        for unit in begun:
            # memory is the usual reason for a lost worker, and threads cost some
            threads = max(1, job.plan.settings.threads >> unit.deaths)
            under_way[unit.id] = unit
            pace.begin(unit)
            engine.submit(anchors.task(unit, ledger, threads), limit)
        if not under_way or enough(watch):
            return
        ended = engine.wait(1.0)
        if not ended:
            pace.tell()


def enough(watch: Watch | None) -> bool:
    """Whether no more units are needed."""
    return watch is not None and watch.enough


def _wanted(ledger: Ledger, jobs: int, under_way: int, watch: Watch) -> list[Unit]:
    """Units that begin now, as many as there are idle workers and as the watch wants."""
    found: list[Unit] = []
    while not watch.enough and under_way + len(found) < jobs and watch.wants(under_way + len(found), jobs):
        unit = ledger.take(1)
        if not unit:
            break
        found += unit
    return found


def _book(job: Job[Summary], ledger: Ledger, unit: Unit, outcome: Outcome) -> list[Unit]:
    """Writes an outcome to the ledger; returns the units that are settled by it."""
    if outcome.state == "died":
        if unit.deaths + 1 < DEATHS:
            ledger.put_back(unit.id, outcome.reason or "")
            return []
        outcome = replace(outcome, state="failed", reason=f"{outcome.reason}; {DEATHS} times")
    return ledger.finish(outcome, job.followers(unit, outcome))
