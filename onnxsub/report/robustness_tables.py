"""The tables of a robustness run: counts and shares, curves, samples that are not proved."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from onnxsub.evaluate.numbers import NONE, Digits
from onnxsub.evaluate.robustness.cell import Cell
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally, verdict_of
from onnxsub.evaluate.tables import cell
from onnxsub.metrics.convergence import ConvergenceRow
from onnxsub.metrics.intervals import clopper_pearson
from onnxsub.metrics.pointwise import CurvePoint
from onnxsub.report.table import Table, ordered

__all__ = [
    "Figures", "convergence_table", "counts_table", "curve_table", "samples_csv", "single_table",
]  # fmt: skip

_SAID = {
    "proved": "the property holds for every input of the ball: proved",
    "violated": "an input of the ball that violates it was found and confirmed",
    "undecided": "neither was found within the limits",
    "misclassified": "the sample itself is not of its class, so the property fails at once",
}
_SAID_BY = {
    "security": {"undecided": "the attack found no input that violates it, which proves nothing"},
    "accuracy": {
        "violated": "one of the random points violates it",
        "undecided": "all random points satisfy it, which proves nothing",
    },
    "pointwise": {
        "proved": "no other class within the radius: proved",
        "violated": "another class within the radius was found and confirmed",
    },
}


@dataclass(frozen=True)
class Figures:
    """The line of a robustness run as CSV and JSON have it; None where there is none."""

    model: str
    metric: str
    prop: str
    eps: float
    samples: int
    proved: int
    violated: int
    undecided: int
    misclassified: int
    pending: int
    estimate_lower: float | None
    estimate_upper: float | None
    interval_lower: float | None
    interval_upper: float | None
    confidence: float
    method: str | None

    @staticmethod
    def of(cell: Cell, label: str | None = None) -> Figures:
        """From a figure of a run; `label` in place of the model's name."""
        s, counts, found = cell.settings, cell.counts, cell.measure
        i = found.interval
        return Figures(
            label or cell.model, s.metric, s.prop, s.eps, found.samples, len(counts.proved), len(counts.violated),
            len(counts.undecided), len(counts.misclassified), len(counts.pending), found.lower, found.upper,
            None if i is None else i.lower, None if i is None else i.upper, s.confidence, None if i is None else i.method,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Under the names of the fields."""
        return asdict(self)


def counts_table(counts: Tally, s: RobustnessSettings) -> Table:
    """How many samples are what, each share with its Clopper-Pearson interval where the number of samples was fixed beforehand."""
    fixed = not (s.sequential or counts.pending)
    names = [n for n in _SAID if s.needs_label or n != "misclassified"]
    if s.metric in ("security", "accuracy"):
        names.remove("proved")  # neither proves
    cells = []
    for name in names:
        count = len(getattr(counts, name))
        said = _SAID_BY.get(s.metric, {}).get(name, _SAID[name])
        ends = "-"
        if fixed:
            interval = clopper_pearson(count, counts.seen, s.confidence)
            ends = f"{100 * interval.lower:.2f} % to {100 * interval.upper:.2f} %"
        cells.append((name, said, f"{count:,}", f"{100 * count / counts.seen:.2f} %", ends))
    heads = ("verdict", "meaning", "samples", "share", f"interval ({100 * s.confidence:g} %)")
    note = f"{counts.seen:,} samples were looked at. "
    if fixed:
        note += "The interval is that of Clopper and Pearson: where the share lies among all inputs of the kind, one row at a time."
    elif s.sequential:
        note += "The rows have no interval of their own: what came out decided how many samples there are."
    else:
        note += "There is no interval yet: what was looked at first may be what is easy."
    return Table("Samples by verdict", note, heads, (False, False, True, True, True), tuple(cells))


def single_table(model: str, rows: Sequence[SampleRow], s: RobustnessSettings) -> Table | None:
    """The samples one by one, the nearest first. None where there are none to show.

    Where distances are found all that were looked at are shown, else those that are not proved, and without a verifier those with
    a witness.
    """
    if s.metric == "accuracy":
        return None
    passed = {"pending"}
    if not s.needs_distances:
        passed |= {"proved", *(["undecided"] if s.metric == "security" else [])}
    chosen = [(r, v) for r in rows if (v := verdict_of(r, s)) not in passed]
    if not chosen:
        return None
    digits = Digits.of(_far(r, s) for r, _ in chosen)
    cells = tuple(
        (
            str(r.index), v, NONE if r.label is None else str(r.label), NONE if r.predicted is None else str(r.predicted),
            _distance(r, s, digits), NONE if r.time_total is None else f"{r.time_total:.2f}", r.reason or NONE,
        )
        for r, v in chosen
    )  # fmt: skip
    if s.needs_distances:
        title, what, of = "Samples", "distance", "to the nearest input of another class, its two ends rounded outwards"
    else:
        title = "Samples that the attack broke" if s.metric == "security" else "Samples that are not proved"
        what, of = "distance found", "of the input that violates the property"
    heads = ("sample", "verdict", "class", "predicted", what, "time, s", "reason")
    note = f"Sample: its position in the data. {what.capitalize()}: {of} (L∞, input units). Every sample is in samples.csv."
    table = Table(title, note, heads, (True, False, True, True, True, True, False), cells, group=model)

    def near(pair: tuple[SampleRow, str]) -> tuple[bool, float, float, int]:
        row, verdict = pair
        return verdict == "misclassified", _far(row, s), row.lower or 0.0, row.index

    return ordered(
        table,
        chosen,
        {
            "nearest first": near,
            "by position in the data": lambda pair: pair[0].index,
            "by verdict": lambda pair: (list(_SAID).index(pair[1]), *near(pair)),
            "slowest first": lambda pair: (-(pair[0].time_total or 0.0), pair[0].index),
        },
    )


def curve_table(points: Sequence[CurvePoint], s: RobustnessSettings) -> Table:
    """Frequency and severity at radii that are spread over the curve."""
    chosen = [points[i] for i in sorted({round(k * (len(points) - 1) / 10) for k in range(1, 11)})]
    cells = tuple(
        (
            f"{p.eps:.4g}", _ends(100 * p.frequency_lower, 100 * p.frequency_upper, ".2f"),
            _ends(100 * p.band_lower, 100 * p.band_upper, ".2f"), _ends(p.severity_lower, p.severity_upper, ".4g"),
        )
        for p in chosen
    )  # fmt: skip
    heads = ("radius", "frequency, %", f"of all inputs ({100 * s.confidence:g} %), %", "severity")
    note = (
        "Frequency: share of samples with another class within the radius. Severity: mean distance of those (L∞, input units). "
        "Two numbers are what is sure and what is possible. The band of all inputs holds at every radius together. "
        "All radii: curve.csv."
    )
    return Table("Adversarial frequency and severity", note, heads, (True,) * 4, cells)


def convergence_table(settled: Sequence[ConvergenceRow], s: RobustnessSettings) -> Table:
    """Repeated estimates against the tolerance."""
    cells = tuple(
        (
            f"{r.error:g}", f"{r.samples:,}", f"{r.mean:.4f}", f"{r.deviation:.4f}", f"{r.smallest:.4f} to {r.largest:.4f}",
            f"{100 * r.within:.1f} %",
        )
        for r in settled
    )  # fmt: skip
    heads = ("tolerance", "samples", "mean", "deviation", "estimates", "within tolerance")
    note = (
        f"{settled[0].repeats} subsets of the samples at hand per tolerance, without replacement. Within tolerance: of the "
        f"mean of all samples at hand; the bound promises {100 * s.confidence:g} %. Of what is not decided the lower end counts."
    )
    return Table("How repeated estimates settle", note, heads, (True,) * 6, cells)


def samples_csv(rows: Sequence[SampleRow], s: RobustnessSettings) -> str:
    """One line per sample: the columns of `results.parquet` and the verdict."""
    names = [f.name for f in fields(SampleRow)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["verdict", *names])
    writer.writerows([verdict_of(r, s), *(cell(getattr(r, name)) for name in names)] for r in rows)
    return text.getvalue()


def _ends(low: float | None, high: float | None, form: str) -> str:
    if low is None or high is None:
        return "-"
    a, b = format(low, form), format(high, form)
    return a if a == b else f"{a} to {b}"


def _far(row: SampleRow, s: RobustnessSettings) -> float:
    """The distance that a sample surely reaches a violation within; infinite where none is known."""
    found = 0.0 if row.status == "misclassified" else row.upper if s.needs_distances else row.distance
    return math.inf if found is None else found


def _distance(row: SampleRow, s: RobustnessSettings, digits: Digits) -> str:
    if row.status == "misclassified":
        return digits.near(0.0)
    if not s.needs_distances:
        return digits.near(row.distance)
    low, high = row.lower or 0.0, _far(row, s)
    if math.isinf(high):
        return "none" if math.isinf(low) else f"at least {digits.low(low)}"
    return digits.near(high) if row.status == "exact" else f"{digits.low(low)} to {digits.high(high)}"
