"""The figures of distances of one network: their distribution, and sample by sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxsub.evaluate.numbers import Digits
from onnxsub.evaluate.spread import Quantity, quantities, spread_of
from onnxsub.report.picture import BLACK, COLOURS, GREY, REFERENCE, Picture, draw, legend_below, slug
from onnxsub.report.sample_figures import DISTANCE, Samples, against, left_out, nearest, ranked, references

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["distance_figures", "steps"]

_DASHES = ("-", "--", ":", "-.")


def distance_figures(group: str, samples: Samples, digits: Digits) -> Iterator[Picture]:
    """The pictures that the samples of one network and verifier have data for."""
    shown = [q for q in quantities(samples) if q.finite]
    if shown:
        yield _distribution(group, samples, shown, digits)
    for gamma in sorted({x.gamma for s in samples for x in s.substitutes}):
        for make in (nearest, ranked, against):
            picture = make(group, gamma, samples, digits)
            if picture is not None:
                yield picture
    if any(s.reference_difference is not None for s in samples):
        yield references(group, samples)


def steps(axes: Any, values: Sequence[float | None], **style: Any) -> None:
    """The share of all values that are at most x, as a curve over x; what is infinite keeps it below 1."""
    finite = sorted(v for v in values if v is not None)
    if finite:
        axes.step([0.0, *finite], np.arange(len(finite) + 1) / len(values), where="post", **style)


def _distribution(group: str, samples: Samples, shown: Sequence[Quantity], digits: Digits) -> Picture:
    by_name = {q.name: q for q in shown if q.method is None}
    hats = [q for q in shown if q.name == "d_hat_upper"]
    gammas = sorted({q.gamma for q in hats if q.gamma is not None}, reverse=True)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        low, high = by_name.get("d_bnd_lower"), by_name.get("d_bnd_upper")
        if low is not None and high is not None and low.finite != high.finite:
            _band(axes, low.values, high.values)
        if high is not None:
            steps(axes, high.values, color=BLACK, linewidth=2.4, label="d_bnd")
        for name, style, label in (
            ("d_adv", {"color": GREY, "linestyle": "--"}, "d_adv"),
            ("certified_lower", {"color": BLACK, "linestyle": ":"}, "certified lower end"),
            ("reference", {"color": REFERENCE, "linestyle": "-.", "linewidth": 2.2}, "reference"),
        ):
            if name in by_name:
                steps(axes, by_name[name].values, **style, label=label)
        for q in hats:
            assert q.method is not None
            assert q.gamma is not None
            dash = _DASHES[gammas.index(q.gamma) % len(_DASHES)]
            steps(axes, q.values, color=COLOURS[q.method], linestyle=dash, linewidth=1.4, label=f"d_hat {q.method} {q.gamma:g}")
        axes.set(xlabel=DISTANCE, ylabel="share of samples", ylim=(0, 1.02), xlim=(0, None))
        legend_below(figure)

    said = "".join(
        f" {word}: median {digits.near(spread_of('', '', by_name[name]).median)}."
        for name, word in (("d_bnd_upper", "d_bnd"), ("d_adv", "d_adv"), ("certified_lower", "Certified lower end"))
        if name in by_name
    )
    return draw(
        f"distribution-{slug(group)}", f"{group}: cumulative distribution of distances",
        f"Step curves of the share of finished samples whose distance is at most the value on the horizontal axis.{said}",
        f"{left_out(samples)} Curves of d_bnd and d_hat are of upper ends; the grey band reaches to the lower ends of d_bnd. A "
        "curve that ends below 1 has samples for which no boundary was found.",
        paint, size=(4.8, 4.4), group=group,
    )  # fmt: skip


def _band(axes: Any, low: Sequence[float | None], high: Sequence[float | None]) -> None:
    """Between the curves of the two ends."""
    ends = [np.sort([v for v in values if v is not None]) for values in (low, high)]
    at = np.concatenate([[0.0], np.unique(np.concatenate(ends))])
    left, right = (np.searchsorted(end, at, side="right") / len(low) for end in ends)
    axes.fill_between(at, left, right, step="post", color=BLACK, alpha=0.14, linewidth=0, label="d_bnd, bracket")
