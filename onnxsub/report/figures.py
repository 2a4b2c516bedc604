"""The figures of a run: distances, their distribution, speed against error, kept units, brackets of single samples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.evaluate.row import Row
from onnxsub.evaluate.summary import Line, mean
from onnxsub.report.picture import BLACK, COLOURS, GREY, MARKERS, Picture, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figures", "group_name", "slug"]

_DISTANCE = "distance (L∞, input units)"
_MOST_BRACKETS = 40
_NETWORK_MARKERS = "osD^vP*Xh<>p"
_DASHES = ("-", "--", ":", "-.")


def _plain(value: float, _: float = 0.0) -> str:
    return f"{value:g}"


def _blank(value: float, _: float = 0.0) -> str:
    return ""


def _narrow(lines: Sequence[Line]) -> bool:
    """Whether the speed-ups lie within a factor of ten, so that powers of ten alone would leave the axis bare."""
    values = [x.speed_up for x in lines if x.speed_up]
    return max(values) < 10 * min(*values, 1.0)


def figures(rows: Sequence[Row], lines: Sequence[Line]) -> Iterator[Picture]:
    """The pictures that the rows have data for, network by network."""
    several = len({r.verifier for r in rows}) > 1
    overview = _speed_against_error(lines, several)
    if overview is not None:
        yield overview
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(group_name(row.model, row.verifier, several), []).append(row)
    for group, members in groups.items():
        if any(r.d_adv for r in members):
            yield _distribution(group, members)
        for gamma in sorted({r.gamma for r in members}):
            chosen = [r for r in members if r.gamma == gamma]
            for make in (_distances, _brackets, _kept):
                picture = make(group, gamma, chosen)
                if picture is not None:
                    yield picture


def group_name(model: str, verifier: str, several: bool) -> str:
    """How a network is called, with the verifier where the run has several."""
    return f"{model}, {verifier.partition(':')[0]}" if several else model


def slug(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-")


def _methods(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(r.method for r in rows))


def _distances(group: str, gamma: float, rows: Sequence[Row]) -> Picture | None:
    """d_hat and d_adv against d_bnd, sample by sample."""
    seen = [r for r in rows if r.status_bnd == "exact" and r.d_bnd_upper]
    if not seen:
        return None
    ends = [v for r in seen for v in (r.d_bnd_upper, r.d_hat_upper if r.status_hat == "exact" else None, r.d_adv) if v]
    low, high = min(ends) * 0.95, max(ends) * 1.05

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--", label="equal")
        first = {(r.index): r for r in seen}.values()  # the attack is one per sample
        axes.scatter(
            [r.d_bnd_upper or 0 for r in first], [r.d_adv or 0 for r in first], marker="x", color=BLACK, s=26, label="attack, d_adv"
        )
        for method in _methods(seen):
            points = [(r.d_bnd_upper, r.d_hat_upper) for r in seen if r.method == method and r.status_hat == "exact"]
            if points:
                across, up = zip(*points, strict=True)
                axes.scatter(
                    across, up, marker=MARKERS[method], facecolors="none", edgecolors=COLOURS[method], s=34,
                    linewidths=1.4, label=f"{method}, d_hat",
                )  # fmt: skip
        axes.set(xlabel=f"d_bnd: {_DISTANCE}", ylabel=f"d_hat, d_adv: {_DISTANCE}", xlim=(low, high), ylim=(low, high))
        axes.set_aspect("equal")
        axes.legend(loc="upper left")

    said = []
    for method in _methods(seen):
        errors = [
            abs(r.d_hat_upper / r.d_bnd_upper - 1)
            for r in seen
            if r.method == method and r.status_hat == "exact" and r.d_hat_upper and r.d_bnd_upper
        ]
        if errors:
            said.append(f"{method} differs by {_percent(mean(errors))} in the mean of {len(errors)} samples")
    title = f"{group}: distances at gamma {gamma:g}"
    found = "; ".join(said) or "No substitute was answered exactly"
    alt = f"Scatter plot. {found}. Points on the dashed diagonal are equal to the network's own distance."
    caption = "Each point is a sample whose own distance is known exactly. On the diagonal the substitute (or the attack) gives it."
    return draw(f"distances-{slug(group)}-{gamma:g}", title, alt, caption, paint, size=(4.8, 4.6), group=group)


def _distribution(group: str, rows: Sequence[Row]) -> Picture:
    """Cumulative distribution of the distances' upper ends."""
    samples = {r.index: r for r in rows if r.status != "misclassified"}
    gammas = sorted({r.gamma for r in rows}, reverse=True)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        _steps(axes, [r.d_bnd_upper for r in samples.values()], len(samples), color=BLACK, linewidth=2.4, label="d_bnd")
        _steps(axes, [r.d_adv for r in samples.values()], len(samples), color=GREY, linestyle="--", label="d_adv")
        for method in _methods(rows):
            for gamma, dash in zip(gammas, _DASHES, strict=False):
                values = [r.d_hat_upper for r in rows if r.method == method and r.gamma == gamma and r.status != "misclassified"]
                _steps(
                    axes,
                    values,
                    len(samples),
                    color=COLOURS[method],
                    linestyle=dash,
                    linewidth=1.4,
                    label=f"d_hat {method} {gamma:g}",
                )
        axes.set(xlabel=_DISTANCE, ylabel="share of samples", ylim=(0, 1.02), xlim=(0, None))
        axes.legend(loc="lower right")

    known = [r.d_bnd_upper for r in samples.values() if r.d_bnd_upper]
    middle = f" Half of the samples have a distance of at most {np.median(known):.4g}." if known else ""
    return draw(
        f"distribution-{slug(group)}", f"{group}: cumulative distribution of distances",
        f"Step curves of the share of samples whose distance is at most the value on the horizontal axis.{middle}",
        "Upper ends of the brackets. Curves that lie on each other mean that the substitute's distances are distributed like the "
        "network's own; a curve that ends below 1 has samples for which no boundary was found.",
        paint, size=(4.8, 3.8), group=group,
    )  # fmt: skip


