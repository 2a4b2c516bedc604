"""The figures that show samples one by one: the nearest, all of them, against each other, and beside references."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.evaluate.by_sample import SampleDistances, known
from onnxsub.evaluate.numbers import Digits
from onnxsub.report.distance_tables import at
from onnxsub.report.picture import (
    BLACK,
    COLOURS,
    GREY,
    MARK_ALL,
    MARKERS,
    REFERENCE,
    Picture,
    draw,
    legend_below,
    mark_size,
    slug,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DISTANCE", "Samples", "against", "left_out", "nearest", "percent", "ranked", "references"]

DISTANCE = "distance (L∞, input units)"
_MOST_ROWS = 25

Samples = Sequence[SampleDistances]


def percent(value: float | None) -> str:
    """A share in words."""
    return "an unknown share" if value is None else f"{100 * value:.3g} percent"


def left_out(samples: Samples) -> str:
    """Which samples a figure of finished ones is over, as a sentence."""
    ended = sum(known(s.status) for s in samples)
    reasons = [
        f"{n:,} {word}"
        for n, word in (
            (sum(s.status == "misclassified" for s in samples), "misclassified"),
            (sum(s.status == "pending" for s in samples), "not finished"),
            (sum(s.status == "failed" for s in samples), "failed"),
        )
        if n
    ]
    rest = f" (left out: {', '.join(reasons)})" if reasons else ""
    return f"Over the {ended:,} finished samples of {len(samples):,}{rest}."


def nearest(group: str, gamma: float, samples: Samples, digits: Digits) -> Picture | None:
    """Row by row what is known of the nearest samples."""
    everybody = _bracketed(samples)
    shown = everybody[:_MOST_ROWS]
    methods = _methods(shown, gamma)
    if not shown or not methods:
        return None
    method = methods[0]
    rows = np.arange(len(shown))

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        proved = _certified(shown, method, gamma)
        if proved:
            place, low_proved, high_proved = zip(*proved, strict=True)
            label = f"certified by {method}"
            axes.hlines(place, low_proved, high_proved, color=COLOURS[method], linewidth=5, alpha=0.3, label=label)
        low, high = [s.d_bnd_lower or 0.0 for s in shown], [s.d_bnd_upper or 0.0 for s in shown]
        axes.hlines(rows, low, high, color=BLACK, linewidth=2, label="d_bnd")
        axes.scatter(high, rows, color=BLACK, marker="|", s=40)
        for each in methods:
            found = _hats(shown, each, gamma)
            if found:
                place, values = zip(*found, strict=True)
                axes.scatter(
                    values, place, marker=MARKERS[each], facecolors="none", edgecolors=COLOURS[each], s=30, linewidths=1.3,
                    label=f"d_hat {each}",
                )  # fmt: skip
        attacked = [(i, s.d_adv) for i, s in enumerate(shown) if s.d_adv is not None]
        if attacked:
            place, values = zip(*attacked, strict=True)
            axes.scatter(values, place, marker="x", color=GREY, s=24, label="d_adv")
        _mark_references(axes, shown, lambda i, v: (v, i), 34)
        axes.set(xlabel=DISTANCE, ylabel="sample", yticks=rows, yticklabels=[str(s.index) for s in shown])
        axes.tick_params(axis="y", labelsize=9)
        axes.set_xlim(left=0)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        legend_below(figure)

    exact = sum(s.status == "exact" for s in shown)
    first = shown[0]
    which = f"the {len(shown)} nearest of {len(everybody):,}" if len(shown) < len(everybody) else f"all {len(shown)}"
    return draw(
        f"nearest-{slug(group)}-{gamma:g}", f"{group}: the nearest samples, gamma {gamma:g}",
        f"One row for each of {len(shown)} samples at gamma {gamma:g}: bracket of the network's own distance ({exact} of them "
        f"exact), what the {method} substitute certifies, d_hat and d_adv. The nearest is sample {first.index} with d_bnd "
        f"{digits.bracket(first.status, first.d_bnd_lower, first.d_bnd_upper)}.",
        f"The nearest sample on top, each under its position in the data; {which} with a distance. The black bar is the bracket of "
        f"the network's own distance, a tick where it is exact; the wide bar is what the {method} substitute proves of it.",
        paint, size=(4.8, max(3.0, 1.7 + 0.19 * len(shown))), group=group,
    )  # fmt: skip


def ranked(group: str, gamma: float, samples: Samples, digits: Digits) -> Picture | None:
    """All samples, from the nearest to the farthest, where they are more than single rows can show."""
    shown = _bracketed(samples)
    methods = _methods(shown, gamma)
    if len(shown) <= _MOST_ROWS or not methods:
        return None
    places = np.arange(1, len(shown) + 1)
    marks: dict[str, Any] = {"s": mark_size(len(shown)), "rasterized": len(shown) > MARK_ALL}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        low, high = [s.d_bnd_lower or 0.0 for s in shown], [float(s.d_bnd_upper or 0.0) for s in shown]
        axes.fill_between(places, low, high, color=BLACK, alpha=0.18, linewidth=0, step="mid", label="d_bnd, bracket")
        axes.step(places, high, where="mid", color=BLACK, linewidth=1.4, zorder=3, label="d_bnd")
        attacked = [(i, s.d_adv) for i, s in enumerate(shown, 1) if s.d_adv is not None]
        if attacked:
            axes.scatter(*zip(*attacked, strict=True), marker="x", color=GREY, linewidths=0.8, label="d_adv", **marks)
        for method in methods:
            found = [(i + 1, value) for i, value in _hats(shown, method, gamma)]
            if found:
                axes.scatter(
                    *zip(*found, strict=True), marker=MARKERS[method], facecolors="none", edgecolors=COLOURS[method],
                    linewidths=0.9, label=f"d_hat {method}", **marks,
                )  # fmt: skip
            proved = [(i + 1, value) for i, value, _ in _certified(shown, method, gamma)]
            if proved:
                label = f"certified by {method}"
                axes.scatter(*zip(*proved, strict=True), marker="_", color=COLOURS[method], linewidths=1.2, label=label, **marks)
        _mark_references(axes, shown, lambda i, v: (i + 1, v), marks["s"])
        axes.set(xlabel="samples, the nearest first", ylabel=DISTANCE, xlim=(0.5, len(shown) + 0.5))
        axes.set_ylim(bottom=0)
        legend_below(figure)

    exact = sum(s.status == "exact" for s in shown)
    ends = " to ".join(digits.near(s.d_bnd_upper) for s in (shown[0], shown[-1]))
    return draw(
        f"ranked-{slug(group)}-{gamma:g}", f"{group}: every sample, gamma {gamma:g}",
        f"{len(shown):,} samples in the order of their distances, {exact:,} of them exact; upper ends from {ends}.",
        f"{left_out(samples)} The grey band is the bracket of each distance; where it closes, the distance is exact. Marks called "
        "certified are lower ends that substitutes prove of the network.",
        paint, size=(4.8, 4.6), group=group,
    )  # fmt: skip


def against(group: str, gamma: float, samples: Samples, digits: Digits) -> Picture | None:
    """d_hat and d_adv against d_bnd, where that is exact."""
    seen = [s for s in samples if s.status == "exact" and s.d_bnd_upper]
    if not seen:
        return None
    hats: dict[str, list[tuple[float, float]]] = {m: [] for m in _methods(seen, gamma)}
    for s in seen:
        for method, points in hats.items():
            x = at(s, method, gamma)
            if x is not None and x.status == "exact" and x.d_hat_upper and s.d_bnd_upper:
                points.append((s.d_bnd_upper, x.d_hat_upper))
    attacks = [(s.d_bnd_upper, s.d_adv) for s in seen if s.d_adv and s.d_bnd_upper]
    ends = [v for pairs in [attacks, *hats.values()] for pair in pairs for v in pair]
    if not ends:
        return None
    low, high = min(ends) * 0.95, max(ends) * 1.05
    marks: dict[str, Any] = {"s": mark_size(len(seen)), "rasterized": len(seen) > MARK_ALL}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=GREY, linewidth=1, linestyle="--", label="equal")
        if attacks:
            axes.scatter(*zip(*attacks, strict=True), marker="x", color=BLACK, label="d_adv", **marks)
        for method, points in hats.items():
            if points:
                axes.scatter(
                    *zip(*points, strict=True), marker=MARKERS[method], facecolors="none", edgecolors=COLOURS[method],
                    linewidths=1.4, label=f"d_hat {method}", **marks,
                )  # fmt: skip
        axes.set(xlabel=f"d_bnd: {DISTANCE}", ylabel="d_hat, d_adv (input units)", xlim=(low, high), ylim=(low, high))
        axes.set_aspect("equal")
        legend_below(figure)

    said = []
    for method, points in hats.items():
        errors = [abs(hat / bnd - 1) for bnd, hat in points if bnd]
        if errors:
            said.append(f"{method} differs by {percent(sum(errors) / len(errors))} in the mean of {len(errors):,} samples")
    found = "; ".join(said) or "No substitute was answered exactly"
    return draw(
        f"distances-{slug(group)}-{gamma:g}", f"{group}: distances at gamma {gamma:g}",
        f"Scatter plot. {found}. Points on the dashed diagonal are equal to the network's own distance.",
        f"The {len(seen):,} samples whose own distance is known exactly. On the diagonal the substitute (or the attack) gives it.",
        paint, size=(4.8, 5.0), group=group,
    )  # fmt: skip


def references(group: str, samples: Samples) -> Picture:
    """d_bnd against the values that were given."""
    both = [s for s in samples if s.reference_difference is not None]
    marks: dict[str, Any] = {"s": mark_size(len(both)), "rasterized": len(both) > MARK_ALL}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        across = [float(s.reference or 0.0) for s in both]
        low = [s.d_bnd_lower or 0.0 for s in both]
        up = [s.d_bnd_upper for s in both]
        end = 1.05 * max([*across, *low, *(v for v in up if v is not None)])
        axes.plot([0, end], [0, end], color=GREY, linewidth=1, linestyle="--", label="equal")
        axes.vlines(across, low, [end if v is None else v for v in up], color=BLACK, linewidth=1.4, label="d_bnd, bracket")
        exact = [(s.reference, s.d_bnd_upper) for s in both if s.status == "exact"]
        if exact:
            axes.scatter(
                *zip(*exact, strict=True), marker="D", facecolors="none", edgecolors=REFERENCE, label="d_bnd, exact", **marks
            )
        axes.set(xlabel=f"reference: {DISTANCE}", ylabel="d_bnd (input units)", xlim=(0, end), ylim=(0, end))
        axes.set_aspect("equal")
        legend_below(figure)

    inside = sum(not s.reference_difference for s in both)
    worst = max(abs(s.reference_difference or 0.0) for s in both)
    return draw(
        f"reference-{slug(group)}", f"{group}: distances against the reference",
        f"Scatter plot of {len(both):,} samples; {inside:,} references lie within the bracket, the farthest {percent(worst)} "
        "beside it.",
        "On the dashed diagonal the distance is the reference. A bar that crosses it has the reference in its bracket.",
        paint, size=(4.8, 5.0), group=group,
    )  # fmt: skip


def _methods(samples: Samples, gamma: float) -> list[str]:
    return list(dict.fromkeys(x.method for s in samples for x in s.substitutes if x.gamma == gamma))


def _hats(samples: Samples, method: str, gamma: float) -> list[tuple[int, float]]:
    """Place among the samples and upper end of d_hat, where there is one."""
    found = [(i, at(s, method, gamma)) for i, s in enumerate(samples)]
    return [(i, x.d_hat_upper) for i, x in found if x is not None and x.asked and x.d_hat_upper is not None]


def _certified(samples: Samples, method: str, gamma: float) -> list[tuple[int, float, float]]:
    """Place among the samples and both ends that a substitute proves."""
    found = [(i, at(s, method, gamma)) for i, s in enumerate(samples)]
    return [
        (i, x.certified_lower, x.certified_upper)
        for i, x in found
        if x is not None and x.certified_lower is not None and x.certified_upper is not None
    ]


def _bracketed(samples: Samples) -> list[SampleDistances]:
    """Those whose distance is known from both sides, the nearest first."""
    return sorted((s for s in samples if known(s.status) and s.d_bnd_upper is not None), key=lambda s: s.near)


def _mark_references(axes: Any, samples: Samples, place: Callable[[int, float], tuple[float, float]], size: float) -> None:
    found = [place(i, s.reference) for i, s in enumerate(samples) if s.reference is not None]
    if found:
        across, up = zip(*found, strict=True)
        axes.scatter(across, up, marker="D", facecolors="none", edgecolors=REFERENCE, s=size, linewidths=1.4, label="reference")
