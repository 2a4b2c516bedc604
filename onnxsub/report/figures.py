"""The figures of a run: distances, their distribution, speed against error, kept units, brackets of single samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.evaluate.row import Row
from onnxsub.evaluate.summary import Line
from onnxsub.report.distance_figures import distance_figures
from onnxsub.report.evaluation import Distances, group_name
from onnxsub.report.picture import COLOURS, GREY, Picture, draw, legend_below, slug
from onnxsub.report.sample_figures import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures"]

_NETWORK_MARKERS = "osD^vP*Xh<>p"
_BESIDE = {"lin": (6, 4), "act": (6, -12), "con": (-22, 4)}
"""Where the gamma of a point is written, in points."""


def _plain(value: float, _: float = 0.0) -> str:
    return f"{value:g}"


def _blank(value: float, _: float = 0.0) -> str:
    return ""


def _narrow(lines: Sequence[Line]) -> bool:
    """Whether the speed-ups lie within a factor of ten, so that powers of ten alone would leave the axis bare."""
    values = [x.speed_up for x in lines if x.speed_up]
    return max(values) < 10 * min(*values, 1.0)


def figures(rows: Sequence[Row], found: Distances) -> Iterator[Picture]:
    """The pictures that the rows have data for, network by network."""
    several = len({r.verifier for r in rows}) > 1
    overview = _speed_against_error(found.lines, several)
    if overview is not None:
        yield overview
    for group, members in found.groups.items():
        yield from distance_figures(group, members, found.digits[group])
        own = [r for r in rows if found.names[r.model, r.verifier] == group]
        for gamma in sorted({r.gamma for r in own}):
            picture = _kept(group, gamma, [r for r in own if r.gamma == gamma])
            if picture is not None:
                yield picture


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(r.method for r in rows))


def _speed_against_error(lines: Sequence[Line], several: bool) -> Picture | None:
    """One point per line of the table."""
    drawn = [x for x in lines if x.difference is not None and x.speed_up is not None]
    if not drawn:
        return None
    groups = list(dict.fromkeys(group_name(x.model, x.verifier, several) for x in drawn))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axhline(1.0, color=GREY, linewidth=1, linestyle="--")
        for x in drawn:
            marker = _NETWORK_MARKERS[groups.index(group_name(x.model, x.verifier, several)) % len(_NETWORK_MARKERS)]
            assert x.difference is not None
            assert x.speed_up is not None
            axes.scatter(100 * x.difference, x.speed_up, marker=marker, color=COLOURS[x.method], s=52)
            axes.annotate(
                f"{x.gamma:g}", (100 * x.difference, x.speed_up), xytext=_BESIDE[x.method], textcoords="offset points", fontsize=9.5
            )
        for method in dict.fromkeys(x.method for x in drawn):
            axes.scatter([], [], marker="s", color=COLOURS[method], label=method)
        if len(groups) > 1:
            for group, marker in zip(groups, _NETWORK_MARKERS, strict=False):
                axes.scatter([], [], marker=marker, color=GREY, label=group)
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_plain)
            axis.set_minor_formatter(_plain if axis is axes.yaxis and _narrow(drawn) else _blank)
        axes.set_xlim(left=-0.0015)  # a point at 0 is seen as a whole
        axes.set(xlabel="mean relative difference of d_hat (percent)", ylabel="speed-up, pruning included (times)")
        legend_below(figure)

    best = max(drawn, key=lambda x: x.speed_up or 0)
    alt = (
        f"Scatter plot with one point per network, method and gamma. The largest speed-up is {best.speed_up:.3g} times, "
        f"by {best.method} at gamma {best.gamma:g} on {best.model}, with a mean difference of {percent(best.difference)}."
    )
    caption = "Up and to the left is better. The number at a point is gamma. Below the dashed line pruning does not pay."
    return draw("speed-against-error", "Speed-up against error", alt, caption, paint, size=(5.0, 4.6))


def _kept(group: str, gamma: float, rows: Sequence[Row]) -> Picture | None:
    """Mean number of kept units per activation."""
    methods = [m for m in _methods(rows) if any(r.kept_per_layer for r in rows if r.method == m)]
    if not methods:
        return None
    means = {m: np.mean([r.kept_per_layer for r in rows if r.method == m and r.kept_per_layer], axis=0) for m in methods}
    layers = np.arange(len(next(iter(means.values()))))
    width = 0.8 / len(methods)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for i, method in enumerate(methods):
            at = layers + (i - (len(methods) - 1) / 2) * width
            bars = axes.bar(
                at,
                means[method],
                width * 0.94,
                color=COLOURS[method],
                label=method,
                hatch=("", "//", "..")[i % 3],
                edgecolor="white",
            )
            if len(layers) <= 4:
                axes.bar_label(bars, fmt="%.3g", fontsize=9.5, padding=1)
        axes.set(xlabel="activation, first to last", ylabel="kept units (mean over samples)", xticks=layers, xticklabels=layers + 1)
        axes.grid(axis="x", visible=False)
        legend_below(figure)

    said = "; ".join(f"{m} keeps {', '.join(f'{v:.3g}' for v in means[m])}" for m in methods)
    return draw(
        f"kept-{slug(group)}-{gamma:g}", f"{group}: kept units per layer at gamma {gamma:g}",
        f"Bar chart of the mean number of kept units in each activation, first to last: {said}.",
        "Where the units are that the substitutes keep as they are.",
        paint, size=(4.8, 3.4), group=group,
    )  # fmt: skip
