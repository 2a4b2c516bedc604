"""Anchors and labels of a plan, checked against its models, and units as workers take them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.errors import InputError
from onnxsub.evaluate.job import Job
from onnxsub.evaluate.ledger import Ledger, Unit
from onnxsub.evaluate.samples import anchor_of
from onnxsub.evaluate.task import Block, Task
from onnxsub.model import Model
from onnxsub.ops.base import Array
from onnxsub.region import InputSpace

__all__ = ["Anchors"]


@dataclass
class Anchors:
    """The samples of a job.

    Raises:
        InputError: samples or labels that do not fit a model.
    """

    job: Job[Any]
    _rows: dict[int, int] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        plan = self.job.plan
        samples, settings = plan.samples, plan.settings
        self._numbers = {entry.name: i for i, entry in enumerate(plan.models)}
        self._rows = {index: row for row, index in enumerate(samples.index)}
        for number, (entry, model) in enumerate(zip(plan.models, plan.loaded, strict=True)):
            what = f"model {entry.name!r} and data {Path(samples.source).name!r} do not belong together: a sample"
            # the values are looked at once; another model may want another shape
            for index, row in zip(samples.index, samples.x if number == 0 else samples.x[:1], strict=False):
                settings.space.check(anchor_of(row, model.input_shape, self._grey(model), what), f"sample {index}")
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
        number = self._numbers[unit.model]
        model = plan.loaded[number]
        x, label = self._anchor(unit.sample, model)
        return Task(
            unit.id, unit.kind, plan.models[number].path, model.sha256, x, label, unit.method, unit.gamma,
            unit.verifier, plan.settings, threads, self.job.attacked(unit, ledger, model.input_shape),
            self._block(self.job.block(unit), model),
        )  # fmt: skip

    def _grey(self, model: Model) -> tuple[float | Array, float | Array]:
        """What 8-bit values of the samples stand for."""
        space: InputSpace = self.job.plan.settings.space
        return space.over(model.feed.dtype).grey

    def _anchor(self, sample: int, model: Model) -> tuple[Array, int | None]:
        """A sample and the class to defend."""
        row, plan = self._rows[sample], self.job.plan
        return anchor_of(plan.samples.x[row], model.input_shape, self._grey(model), f"sample {sample}"), self.job.label(row)

    def _block(self, index: tuple[int, ...], model: Model) -> Block | None:
        if not index:
            return None
        found = [self._anchor(i, model) for i in index]
        labels = tuple(label for _, label in found if label is not None)
        return Block(index, np.stack([x for x, _ in found]), labels or None)
