"""A row of the results of `onnxsub robustness`: one sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxsub.evaluate.ledger import Unit
from onnxsub.evaluate.robustness.grid import Grid, Place
from onnxsub.evaluate.robustness.kinds import BATCH, kind_of

__all__ = ["CellRow", "SampleRow", "placed_rows", "row_of"]


@dataclass(frozen=True)
class SampleRow:
    """What is known of one sample. None: not known, not applicable.

    Attributes:
        index: position in the data set. label, predicted: class defended, class predicted.
        status: of a verdict `proved`, `violated`, `undecided`, `misclassified`; of uniform points `drawn`; of a distance `exact`,
            `bracket`, `none` (no boundary in the domain), `attacked` or `none-found` (by attack), `region-...` (by the program of
            the linear region); of a quantity `exact`, `bracket`, `approximate` (one end, by an attack); `pending`, and `failed`
            where the unit broke off, which counts as undecided.
        reason: one line.
        lower, upper: of a distance: the bracket of `rho`, `inf` where nothing bounds it. Of a verdict: what is known of the extreme
            of the property's quantity. Of uniform points: the Clopper-Pearson interval of the share that satisfies.
        value: that quantity at the witness; of a distance by a substitute, that of the substitute. distance: of the witness.
        satisfied, drawn: uniform points.
        time_total: seconds of the unit. time_attack: of them, of the attack.
    """

    index: int
    label: int | None
    predicted: int | None
    status: str
    reason: str | None
    lower: float | None
    upper: float | None
    value: float | None
    distance: float | None
    satisfied: int | None
    drawn: int | None
    verifier: str | None
    time_total: float | None
    time_attack: float | None


def row_of(unit: Unit) -> SampleRow:
    """The row of a unit in any state."""
    r = unit.result or {}
    status = str(r["status"]) if unit.state == "done" else "failed" if unit.state == "failed" else "pending"
    lower, upper = r.get("lower"), r.get("upper")
    if unit.kind == "locate":
        if status == "failed":
            lower, upper = 0.0, math.inf
        elif status != "pending":
            lower, upper = (math.inf if v is None else float(v) for v in (lower, upper))
    seconds = r.get("time_s", {}).get("total")
    return SampleRow(
        index=unit.sample,
        label=r.get("label"),
        predicted=r.get("predicted"),
        status=status,
        reason=unit.reason if status == "failed" else r.get("reason"),
        lower=lower,
        upper=upper,
        value=r.get("value"),
        distance=r.get("distance"),
        satisfied=r.get("satisfied"),
        drawn=r.get("drawn"),
        verifier=r.get("verifier"),
        time_total=unit.seconds if seconds is None else seconds,
        time_attack=r.get("stages", {}).get("attack"),
    )


@dataclass(frozen=True)
class CellRow(SampleRow):
    """What is known of one sample at one place of a grid.

    Attributes:
        model, metric, prop, eps: the place. The others: see `SampleRow`.
    """

    model: str
    metric: str
    prop: str
    eps: float

    @staticmethod
    def of(model: str, place: Place, row: SampleRow) -> CellRow:
        """A row with its place."""
        return CellRow(**vars(row), model=model, metric=place[0], prop=place[1], eps=place[2])


def placed_rows(units: Iterable[Unit], grid: Grid, index: Sequence[int]) -> Iterator[tuple[str, Place, SampleRow]]:
    """All rows with their model and place, in the order of the units.

    Args:
        index: positions of all samples of the run.
    """
    places: dict[tuple[str, str], list[Place]] = {}
    for place, settings in grid.places.items():
        places.setdefault((kind_of(settings, grid.batch), "" if grid.alone else place[1]), []).append(place)
    at = {i: number for number, i in enumerate(index)}
    for unit in units:
        own = places[unit.kind, unit.method or ""]
        if unit.kind == BATCH:
            first = at[unit.sample]
            for place, rows in zip(own, batch_rows(unit, index[first : first + grid.batch], len(own)), strict=True):
                yield from ((unit.model, place, row) for row in rows)
            continue
        row = row_of(unit)
        yield from ((unit.model, place, row) for place in own if unit.gamma is None or place[2] == unit.gamma)


def batch_rows(unit: Unit, index: Sequence[int], radii: int) -> Iterator[list[SampleRow]]:
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
