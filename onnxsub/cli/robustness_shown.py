"""What `onnxsub robustness` prints: one figure in words, or the table of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxsub.evaluate.robustness.cell import Cell
    from onnxsub.evaluate.robustness.grid import GridPlan
    from onnxsub.evaluate.robustness.result import RobustnessResult

__all__ = ["grid_rows", "grid_tables", "single_rows"]


def grid_rows(plan: GridPlan, result: RobustnessResult) -> list[tuple[str, str]]:
    """Of a grid, above its table."""
    settled = ", ".join(f"{n:,} {state}" for state, n in result.units.items() if n)
    return [
        ("run", str(result.folder)),
        ("models", f"{len(plan.models):,}"),
        ("samples", f"{len(plan.samples.index):,} of {plan.samples.source}"),
        ("units", settled),
        ("confidence", f"{100 * result.cells[0].settings.confidence:g} % for each interval by itself"),
        ("results", str(result.folder / "samples.csv")),
        ("time", f"{result.wall_s:.1f} s"),
    ]


def grid_tables(cells: Sequence[Cell]) -> list[list[tuple[str, ...]]]:
    """A table for each metric and property, with a line per model and radius; all counts are in the document and the report."""
    tables: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for cell in cells:
        m, s = cell.measure, cell.settings
        heads = (f"{s.metric} of {s.prop}", "radius", "estimate", "interval", "undecided")
        i, open_ = m.interval, len(cell.counts.undecided) if s.metric in ("satisfaction", "pointwise") else None
        tables.setdefault((s.metric, s.prop), [heads]).append((
            cell.model, f"{s.eps:g}", _short(m.lower, m.upper), "-" if i is None else f"{i.lower:.3f}-{i.upper:.3f}",
            "-" if open_ is None else f"{open_:,}",
        ))  # fmt: skip
    return list(tables.values())


def _short(lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None:
        return "-"
    return f"{lower:.3f}" if lower == upper else f"{lower:.3f}-{upper:.3f}"


def single_rows(plan: GridPlan, result: RobustnessResult) -> list[tuple[str, str]]:
    """Of one figure."""
    from onnxsub.evaluate.robustness.words import title_of

    counts, found, s = result.counts, result.measure, result.cell.settings
    rows = [
        ("run", str(result.folder)),
        ("model", plan.models[0].name),
        ("metric", title_of(s)),
        ("samples", f"{found.samples:,} of the {len(plan.samples.index):,} chosen of {plan.samples.source}"),
        ("proved", f"{len(counts.proved):,}"),
        ("violated", f"{len(counts.violated):,}"),
        ("undecided", f"{len(counts.undecided):,}"),
    ]
    if s.needs_label:
        rows.append(("misclassified", f"{len(counts.misclassified):,}"))
    if counts.pending:
        rows.append(("not yet seen", f"{len(counts.pending):,}"))
    rows += [("estimate", _between(found.lower, found.upper)), ("", found.quantity), ("", found.counted)]
    if s.metric == "pointwise":
        rows += _severity(found.more)
    if found.interval is not None:
        i = found.interval
        rows.append(("interval", f"{_between(i.lower, i.upper)} at {100 * i.confidence:g} % confidence ({i.method})"))
    if s.error is not None:
        reached = "reached" if found.more.get("reached") else "not reached: more samples are needed, or fewer that are undecided"
        reached = "not reached yet" if not result.finished else reached
        rows.append(("error", f"{s.error:g} asked for, {reached}"))
    rows.append(("guarantee", found.guarantee))
    rows += [("results", str(result.folder / "samples.csv")), ("time", f"{result.wall_s:.1f} s")]
    return rows


def _between(lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None:
        return "-"
    return f"{lower:.4f}" if lower == upper else f"{lower:.4f} to {upper:.4f}"


def _severity(more: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How near, where another class is near enough at all: as far as it is known, and as the distances that were found say."""
    near, told = more.get("severity"), more.get("estimated")
    none = "no sample can have another class within the radius"
    rows = [("severity", none if near is None else _between(near["lower"], near["upper"]))]
    if told is not None:
        mean = "none within the radius" if told["severity"] is None else f"{told['severity']:.4f}"
        taken = f"taking the distances of {told['by']} for the true ones"
        rows.append(("", f"{taken}: frequency {told['frequency']:.4f}, severity {mean}"))
    return rows
