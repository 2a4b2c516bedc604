"""Tables of a grid: all networks with their intervals, accuracy against robustness, groups, two networks sample by sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxsub.evaluate.robustness.cell import Cell
from onnxsub.evaluate.robustness.holds import holds
from onnxsub.metrics.correlation import FEWEST, Correlation, spearman
from onnxsub.metrics.paired import mean_interval, paired_interval
from onnxsub.metrics.paired_readings import paired_shares
from onnxsub.report.grid_group import Group
from onnxsub.report.table import Table

__all__ = ["accuracy_table", "compared_table", "correlation_at", "group_table", "models_table"]


def models_table(group: Group) -> Table:
    """A row per model, a column per radius: the best model at the radius at which they differ most first."""
    sign = 1.0 if group.metric == "pointwise" else -1.0
    order = sorted(group.models, key=lambda m: sign * (group.value(m, group.telling) or 0.0))
    accuracies = {model: group.accuracy(model) for model in group.models}
    some = any(accuracies.values())
    cells = []
    for model in order:
        right = accuracies[model]
        own = () if not some else ("-" if right is None else f"{right[0]:.3f} [{right[1].lower:.3f}, {right[1].upper:.3f}]",)
        cells.append((model, *own, *(_figure(group.at(model, eps)) for eps in group.radii)))
    counts = sorted({c.measure.samples for c in group.cells})
    samples = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    note = (
        f"Estimate on {samples} samples, two numbers where some are undecided, and in brackets its interval for all inputs of "
        f"this kind. Best first at radius {group.telling:g}, where the networks differ most. Every count is in table.csv."
    )
    heads = ("network", *(("clean accuracy",) if some else ()), *(f"radius {eps:g}" for eps in group.radii))
    return Table(group.name.capitalize(), note, heads, (False, *[True] * (len(heads) - 1)), tuple(cells))


def correlation_at(group: Group, eps: float) -> Correlation | None:
    """Accuracy against the lower ends of the estimates at a radius; None where it is not defined."""
    both = [(group.accuracy(m), group.value(m, eps)) for m in group.distinct(group.models, eps)]
    pairs = [(a[0], v) for a, v in both if a is not None and v is not None]
    return spearman([a for a, _ in pairs], [v for _, v in pairs], group.cells[0].settings.confidence) if pairs else None


def accuracy_table(group: Group) -> Table | None:
    """Spearman's correlation of accuracy and robustness at each radius; None for fewer networks than it takes."""
    if sum(group.accuracy(m) is not None for m in group.models) < FEWEST:
        return None
    cells = []
    for eps in group.radii:
        found = correlation_at(group, eps)
        if found is None:
            cells.append((f"{eps:g}", "-", "-", "-"))
        else:
            i = found.interval
            cells.append((f"{eps:g}", f"{found.count:,}", f"{found.rho:+.2f}", f"{i.lower:+.2f} to {i.upper:+.2f}"))
    confidence = group.cells[0].settings.confidence
    note = (
        "Spearman's rank correlation of the share of samples that a network classifies rightly and its figure (lower end), over "
        "the networks; interval by Bonett and Wright, approximate. It speaks of networks like these, and says nothing of causes."
    )
    heads = ("radius", "networks", "correlation", f"interval ({100 * confidence:g} %)")
    return Table(f"Clean accuracy against {group.name}", note, heads, (True,) * 4, tuple(cells))


def group_table(group: Group, field: str, parts: Mapping[str, Sequence[str]]) -> Table:
    """Median and extremes of each group of networks, radius by radius."""
    cells = []
    for name, models in parts.items():
        own = []
        for eps in group.radii:
            values = [v for m in group.distinct(models, eps) for v in [group.value(m, eps)] if v is not None]
            own.append(f"{float(np.median(values)):.3f} ({min(values):.3f} to {max(values):.3f})" if values else "-")
        cells.append((name, f"{len({group.files.get(m, m) for m in models}):,}", *own))
    note = f"Median, smallest and largest lower end of the networks of each {field}. Networks differ in other ways too."
    heads = (field, "networks", *(f"radius {eps:g}" for eps in group.radii))
    return Table(f"{group.name.capitalize()} by {field}", note, heads, (False, *[True] * (len(heads) - 1)), tuple(cells))


