"""`--metric global`: how many samples are taken, and stopping as soon as the error is reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import RunOptions
from onnxsub.evaluate.robustness.run import open_robustness, robustness
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.metrics.globally import estimate_sequential, shuffled
from onnxsub.metrics.intervals import hoeffding_samples
from tests.evaluate_tools import make_files
from tests.robustness_tools import Backwards, Here, Invented, many, plan_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_files(tmp_path_factory.mktemp("files"))


def test_global_takes_as_many_samples_as_the_error_needs(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = many(tmp_path, files[1], 400)
    plan = plan_of((files[0], data), metric="global", error=0.1)
    needed = hoeffding_samples(0.1, 0.95)
    assert len(plan.samples.index) == needed == 185
    assert plan.samples.index != tuple(range(needed))
    assert plan_of((files[0], data), metric="global", error=0.1).samples.index == plan.samples.index
    assert plan_of((files[0], data), metric="global", error=0.1, seed=1).samples.index != plan.samples.index
    with np.load(data) as archive:
        assert np.array_equal(plan.samples.x, archive["x"][list(plan.samples.index)])
    result = robustness(plan, tmp_path / "run", engine=Here(Invented(0.7)))
    assert result.measure.samples == needed
    assert result.to_json()["estimate"]["reached"] is True
    assert robustness(open_robustness(tmp_path / "run"), tmp_path / "run", engine=Here()).done_now == 0
    with pytest.raises(InputError, match=r"400 samples are available, an error of 0.05 .* needs 738; --error 0.068"):
        plan_of((files[0], data), metric="global", error=0.05)


def test_an_unfinished_run_claims_no_interval_anywhere(tmp_path: Path, files: tuple[Path, Path]) -> None:
    def stops(task: Task) -> Outcome:
        if task.id == 4:
            raise KeyboardInterrupt
        return Invented(0.7)(task)

    part = robustness(plan_of(files, metric="global"), tmp_path / "run", engine=Here(stops))
    assert part.measure.interval is None
    estimate = part.to_json()["estimate"]
    assert (estimate["intervals"], estimate["reached"]) == ([], False)
    step = robustness(plan_of(files, metric="global", error=0.1, sequential=True), tmp_path / "step", engine=Here(stops))
    assert not step.finished
    assert step.measure.interval is not None  # it holds whenever one looks
    assert "at hand were used up" in step.measure.guarantee


def test_a_sequence_stops_where_it_may_whatever_ends_first(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = many(tmp_path, files[1], 400)
    invented = Invented(0.7, undecided=0.02)
    plan = plan_of((files[0], data), metric="global", error=0.1, sequential=True)
    one = robustness(plan, tmp_path / "one", RunOptions(jobs=1), engine=(engine := Here(invented)))
    order = [t.x for t in engine.tasks]
    assert [r.index for r in one.rows] == shuffled(400, 0)
    with np.load(data) as archive:
        assert all(np.array_equal(x, archive["x"][i]) for x, i in zip(order, shuffled(400, 0), strict=False))
        values = [invented(task).result["status"] for task in engine.tasks]
    assert len(engine.tasks) == one.used == one.measure.samples < 400  # no sample beyond the last that is needed
    again = estimate_sequential(values, 0.1, 0.95)
    assert (again.samples, again.interval) == (one.used, one.measure.interval)
    assert one.finished
    assert one.units["pending"] == 400 - one.used

    several = robustness(plan, tmp_path / "several", RunOptions(jobs=7), engine=(other := Backwards(7, invented)))
    assert len(other.tasks) <= one.used + 6
    assert (several.used, several.measure) == (one.used, one.measure)
    assert several.units["running"] == 0
    more = robustness(plan, tmp_path / "several", engine=(idle := Here()))
    assert (more.done_now, idle.tasks) == (0, [])
    assert more.measure == one.measure


def test_a_sequence_whose_first_worker_is_lost(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = many(tmp_path, files[1], 200)
    plan = plan_of((files[0], data), metric="global", error=0.15, sequential=True)
    calm = robustness(plan, tmp_path / "calm", engine=Here(Invented(0.7)))
    tries: list[int] = []

    def answer(task: Task) -> Outcome:
        tries.append(task.id)
        lost = task.id == 1 and tries.count(1) < 3
        return Outcome(task.id, "died", "lost") if lost else Invented(0.7)(task)

    disturbed = robustness(plan, tmp_path / "disturbed", RunOptions(jobs=4), engine=Backwards(4, answer))
    assert tries.count(1) == 3
    assert (disturbed.used, disturbed.measure) == (calm.used, calm.measure)
    assert disturbed.finished


def test_half_an_answer_is_not_booked(files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxsub.evaluate.robustness import work

    decide = work.decide_local
    monkeypatch.setattr(work, "decide_local", lambda *a, **k: replace(decide(*a, **k), interrupted=True))
    result = robustness(plan_of(files, 2, prop="sr", delta=1.0), tmp_path / "run", engine=Here())
    assert result.interrupted
    assert result.units["done"] == 0


def test_a_sequence_that_uses_everything_up(tmp_path: Path, files: tuple[Path, Path]) -> None:
    data = many(tmp_path, files[1], 30)
    plan = plan_of((files[0], data), metric="global", error=0.05, sequential=True)
    result = robustness(plan, tmp_path / "run", engine=Here(Invented(0.5)))
    assert result.used == 30
    assert result.to_json()["estimate"]["reached"] is False
    assert "used up" in result.measure.guarantee
