"""The job of `onnxsub robustness`: one unit per sample, in the order in which a stopped run may be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.evaluate.drive import GRACE
from onnxsub.evaluate.ledger import Ledger, Unit, UnitKey
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.able import check_robustness
from onnxsub.evaluate.robustness.row import SampleRow, sample_rows
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.stopping import Watcher
from onnxsub.evaluate.tables import write_results
from onnxsub.evaluate.task import Attacked, Outcome
from onnxsub.metrics.globally import shuffled

__all__ = ["KIND_OF", "RobustnessJob"]

KIND_OF: Mapping[str, str] = {
    "satisfaction": "decide", "security": "resist", "accuracy": "draw", "pointwise": "locate", "global": "decide",
}  # fmt: skip
"""Metric -> kind of its units, where verdicts are found."""


@dataclass(frozen=True, eq=False)
class RobustnessJob:
    """One unit per sample.

    Attributes:
        plan: of one model.
    """

    plan: Plan[RobustnessSettings]

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.kind,)

    @property
    def kind(self) -> str:
        """Of all units: `decide`, `resist`, `draw`, `locate` or `maximise`."""
        s = self.plan.settings
        return "locate" if s.needs_distances else "maximise" if s.quantitative else KIND_OF[s.metric]

    @property
    def limit(self) -> float | None:
        timeout = self.plan.settings.timeout
        return None if timeout is None else 2 * timeout + GRACE

    def check(self, *, here: bool) -> None:
        (model,) = self.plan.loaded
        check_robustness(model, self.plan.settings, here=here)

    def units(self) -> Iterator[UnitKey]:
        index, s = self.plan.samples.index, self.plan.settings
        # where a run may stop early, what it has seen must be a random part of the data
        order = shuffled(len(index), s.seed) if s.sequential else range(len(index))
        (model,) = self.plan.models
        for i in order:
            yield model.name, index[i], self.kind, "", -1.0, ""

    def label(self, row: int) -> int | None:
        y = self.plan.samples.y
        return None if y is None or not self.plan.settings.needs_label else int(y[row])

    def block(self, unit: Unit) -> tuple[int, ...]:
        return ()

    def attacked(self, unit: Unit, ledger: Ledger, shape: tuple[int, ...]) -> Attacked | None:
        return None

    def followers(self, unit: Unit, outcome: Outcome) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def watch(self, units: Iterable[Unit]) -> Watcher | None:
        return Watcher(self.plan.settings, units) if self.plan.settings.sequential else None

    def conclude(self, ledger: Ledger, folder: Path) -> tuple[SampleRow, ...]:
        write_results(sample_rows(ledger), folder, SampleRow)
        return tuple(sample_rows(ledger))
