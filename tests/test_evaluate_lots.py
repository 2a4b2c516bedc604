"""Units that are handed to a worker in lots: each ends once, and what befalls the worker is laid to the unit that it was doing."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.evaluate.processes import Processes
from onnxsub.evaluate.task import Outcome, Task


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    with closing(Processes(2, f"lots-{secrets.token_hex(8)}-", "tests.lots_stub")) as made:
        yield made


def ended(engine: Processes, methods: Sequence[str], limit: float | None = None) -> dict[int, Outcome]:
    """What became of units, one of each method, all handed over before the first one ends."""
    for number, method in enumerate(methods):
        x = np.zeros((1, 2), dtype=np.float32)
        settings: Any = "settings"
        engine.submit(Task(number, "kind", "model", "sha", x, 0, method, None, None, settings, 1, None), limit)
    found: list[Outcome] = []
    began = time.monotonic()
    while len(found) < len(methods):
        found += engine.wait(1.0)
        assert time.monotonic() - began < 40
    assert Counter(outcome.id for outcome in found) == Counter(range(len(methods)))
    return {outcome.id: outcome for outcome in found}


def states(found: dict[int, Outcome]) -> dict[str, int]:
    return dict(Counter(outcome.state for outcome in found.values()))


def test_lots_are_shared_out(engine: Processes) -> None:
    found = ended(engine, ["quick"] * 200)
    assert states(found) == {"done": 200}
    assert len({outcome.result["process"] for outcome in found.values()}) == 2
    assert len(engine.pids) == 2


def test_what_waits_behind_a_slow_unit_goes_to_an_idle_worker(engine: Processes) -> None:
    ended(engine, ["quick"] * 2)  # both are there
    found = ended(engine, [*["slow"] * 5, *["quick"] * 5])
    assert states(found) == {"done": 10}
    # the lot with the slow ones was one worker's
    assert len({found[number].result["process"] for number in range(5)}) == 2


def test_a_lost_worker_is_laid_to_the_unit_that_it_was_doing(engine: Processes) -> None:
    found = ended(engine, [*["quick"] * 7, "dies", *["quick"] * 12])
    assert states(found) == {"done": 19, "died": 1}
    assert (found[7].state, found[7].reason) == ("died", "its process ended with exit code 3: the last word")
    assert states(ended(engine, ["quick"] * 4)) == {"done": 4}


def test_a_limit_is_laid_to_the_unit_that_is_over_it(engine: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxsub.evaluate.processes._START", 10.0)
    ended(engine, ["quick"] * 2)
    found = ended(engine, [*["quick"] * 3, "stuck", *["slow"] * 3], limit=1.0)
    assert states(found) == {"done": 6, "failed": 1}
    assert "the hard limit of a unit" in (found[3].reason or "")


def test_a_unit_without_memory_takes_no_other_with_it(engine: Processes) -> None:
    found = ended(engine, ["quick", "full", *["quick"] * 10])
    assert states(found) == {"done": 11, "died": 1}
    assert found[1].reason == "not enough memory"


def test_outcomes_before_a_slow_unit_are_told_within_a_second(engine: Processes) -> None:
    ended(engine, ["quick"] * 2)
    for number, method in enumerate(["quick", "stuck", "quick", "stuck"]):
        x = np.zeros((1, 2), dtype=np.float32)
        settings: Any = "settings"
        engine.submit(Task(number, "kind", "model", "sha", x, 0, method, None, None, settings, 1, None), None)
    first = engine.wait(1.0) or engine.wait(1.0)
    assert {outcome.id for outcome in first} <= {0, 2}
    assert first
