"""A row of the results of a grid: one sample at one place of one model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from onnxsub.evaluate.ledger import Ledger, Unit
from onnxsub.evaluate.many.settings import BATCH, ManySettings
from onnxsub.evaluate.robustness.job import KIND_OF
from onnxsub.evaluate.robustness.row import SampleRow, row_of

__all__ = ["CellRow", "cell_rows"]


@dataclass(frozen=True)
class CellRow(SampleRow):
    """What is known of one sample.

    Attributes:
        model, metric, prop, eps: the place. The others: see `SampleRow`.
    """

    model: str
    metric: str
    prop: str
    eps: float


_NAMES = [f.name for f in fields(SampleRow)]


def cell_rows(ledger: Ledger | Iterable[Unit], settings: ManySettings, index: tuple[int, ...]) -> Iterator[CellRow]:
    """All rows, model by model, in the order of the grid and of the units.

    Args:
        index: positions of all samples of the run.
    """
    metrics = {KIND_OF[m]: m for m in settings.metrics} | {BATCH: "security"}
    places = {i: at for at, i in enumerate(index)}
    for unit in ledger.units() if isinstance(ledger, Ledger) else ledger:
        metric, prop = metrics[unit.kind], unit.method or ""
        radii = settings.eps if unit.gamma is None else (unit.gamma,)
        if unit.kind != BATCH:
            row = row_of(unit)
            yield from (_at(row, unit.model, metric, prop, eps) for eps in radii)
            continue
        at = places[unit.sample]
        for eps, rows in zip(radii, batch_rows(unit, index[at : at + settings.batch], len(radii)), strict=True):
            yield from (_at(row, unit.model, metric, prop, eps) for row in rows)


def batch_rows(unit: Unit, index: tuple[int, ...], radii: int) -> Iterator[list[SampleRow]]:
    """The rows of a batch, radius by radius, in any state of its unit."""
    empty = row_of(replace(unit, state="pending", result=None)) if unit.state == "done" else row_of(unit)
    result = unit.result or {}
    seconds = None if unit.seconds is None else unit.seconds / max(len(index) * radii, 1)
    for number in range(radii):
        if unit.state != "done":
            yield [replace(empty, index=i, time_total=seconds) for i in index]
            continue
        columns: dict[str, Any] = result["radii"][number]
        yield [
            replace(
                empty, index=i, label=result["label"][k], predicted=result["predicted"][k], status=columns["status"][k],
                reason=columns["reason"][k], value=columns["value"][k], distance=columns["distance"][k], verifier="attack",
                lower=columns["lower"][k], upper=columns["upper"][k], time_total=seconds, time_attack=seconds,
            )
            for k, i in enumerate(index)
        ]  # fmt: skip


def _at(row: SampleRow, model: str, metric: str, prop: str, eps: float) -> CellRow:
    return CellRow(**{name: getattr(row, name) for name in _NAMES}, model=model, metric=metric, prop=prop, eps=eps)

