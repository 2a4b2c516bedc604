"""Anchors and labels of a plan, checked against its models, and units as workers take them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError
from onnxsub.evaluate.job import Job
from onnxsub.evaluate.ledger import Ledger, Unit
from onnxsub.evaluate.samples import anchor_of
from onnxsub.evaluate.task import Task

__all__ = ["Anchors"]


@dataclass
class Anchors:
    """The samples of a job.

    Raises:
        InputError: samples or labels that do not fit a model.
    """

    job: Job[Any]
    _rows: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.job.plan
        samples, settings = plan.samples, plan.settings
        self._rows = {index: row for row, index in enumerate(samples.index)}
        for number, (entry, model) in enumerate(zip(plan.models, plan.loaded, strict=True)):
            what = f"model {entry.name!r} and data {Path(samples.source).name!r} do not belong together: a sample"
            # the values are looked at once; another model may want another shape
            for index, row in zip(samples.index, samples.x if number == 0 else samples.x[:1], strict=False):
                settings.space.check(anchor_of(row, model.input_shape, settings.domain, what), f"sample {index}")
            classes = max(model.outputs, 2)
            if samples.y is not None and not ((samples.y >= 0) & (samples.y < classes)).all():
                wrong = int(samples.y[(samples.y < 0) | (samples.y >= classes)][0])
                raise InputError(
                    f"model {entry.name!r} and data {Path(samples.source).name!r} do not belong together: label {wrong}, "
                    f"but the model has {classes} classes; check --labels"
                )

    def task(self, unit: Unit, ledger: Ledger, threads: int) -> Task:
        """The unit as a worker takes it."""
        plan = self.job.plan
        number = next(i for i, entry in enumerate(plan.models) if entry.name == unit.model)
        model = plan.loaded[number]
        row = self._rows[unit.sample]
        x = anchor_of(plan.samples.x[row], model.input_shape, plan.settings.domain, f"sample {unit.sample}")
        return Task(
            unit.id, unit.kind, plan.models[number].path, model.sha256, x, self.job.label(row), unit.method, unit.gamma,
            unit.verifier, plan.settings, threads, self.job.attacked(unit, ledger, model.input_shape),
        )  # fmt: skip
