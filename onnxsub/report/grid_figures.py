"""Figures of a grid: curves over the radius, accuracy against robustness, box plots of groups of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxsub.metrics.correlation import FEWEST
from onnxsub.report.grid_group import Group
from onnxsub.report.grid_tables import correlation_at
from onnxsub.report.picture import BLACK, GREY, LINES, Picture, draw, legend_below, slug
from onnxsub.visible import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["accuracy_picture", "box_picture", "curves_picture"]

_MARKS = "osD^vPX*"
_NAMED = 15
_LONGEST = 34


def _short(name: str) -> str:
    """A name that leaves room for a figure."""
    shown = visible(name)
    return shown if len(shown) <= _LONGEST else f"{shown[:16]}…{shown[-17:]}"


def curves_picture(group: Group) -> Picture:
    """One line per network."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for k, model in enumerate(group.models):
            known = [c for eps in group.radii for c in [group.at(model, eps)] if c is not None and c.measure.lower is not None]
            colour, dash = LINES[k % len(LINES)]
            low, high = ([getattr(c.measure, end) or 0.0 for c in known] for end in ("lower", "upper"))
            at = [c.settings.eps for c in known]
            mark = _MARKS[k % len(_MARKS)]
            axes.plot(at, low, color=colour, linestyle=dash, marker=mark, markersize=4.5, label=_short(model))
            axes.vlines(at, low, high, color=colour, alpha=0.5, linewidth=1.2)
        axes.set(xlabel="radius (L∞, input units)", ylabel=group.what, ylim=(-0.02, 1.02))
        legend_below(figure)

    best = max(group.cells, key=lambda c: c.measure.lower or 0.0)
    return draw(
        f"curves-{group.file}", f"{group.name.capitalize()} over the radius",
        f"One line per network over {len(group.radii)} radii. The largest value is {best.measure.lower or 0.0:.3g}, of "
        f"{best.model} at radius {best.settings.eps:g}.",
        "Points are lower ends of the estimates; thin upright lines reach to the upper ends, where samples are undecided.",
        paint, size=(5.2, 3.6 + 0.2 * len(group.models)),
    )  # fmt: skip


def accuracy_picture(group: Group) -> Picture | None:
    """One point per network: how often it is right, and how robust it is. None for fewer networks than a correlation takes."""
    eps = group.telling
    known = [
        (m, a, c) for m in group.models for a, c in [(group.accuracy(m), group.at(m, eps))]
        if a is not None and c is not None and c.measure.lower is not None
    ]  # fmt: skip
    if len(known) < FEWEST:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for k, (model, (right, interval), cell) in enumerate(known):
            colour, _ = LINES[k % len(LINES)]
            low, high = cell.measure.lower or 0.0, cell.measure.upper or 0.0
            axes.hlines(low, interval.lower, interval.upper, color=colour, alpha=0.45, linewidth=1.1)
            own = cell.measure.interval
            ends = (low, high) if own is None else (own.lower, own.upper)
            axes.vlines(right, *ends, color=colour, alpha=0.45, linewidth=1.1)
            mark = _MARKS[k % len(_MARKS)]
            axes.plot([right], [low], color=colour, marker=mark, linestyle="none", markersize=6, label=_short(model))
        axes.set(xlabel="clean accuracy on the samples", ylabel=f"{group.what}, radius {eps:g}")
        if len(known) <= _NAMED:
            legend_below(figure)

    found = correlation_at(group, eps)
    said = "Their correlation is not defined" if found is None else (
        f"Spearman's correlation is {found.rho:+.2f}, interval {found.interval.lower:+.2f} to {found.interval.upper:+.2f}"
    )
    return draw(
        f"accuracy-{group.file}", f"Clean accuracy against {group.name}", f"One point for each of {len(known)} networks. {said}.",
        f"{said}, over {len(known)} networks. Bars are the intervals of each figure; the point is the lower end of the estimate at "
        "the radius at which the networks differ most.",
        paint, size=(5.2, 4.0 + (0.2 * len(known) if len(known) <= _NAMED else 0.0)),
    )  # fmt: skip


def box_picture(group: Group, field: str, parts: Mapping[str, Sequence[str]]) -> Picture | None:
    """A box per group of networks, and a point per network. None where nothing is known yet."""
    eps = group.telling
    values = {
        name: [v for m in group.distinct(models, eps) for v in [group.value(m, eps)] if v is not None]
        for name, models in parts.items()
    }
    values = {name: own for name, own in values.items() if own}
    if not values:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        boxes = axes.boxplot(list(values.values()), widths=0.55, showfliers=False, patch_artist=True)
        for box in boxes["boxes"]:
            box.set(facecolor="#56B4E9", alpha=0.35, edgecolor=BLACK)
        for line in boxes["medians"]:
            line.set(color="#D55E00", linewidth=2)
        for k, own in enumerate(values.values()):
            # points beside each other, so that equal ones are seen
            spread = [0.0] if len(own) == 1 else [0.36 * (i / (len(own) - 1) - 0.5) for i in range(len(own))]
            axes.plot([k + 1 + d for d in spread], own, color=GREY, marker="o", linestyle="none", markersize=4)
        long = max(map(len, values)) > 8 and len(values) > 3
        labels = [f"{_short(name)}\nn = {len(own)}" for name, own in values.items()]
        axes.set_xticks(range(1, len(values) + 1), labels, rotation=30 if long else 0, ha="right" if long else "center")
        axes.set(xlabel=field, ylabel=f"{group.what}\nradius {eps:g}", ylim=(-0.02, 1.02))
        axes.grid(axis="x", visible=False)

    said = "; ".join(f"{name}: {len(own)} networks from {min(own):.3g} to {max(own):.3g}" for name, own in values.items())
    return draw(
        f"boxes-{slug(field)}-{group.file}", f"{group.name.capitalize()} by {field}", f"One box per group. {said}.",
        "Box: quartiles; line: median; whiskers: farthest networks within 1.5 times the box; points: every network, by the lower "
        "end of its estimate. The radius is the one at which the networks differ most.",
        paint, size=(max(4.2, 1.0 * len(values) + 1.8), 4.0),
    )  # fmt: skip
