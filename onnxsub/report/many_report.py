"""The report of a run of many models: a table of all of them and curves over the radius, metric by metric."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN
from onnxsub.evaluate.many.cell import Cell, cells_of
from onnxsub.evaluate.many.row import cell_rows
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.plan import read_plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.samples import parse_indices
from onnxsub.report.evaluation_report import data_words
from onnxsub.report.options import Contents, ReportOptions, files_of
from onnxsub.report.page import Facts
from onnxsub.report.picture import LINES, Picture, draw, legend_below
from onnxsub.report.robustness_tables import Figures
from onnxsub.report.table import Table, records_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["many_report"]

Report = Callable[[float, str], None]

_MARKS = "osD^vPX*"


@dataclass(frozen=True)
class _Group:
    """The cells of one metric and property."""

    metric: str
    prop: str
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.metric} of {self.prop}" if self.metric != "pointwise" else "adversarial frequency"

    def of(self, model: str) -> list[Cell]:
        """Of a model, by ascending radius."""
        return [c for c in self.cells if c.model == model]


def many_report(run: Path, options: ReportOptions, progress: Report | None = None) -> Contents:
    """The report.

    Raises:
        InputError: nothing done yet, options of another command's report.
    """
    if options.samples is not None or options.reference is not None:
        given = "--samples names images" if options.samples is not None else "--reference stands beside the distances"
        raise InputError(f"{given} of a run of onnxsub evaluate; leave it out for this one")
    plan, s, cells, units = _read(run)
    models = [m["name"] for m in plan["model"]]
    groups = [
        _Group(metric, prop, tuple(c for c in cells if (c.settings.metric, c.settings.prop) == (metric, prop)))
        for metric, prop in dict.fromkeys((m, p) for m, p, _ in s.places)
    ]
    tables = [_table(group, models) for group in groups]
    pictures = [_curves(group, models) for group in groups if len(s.eps) > 1]
    lines = [Figures.of(c.model, c.settings, c.counts, c.measure) for c in cells]
    waiting = units["pending"] + units["running"]
    left = f"the run is not finished: {waiting:,} of {sum(units.values()):,} units of work are still to be done."
    reasons = {r.reason: None for c in cells for r in c.rows if r.status == "failed" and r.reason}
    warnings = ([left] if waiting else []) + [f"samples failed, which count as undecided: {reason}" for reason in reasons]
    facts = Facts(
        options.title or f"Robustness of {len(models)} models", tuple(_lead(groups, s)), tuple(_facts(plan, s)),
        f"onnxsub robustness --run {shlex.quote(str(run))}", tuple(warnings),
    )  # fmt: skip
    return Contents(files_of(facts, tables, pictures, table=records_csv(lines)), tuple(lines), units)


def _read(run: Path) -> tuple[dict[str, Any], ManySettings, tuple[Cell, ...], Mapping[str, int]]:
    plan = read_plan(run / PLAN, ManySettings.SCHEMA)
    s = ManySettings.from_json(plan["settings"])
    with read_ledger(run) as ledger:
        units: Mapping[str, int] = ledger.counts()
        if not units["done"]:
            raise InputError(f"{str(run)!r} has no results yet; run onnxsub robustness --run {run} first")
        rows = list(cell_rows(ledger, s, parse_indices(plan["data"]["index"])))
    return plan, s, cells_of(rows, s, [m["name"] for m in plan["model"]]), units


def _lead(groups: Sequence[_Group], s: ManySettings) -> list[str]:
    lead = [
        f"{group.name.capitalize()}: {group.cells[-1].measure.quantity.partition(': ')[2] or group.cells[-1].measure.quantity}. "
        f"{group.cells[-1].measure.guarantee}"
        for group in groups
    ]
    return [
        *lead,
        f"Every interval holds with {100 * s.any.confidence:g} % confidence by itself, not all of them together. All models have "
        "seen the same samples.",
    ]


def _facts(plan: Mapping[str, Any], s: ManySettings) -> list[tuple[str, str]]:
    shared = [(key, ", ".join(map(str, v)) if isinstance(v, list | tuple) else str(v)) for key, v in s.shared.items()]
    return [
        ("networks", ", ".join(f"{m['name']} (sha256 {m['sha256'][:12]})" for m in plan["model"])),
        ("data", data_words(plan["data"])),
        ("radii", ", ".join(f"{e:g}" for e in s.eps)),
        *shared,
        *([("attack", f"batches of {s.batch:,} samples")] if "security" in s.metrics and s.batch else []),
        ("made by", f"onnxsub {plan['version']}"),
    ]


def _table(group: _Group, models: Sequence[str]) -> Table:
    """A row per model, a column per radius: the best model at the middle radius first."""
    radii = [c.settings.eps for c in group.of(models[0])]
    sign = 1.0 if group.metric == "pointwise" else -1.0
    middle = len(radii) // 2
    order = sorted(models, key=lambda m: sign * (group.of(m)[middle].measure.lower or 0.0))
    cells = tuple((model, *(_figure(c) for c in group.of(model))) for model in order)
    note = (
        f"Estimate on {group.cells[0].measure.samples:,} samples, two numbers where some are undecided, and in brackets its "
        "interval for all inputs of this kind. Every count is in table.csv."
    )
    heads = ("network", *(f"radius {eps:g}" for eps in radii))
    return Table(group.name.capitalize(), note, heads, (False, *[True] * len(radii)), cells)


def _figure(cell: Cell) -> str:
    m = cell.measure
    if m.lower is None or m.upper is None:
        return "-"
    value = f"{m.lower:.3f}" if m.lower == m.upper else f"{m.lower:.3f} to {m.upper:.3f}"
    return value if m.interval is None else f"{value} [{m.interval.lower:.3f}, {m.interval.upper:.3f}]"


def _curves(group: _Group, models: Sequence[str]) -> Picture:
    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for k, model in enumerate(models):
            known = [c for c in group.of(model) if c.measure.lower is not None and c.measure.upper is not None]
            colour, dash = LINES[k % len(LINES)]
            low, high = [c.measure.lower or 0.0 for c in known], [c.measure.upper or 0.0 for c in known]
            at = [c.settings.eps for c in known]
            axes.plot(at, low, color=colour, linestyle=dash, marker=_MARKS[k % len(_MARKS)], markersize=4.5, label=model)
            axes.vlines(at, low, high, color=colour, alpha=0.5, linewidth=1.2)
        what = "share" if group.metric != "pointwise" else "frequency"
        axes.set(xlabel="radius (L∞, input units)", ylabel=what, ylim=(-0.02, 1.02))
        legend_below(figure)

    best = max(group.cells, key=lambda c: c.measure.lower or 0.0)
    return draw(
        f"curves-{group.metric}-{group.prop}", f"{group.name.capitalize()} over the radius",
        f"One line per network over {len(group.of(models[0]))} radii. The largest value is {best.measure.lower or 0.0:.3g}, of "
        f"{best.model} at radius {best.settings.eps:g}.",
        "Points are lower ends of the estimates; thin upright lines reach to the upper ends, where samples are undecided.",
        paint, size=(5.2, 3.6 + 0.2 * len(models)),
    )  # fmt: skip