def compared_table(group: Group, pair: tuple[str, ...]) -> Table | None:
    """Two networks on the samples that both have seen, radius by radius; None where they share no radius."""
    cells = []
    confidence = group.cells[0].settings.confidence
    for eps in group.radii:
        ends = [group.at(name, eps) for name in pair]
        if ends[0] is None or ends[1] is None:
            continue
        rows = [{row.index: row for row in cell.seen} for cell in ends if cell is not None]
        shared = [i for i in rows[0] if i in rows[1]]
        if not shared:
            continue
        s = ends[0].settings
        if group.metric == "accuracy":
            cells.append((f"{eps:g}", f"{len(shared):,}", "-", "-", "-", *_shares(ends[0], ends[1], shared)))
            continue
        told = [[holds(own[i], cell.settings) for i in shared] for own, cell in zip(rows, (ends[0], ends[1]), strict=True)]
        found = paired_shares(told[0], told[1], s.confidence)
        cells.append((
            f"{eps:g}", f"{found.count:,}", f"{found.first:,}", f"{found.second:,}", f"{found.open:,}",
            _between(found.lower, found.upper), f"{found.interval.lower:+.3f} to {found.interval.upper:+.3f}",
            f"{found.p_value:.2g}",
        ))  # fmt: skip
    if not cells:
        return None
    what = "the property holds, as far as the metric says"
    if group.metric == "pointwise":
        what = "the distance is larger than the radius"
    note = (
        f"On the samples that both have seen. Difference: {pair[0]} less {pair[1]}, the mean of the shares of points over the "
        "samples; interval by Student's t, approximate."
    ) if group.metric == "accuracy" else (
        f"On the samples that both have seen. Only: {what}, of that network alone. Difference: {pair[0]} less {pair[1]}, as a "
        "share; two numbers where samples are undecided. p: exact McNemar test, the larger of the readings of what is undecided."
    )
    heads = (
        "radius", "samples", f"only {pair[0]}", f"only {pair[1]}", "undecided", "difference",
        f"interval ({100 * confidence:g} %)", "p",
    )  # fmt: skip
    return Table(f"{group.name.capitalize()}: {pair[0]} against {pair[1]}", note, heads, (True,) * 8, tuple(cells))


def _shares(first: Cell, second: Cell, shared: Sequence[int]) -> tuple[str, str, str]:
    """Of uniform points: the mean difference of the shares that satisfy, sample by sample."""
    ends = []
    for cell in (first, second):
        draws = cell.settings.draws or 1
        own = {}
        for row in cell.seen:
            missing = draws if row.status == "failed" else draws - (row.drawn or 0) if row.status == "drawn" else 0
            own[row.index] = ((row.satisfied or 0) / draws, ((row.satisfied or 0) + missing) / draws)
        ends.append([own[i] for i in shared])
    low = [a[0] - b[1] for a, b in zip(*ends, strict=True)]
    high = [a[1] - b[0] for a, b in zip(*ends, strict=True)]
    n, confidence = len(shared), first.settings.confidence
    # where no sample differs there is no variance, and how many might differ is all that can be said
    interval = mean_interval(low, high, confidence) if any(low) or any(high) else paired_interval(0, 0, n, confidence)
    return _between(sum(low) / n, sum(high) / n), f"{interval.lower:+.3f} to {interval.upper:+.3f}", "-"


def _figure(cell: Cell | None) -> str:
    if cell is None or cell.measure.lower is None or cell.measure.upper is None:
        return "-"
    m = cell.measure
    value = f"{m.lower:.3f}" if m.lower == m.upper else f"{m.lower:.3f} to {m.upper:.3f}"
    return value if m.interval is None else f"{value} [{m.interval.lower:.3f}, {m.interval.upper:.3f}]"


def _between(low: float, high: float) -> str:
    return f"{low:+.3f}" if low == high else f"{low:+.3f} to {high:+.3f}"
