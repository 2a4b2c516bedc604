"""A small run of `onnxsub robustness`: a random dense network, ten samples, and engines that do units here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.choose import choose
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import Choice
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.evaluate.work import work

__all__ = ["Backwards", "Here", "Invented", "many", "plan_of"]


class Here:
    """Does units in this process, one at a time; `answer` may speak instead, or raise."""

    jobs, queue = 1, 0

    def __init__(self, answer: Callable[[Task], Outcome | None] = lambda task: None) -> None:
        self._answer = answer
        self.tasks: list[Task] = []
        self._ended: list[Outcome] = []

    def submit(self, task: Task, limit: float | None) -> None:
        self.tasks.append(task)
        self._ended.append(self._answer(task) or work(task))

    def wait(self, seconds: float) -> Sequence[Outcome]:
        found, self._ended = self._ended, []
        return found

    def close(self) -> None:
        pass


class Backwards(Here):
    """Several at a time, of which the one that began last ends first, one per look."""

    def __init__(self, jobs: int, answer: Callable[[Task], Outcome | None]) -> None:
        super().__init__(answer)
        self.jobs = jobs

    def wait(self, seconds: float) -> Sequence[Outcome]:
        return [self._ended.pop()]


class Invented:
    """Verdicts by the content of a sample: robust where its first value is below `share`, undecided just above."""

    def __init__(self, share: float, undecided: float = 0.0) -> None:
        self._share = share
        self._undecided = undecided

    def __call__(self, task: Task) -> Outcome:
        x = float(task.x.reshape(-1)[0])
        status = "proved" if x < self._share else "undecided" if x < self._share + self._undecided else "violated"
        return Outcome(task.id, "done", None, {"status": status, "label": 0, "predicted": 0, "time_s": {"total": 0.0}})


def plan_of(
    files: tuple[Path, Path], limit: int | None = None, labels: str | None = "predicted", **settings: Any
) -> Plan[RobustnessSettings]:
    """A plan of the network and data of `evaluate_tools.make_files`."""
    chosen = RobustnessSettings(**{"metric": "satisfaction", "eps": 0.1, **settings})
    samples = choose(chosen, files[1], Choice(limit=limit), labels=labels if chosen.needs_label else None)
    return Plan.of((str(files[0]),), samples, chosen)


def many(folder: Path, like: Path, count: int) -> Path:
    """A data file of `count` random samples of the shape of another one."""
    with np.load(like) as archive:
        shape = archive["x"].shape[1:]
    path = folder / "many.npz"
    np.savez(path, x=np.random.default_rng(1).random((count, *shape)).astype(np.float32))
    return path
