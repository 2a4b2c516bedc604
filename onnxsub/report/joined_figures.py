"""Figures of several runs: distributions over each other, one run against another, shares as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.evaluate.by_sample import known
from onnxsub.evaluate.numbers import Digits
from onnxsub.report.distance_figures import steps
from onnxsub.report.joined_tables import Member
from onnxsub.report.picture import BLACK, COLOURS, GREY, LINES, LOOKS, MARK_ALL, Picture, draw, legend_below, mark_size, slug
from onnxsub.report.sample_figures import DISTANCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["paired_scatter", "runs_distribution", "runs_shares"]

_LONGEST = 30


def _short(label: str) -> str:
    """A label that leaves room for a figure."""
    return label if len(label) <= _LONGEST else f"{label[:14]}…{label[-15:]}"


def runs_distribution(members: Sequence[Member], digits: Digits) -> Picture:
    """The distribution of the upper ends of d_bnd, one curve per run."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, m in enumerate(members):
            colour, dash = LINES[i % len(LINES)]
            values = [s.d_bnd_upper for s in m.samples if known(s.status)]
            steps(axes, values, color=colour, linestyle=dash, label=_short(m.label))
        axes.set(xlabel=DISTANCE, ylabel="share of samples", ylim=(0, 1.02), xlim=(0, None))
        legend_below(figure)

    said = []
    for m in members:
        x = next((x for x in m.spread if x.quantity == "d_bnd_upper"), None)
        said += [] if x is None else [f"{m.label}: median {digits.near(x.median)} of {x.samples:,} samples"]
    return draw(
        "distribution", "Cumulative distribution of distances",
        "Step curves of the share of finished samples whose distance is at most the value on the horizontal axis. "
        f"{'; '.join(said)}.",
        "Upper ends of d_bnd over the finished samples of each run; misclassified ones are left out. A curve further to the right "
        "is farther from the decision boundary.",
        paint, size=(4.8, 4.4),
    )  # fmt: skip


def paired_scatter(first: Member, other: Member) -> Picture | None:
    """The distance of each sample in one run against that in the first."""
    own = first.by_index
    both = [(own[s.index], s) for s in other.samples if s.index in own]
    ended = [(a.d_bnd_upper, b.d_bnd_upper) for a, b in both if known(a.status) and known(b.status)]
    points = [(a, b) for a, b in ended if a and b]
    if not points:
        return None
    end = 1.05 * max(v for pair in points for v in pair)
    marks: dict[str, Any] = {"s": mark_size(len(points)), "rasterized": len(points) > MARK_ALL}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, end], [0, end], color=GREY, linewidth=1, linestyle="--", label="equal")
        axes.scatter(*zip(*points, strict=True), facecolors="none", edgecolors=COLOURS["lin"], label="sample", **marks)
        axes.set(xlabel=f"{_short(first.label)} (input units)", ylabel=f"{_short(other.label)} (input units)")
        axes.set(xlim=(0, end), ylim=(0, end))
        axes.set_aspect("equal")
        legend_below(figure)

    below = sum(b < a for a, b in points)
    return draw(
        f"paired-{slug(other.label)}", f"{other.label} against {first.label}",
        f"Scatter plot of d_bnd of {len(points):,} samples in both runs; {below:,} lie below it: nearer in {other.label}.",
        "Upper ends of d_bnd (L∞, input units). Below the dashed diagonal a sample is nearer to the boundary than in the first "
        "run.",
        paint, size=(4.8, 5.0),
    )  # fmt: skip


def runs_shares(found: Mapping[str, Mapping[str, int]], what: str = "samples") -> Picture:
    """One bar per run, by verdict."""
    names = [v for v in next(iter(found.values())) if any(counts[v] for counts in found.values())]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        rows = np.arange(len(found))
        left = np.zeros(len(found))
        totals = np.array([max(sum(counts.values()), 1) for counts in found.values()])
        for name in names:
            colour, hatch = LOOKS[name]
            share = 100 * np.array([counts[name] for counts in found.values()]) / totals
            axes.barh(rows, share, left=left, color=colour, hatch=hatch, edgecolor="white", label=name)
            left += share
        axes.set(xlabel=f"share of {what} (percent)", xlim=(0, 100), yticks=rows, yticklabels=[_short(x) for x in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.tick_params(axis="y", labelsize=9, colors=BLACK)
        axes.grid(axis="y", visible=False)
        legend_below(figure)

    said = "; ".join(f"{label}: {', '.join(f'{counts[v]:,} {v}' for v in names)}" for label, counts in found.items())
    return draw(
        "shares", f"{what.capitalize()} by verdict, run by run", f"One bar for each of {len(found)} runs. {said}.",
        "Undecided is neither of the others: it may be either.", paint, size=(5.2, 1.7 + 0.42 * len(found)),
    )  # fmt: skip
