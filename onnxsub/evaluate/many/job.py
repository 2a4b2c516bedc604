"""The job of `onnxsub robustness` over a grid: a unit per model, metric, property, radius and sample, or a batch of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from onnxsub.evaluate.drive import GRACE
from onnxsub.evaluate.ledger import Ledger, Unit, UnitKey
from onnxsub.evaluate.many.row import CellRow, cell_rows
from onnxsub.evaluate.many.settings import BATCH, ManySettings
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.able import check_robustness
from onnxsub.evaluate.robustness.job import KIND_OF
from onnxsub.evaluate.tables import write_results
from onnxsub.evaluate.task import Attacked, Outcome

__all__ = ["ManyJob"]


@dataclass(frozen=True, eq=False)
class ManyJob:
    """All places of the grid, of all models.

    The method of a unit is its property, the gamma its radius; distances and batches serve all radii and have none.

    Attributes:
        plan: of one model or more.
    """

    plan: Plan[ManySettings]

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._kind(metric) for metric in self.plan.settings.metrics))

    def _kind(self, metric: str) -> str:
        return BATCH if metric == "security" and self.plan.settings.batch else KIND_OF[metric]

    @property
    def limit(self) -> float | None:
        s = self.plan.settings
        timeout = s.shared.get("timeout")
        if timeout is None:
            return None
        samples = s.batch * len(s.eps) if BATCH in self.kinds else 1
        return float(2 * timeout * max(samples, 1) + GRACE)

    def check(self, *, here: bool) -> None:
        s = self.plan.settings
        largest = [settings for (_, _, eps), settings in s if eps == s.eps[-1]]
        for model in self.plan.loaded:
            for settings in largest:
                check_robustness(model, settings, here=here)

    def units(self) -> Iterator[UnitKey]:
        index, s = self.plan.samples.index, self.plan.settings
        for entry in self.plan.models:
            for metric in s.metrics:
                kind = self._kind(metric)
                for prop in dict.fromkeys(p for m, p, _ in s.places if m == metric):
                    if kind == BATCH:
                        yield from ((entry.name, i, kind, prop, -1.0, "") for i in index[:: s.batch])
                        continue
                    # the units of a sample follow each other: a worker keeps its model and its anchor
                    radii = (-1.0,) if kind == "locate" else s.eps
                    yield from ((entry.name, i, kind, prop, eps, "") for i in index for eps in radii)

    def label(self, row: int) -> int | None:
        y = self.plan.samples.y
        return None if y is None or not self.plan.settings.needs_label else int(y[row])

    @cached_property
    def _places(self) -> Mapping[int, int]:
        return {i: place for place, i in enumerate(self.plan.samples.index)}

    def block(self, unit: Unit) -> tuple[int, ...]:
        if unit.kind != BATCH:
            return ()
        at = self._places[unit.sample]
        return self.plan.samples.index[at : at + self.plan.settings.batch]

    def attacked(self, unit: Unit, ledger: Ledger, shape: tuple[int, ...]) -> Attacked | None:
        return None

    def followers(self, unit: Unit, outcome: Outcome) -> Mapping[str, Mapping[str, Any]]:
        return {}

    def watch(self, units: Iterable[Unit]) -> None:
        return None

    def conclude(self, ledger: Ledger, folder: Path) -> tuple[CellRow, ...]:
        index, s = self.plan.samples.index, self.plan.settings
        write_results(cell_rows(ledger, s, index), folder, CellRow)
        return tuple(cell_rows(ledger, s, index))
