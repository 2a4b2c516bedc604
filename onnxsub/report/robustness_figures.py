"""The figures of a robustness run: shares, the curve of distances, how estimates settle, the interval of a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.evaluate.robustness.measure import rhos_of
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally, verdict_of
from onnxsub.evaluate.robustness.values import bracket_of
from onnxsub.metrics.convergence import ConvergenceRow
from onnxsub.metrics.pointwise import CurvePoint, curve
from onnxsub.metrics.sequential import Sequential
from onnxsub.report.picture import BLACK, COLOURS, GREY, LOOKS, Picture, draw, legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["curve_of", "robustness_figures", "settled_values"]

_VERDICTS = ("proved", "undecided", "violated", "misclassified")
_BLUE = COLOURS["lin"]
_POINTS = 120


def robustness_figures(
    model: str, rows: Sequence[SampleRow], counts: Tally, s: RobustnessSettings, settled: Sequence[ConvergenceRow]
) -> Iterator[Picture]:
    """The pictures that the metric has.

    Args:
        rows: those that the result is made of.
        settled: repeated estimates; none where the metric has no single value per sample.
    """
    yield _shares(model, counts, s)
    if s.metric == "pointwise":
        yield _frequency(model, curve_of(rows, s), s, len(rows))
    if s.metric == "accuracy":
        picture = _accuracy(model, rows, s)
        if picture is not None:
            yield picture
    if s.sequential:
        yield _sequence(model, rows, s)
    if settled:
        yield _convergence(model, settled, float(np.mean(settled_values(rows, s))), s)


def curve_of(rows: Sequence[SampleRow], s: RobustnessSettings) -> tuple[CurvePoint, ...]:
    """phi and mu over radii from 0 to beyond the largest distance that is known (at least to eps)."""
    rhos = rhos_of(rows)
    ends = [v for r in rhos for v in (r.lower, r.upper) if math.isfinite(v)]
    reach = 1.05 * max(*ends, s.eps, 1e-9)
    return curve(rhos, np.linspace(0.0, reach, _POINTS), s.confidence)


def settled_values(rows: Sequence[SampleRow], s: RobustnessSettings) -> list[float]:
    """One value per sample, for repeated estimates: of what is not decided the lower end."""
    if s.metric == "global":
        return [bracket_of(r, s)[0] for r in rows]
    if s.metric == "satisfaction":
        return [float(verdict_of(r, s) == "proved") for r in rows]
    return []


def _shares(model: str, counts: Tally, s: RobustnessSettings) -> Picture:
    found = {name: len(getattr(counts, name)) for name in _VERDICTS}
    shown = {name: n for name, n in found.items() if n}

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        left = 0.0
        for name, n in shown.items():
            colour, hatch = LOOKS[name]
            share = 100 * n / counts.seen
            axes.barh([0], [share], left=left, color=colour, hatch=hatch, edgecolor="white", label=f"{name} {n:,} ({share:.1f} %)")
            left += share
        axes.set(xlabel="share of samples (percent)", xlim=(0, 100), yticks=[], ylim=(-0.6, 0.6))
        axes.grid(axis="y", visible=False)
        legend_below(figure)

    said = ", ".join(f"{n:,} {name}" for name, n in shown.items())
    return draw(
        "shares", "Samples by verdict", f"One bar of {counts.seen:,} samples: {said}.",
        "Proved and undecided are never the same: an undecided sample may be either.", paint, size=(5.2, 2.2), group=model,
    )  # fmt: skip


def _frequency(model: str, points: Sequence[CurvePoint], s: RobustnessSettings, samples: int) -> Picture:
    radii = [p.eps for p in points]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        low, high = [p.band_lower for p in points], [p.band_upper for p in points]
        everybody = f"all inputs of this kind ({100 * s.confidence:g} %)"
        axes.fill_between(radii, low, high, step="post", color=_BLUE, alpha=0.15, linewidth=0, label=everybody)
        low, high = [p.frequency_lower for p in points], [p.frequency_upper for p in points]
        axes.fill_between(
            radii, low, high, step="post", color=_BLUE, alpha=0.35, linewidth=0, hatch="//", edgecolor="white", label="not decided"
        )
        axes.step(radii, low, where="post", color=_BLUE, label="surely within the radius")
        axes.axvline(s.eps, color=GREY, linestyle="--", linewidth=1, label=f"eps = {s.eps:g}")
        axes.set(xlabel="radius (L∞, input units)", ylabel="share of samples", xlim=(0, radii[-1]), ylim=(0, 1.02))
        legend_below(figure)

    at = max((p for p in points if p.eps <= s.eps), key=lambda p: p.eps)
    return draw(
        "frequency", "Adversarial frequency over the radius",
        f"Rising step curve over {samples:,} samples. At radius {at.eps:.4g} between {100 * at.frequency_lower:.3g} and "
        f"{100 * at.frequency_upper:.3g} percent of them have another class within the radius.",
        "How large a share of the samples has an input of another class within the radius. The hatched part is what is not "
        "decided; the wide band holds the whole curve of all inputs of this kind with the stated confidence.",
        paint, size=(5.2, 4.2), group=model,
    )  # fmt: skip


def _accuracy(model: str, rows: Sequence[SampleRow], s: RobustnessSettings) -> Picture | None:
    drawn = [r for r in rows if r.drawn]
    if not drawn:
        return None
    drawn.sort(key=lambda r: (r.satisfied or 0, r.lower or 0))
    shares = np.array([(r.satisfied or 0) / (r.drawn or 1) for r in drawn])

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        at = np.arange(len(drawn))
        axes.vlines(at, [r.lower or 0 for r in drawn], [1.0 if r.upper is None else r.upper for r in drawn], color=_BLUE, alpha=0.4)
        axes.plot(at, shares, color=BLACK, marker=".", linestyle="none", label="share of points that satisfy")
        axes.vlines([], [], [], color=_BLUE, alpha=0.4, label=f"its interval ({100 * s.confidence:g} %)")
        axes.set(xlabel="samples, from the lowest share to the highest", ylabel="share of uniform points")
        legend_below(figure)

    full = int((shares == 1.0).sum())
    return draw(
        "accuracy", "Uniform points that satisfy, sample by sample",
        f"{len(drawn):,} samples in ascending order of their share; {full:,} have a share of 1, the lowest is {shares[0]:.4g}.",
        "Every sample has an interval of its own (Clopper-Pearson). Uniform points rarely find what an attack finds.",
        paint, size=(5.2, 3.8), group=model,
    )  # fmt: skip


def _sequence(model: str, rows: Sequence[SampleRow], s: RobustnessSettings) -> Picture:
    sequence = Sequential(s.confidence, value_range=s.values, binary=not s.quantitative)
    low, high = [], []
    for row in rows:
        sequence.update(*bracket_of(row, s))
        low.append(sequence.interval.lower)
        high.append(sequence.interval.upper)
    at = np.arange(1, len(rows) + 1)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.fill_between(at, low, high, step="post", color=_BLUE, alpha=0.3, linewidth=0, label="interval")
        axes.step(at, low, where="post", color=_BLUE)
        axes.step(at, high, where="post", color=_BLUE)
        axes.set(xlabel="samples, in the random order in which they count", ylabel=_ylabel(s), ylim=s.values)
        legend_below(figure)

    return draw(
        "sequence", "The interval as samples came in",
        f"Two curves that close in on each other: after {len(rows):,} samples they are at {low[-1]:.4g} and {high[-1]:.4g}.",
        "All intervals hold together with the stated confidence, so stopping at the wanted width is allowed.",
        paint, size=(5.2, 3.8), group=model,
    )  # fmt: skip


def _convergence(model: str, settled: Sequence[ConvergenceRow], truth: float, s: RobustnessSettings) -> Picture:
    errors = [r.error for r in settled]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        wide = [1.25 * errors[0], *errors, errors[-1] / 1.25]
        low, high = ([min(max(truth + side * e, s.values[0]), s.values[1]) for e in wide] for side in (-1, 1))
        axes.fill_between(wide, low, high, color=GREY, alpha=0.15, linewidth=0, label="within the tolerance")
        axes.axhline(truth, color=GREY, linestyle="--", linewidth=1, label="all samples at hand")
        axes.errorbar(
            errors, [r.mean for r in settled], yerr=[[r.mean - r.smallest for r in settled], [r.largest - r.mean for r in settled]],
            fmt="o", color=_BLUE, capsize=4, label=f"smallest, mean, largest of {settled[0].repeats} subsets",
        )
        axes.set_xscale("log")
        axes.set_xlim(wide[0], wide[-1])
        axes.set_xticks(errors, [f"{e:g}" for e in errors])
        axes.minorticks_off()
        axes.set(xlabel="tolerance", ylabel=_ylabel(s))
        above = axes.secondary_xaxis("top")
        above.set_xticks(errors, [f"{r.samples:,}" for r in settled])
        above.minorticks_off()
        above.set_xlabel("samples in a subset")
        for axis in (axes, above):
            axis.tick_params(axis="x", labelsize=8.5, rotation=45 if len(errors) > 6 else 0)
        legend_below(figure)

    worst = min(r.within for r in settled)
    return draw(
        "convergence", "How repeated estimates settle",
        f"Estimates at {len(settled)} tolerances, each by {settled[0].repeats} subsets; at least {100 * worst:.3g} percent of "
        f"them are within the tolerance of {truth:.4g}.",
        f"For each tolerance {settled[0].repeats} subsets of as many samples as it asks for (upper axis) are drawn without "
        "replacement. A subset of nearly all samples cannot differ from them.",
        paint, size=(5.6, 4.4), group=model,
    )  # fmt: skip


def _ylabel(s: RobustnessSettings) -> str:
    return "mean of the value" if s.quantitative else "share that is robust"