def _steps(axes: Any, values: Sequence[float | None], count: int, **style: Any) -> None:
    known = sorted(v for v in values if v is not None)
    if known and count:
        axes.step([0.0, *known], np.arange(len(known) + 1) / count, where="post", **style)


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
            axes.annotate(f"{x.gamma:g}", (100 * x.difference, x.speed_up), xytext=(5, 4), textcoords="offset points", fontsize=8.5)
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
        axes.set_xlim(left=0)
        axes.set(xlabel="mean relative difference of d_hat (percent)", ylabel="speed-up, pruning included (times)")
        figure.legend(loc="outside lower center", ncols=3)

    best = max(drawn, key=lambda x: x.speed_up or 0)
    alt = (
        f"Scatter plot with one point per network, method and gamma. The largest speed-up is {best.speed_up:.3g} times, "
        f"by {best.method} at gamma {best.gamma:g} on {best.model}, with a mean difference of {_percent(best.difference)}."
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
                axes.bar_label(bars, fmt="%.3g", fontsize=8.5, padding=1)
        axes.set(xlabel="activation, first to last", ylabel="kept units (mean over samples)", xticks=layers, xticklabels=layers + 1)
        axes.grid(axis="x", visible=False)
        figure.legend(loc="outside lower center", ncols=3)

    said = "; ".join(f"{m} keeps {', '.join(f'{v:.3g}' for v in means[m])}" for m in methods)
    return draw(
        f"kept-{slug(group)}-{gamma:g}", f"{group}: kept units per layer at gamma {gamma:g}",
        f"Bar chart of the mean number of kept units in each activation, first to last: {said}.",
        "Where the units are that the substitutes keep as they are.",
        paint, size=(4.8, 3.4), group=group,
    )  # fmt: skip


def _brackets(group: str, gamma: float, rows: Sequence[Row]) -> Picture | None:
    """What is known of each sample: the network's bracket, the certified one by the first method, d_hat and d_adv."""
    methods = _methods(rows)
    method = "lin" if "lin" in methods else methods[0]
    chosen = [r for r in rows if r.method == method and r.d_bnd_upper and r.d_adv]
    if not chosen:
        return None
    chosen.sort(key=lambda r: r.d_bnd_upper or 0)
    if len(chosen) > _MOST_BRACKETS:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, _MOST_BRACKETS).round().astype(int)]
    at = np.arange(len(chosen))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        certified = [
            (i, r.original_lower, r.original_upper)
            for i, r in enumerate(chosen)
            if r.original_lower is not None and r.original_upper
        ]
        if certified:
            position, low, high = zip(*certified, strict=True)
            axes.hlines(position, low, high, color=COLOURS[method], linewidth=5, alpha=0.3, label=f"certified by {method}")
        axes.hlines(
            at, [r.d_bnd_lower or 0 for r in chosen], [r.d_bnd_upper or 0 for r in chosen], color=BLACK, linewidth=2, label="d_bnd"
        )
        axes.scatter([r.d_bnd_upper or 0 for r in chosen], at, color=BLACK, marker="|", s=40)
        hats = [(r.d_hat_upper, i) for i, r in enumerate(chosen) if r.d_hat_upper]
        if hats:
            across, up = zip(*hats, strict=True)
            axes.scatter(across, up, marker=MARKERS[method], facecolors="none", edgecolors=COLOURS[method], s=34, label="d_hat")
        axes.scatter([r.d_adv or 0 for r in chosen], at, marker="x", color=GREY, s=24, label="d_adv")
        axes.set(
            xlabel=_DISTANCE,
            ylabel="sample (position in the data)",
            yticks=at,
            yticklabels=[str(r.index) for r in chosen],
            xlim=(0, None),
        )
        axes.tick_params(axis="y", labelsize=8.5)
        axes.set_ylim(-0.8, len(chosen) - 0.2)
        figure.legend(loc="outside lower center", ncols=4)

    exact = sum(r.status_bnd == "exact" for r in chosen)
    return draw(
        f"brackets-{slug(group)}-{gamma:g}", f"{group}: what is known of single samples, gamma {gamma:g}",
        f"Gamma {gamma:g}, one row for each of {len(chosen)} samples: the bracket of the network's own distance ({exact} of them "
        f"exact), the bracket that the {method} substitute certifies, its own distance and the attack's.",
        "The black bar is the bracket of the network's own distance, a tick where it is exact; the wide bar is what the substitute "
        "proves of the network. Samples are ordered by distance.",
        paint, size=(4.8, max(2.8, 1.5 + 0.19 * len(chosen))), group=group,
    )  # fmt: skip


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.3g} percent"
