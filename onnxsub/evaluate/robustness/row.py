"""A row of the results of `onnxsub robustness`: one sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from onnxsub.evaluate.ledger import Ledger, Unit

__all__ = ["SampleRow", "row_of", "sample_rows"]

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
        value: that quantity at the witness. distance: of the witness.
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


def sample_rows(ledger: Ledger | Iterable[Unit]) -> Iterator[SampleRow]:
    """All rows, in the order of the units."""
    for unit in ledger.units() if isinstance(ledger, Ledger) else ledger:
        yield row_of(unit)
