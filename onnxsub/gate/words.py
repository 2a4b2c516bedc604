"""Figures of a gate in words, the same ones wherever they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxsub.gate.comparison import Comparison
    from onnxsub.gate.options import GateOptions

__all__ = ["drop_words", "evidence_words", "measure_of", "percent", "points", "share_words"]


def measure_of(metric: str) -> str:
    """What a metric measures."""
    return {
        "satisfaction": "share of samples proved robust",
        "security": "share of samples that withstood the attack",
        "distance": "mean distance to another class",
    }[metric]


def percent(share: float) -> str:
    """`63.3 %`."""
    return f"{100 * share:.1f} %"


def share_words(count: int, of: int) -> str:
    """`38 of 60 samples (63.3 %)`."""
    return f"{count:,} of {of:,} samples ({percent(count / of)})"


def points(drop: float) -> str:
    """A difference of shares: `31.7 points`."""
    return f"{100 * drop:.1f} points"


def drop_words(c: Comparison, options: GateOptions, most: float) -> str:
    """What the baseline had, what the new model has, and how much less it may have."""
    lower, upper = c.new
    if options.metric == "distance":
        new = f"{lower:.4g}" if upper - lower < 1e-5 else f"{lower:.4g} to {upper:.4g}"
        old, fallen, allowed = f"{c.old:.4g}", _between(c, percent), percent(most)
    else:
        new = percent(lower) if upper == lower else f"{percent(lower)} ({percent(upper)} with the undecided samples)"
        old, fallen, allowed = percent(c.old), _between(c, points), points(most)
    return f"the {measure_of(options.metric)} went from {old} to {new}, {fallen}; at most {allowed} less is allowed"


def _between(c: Comparison, show: object) -> str:
    assert callable(show)
    low, high = c.least.drop, c.most.drop
    if show(low) == show(high):
        return "no change" if show(high) == show(0.0) else f"{show(abs(high))} {'less' if high > 0 else 'more'}"
    return f"between {show(low)} and {show(high)} less"


def evidence_words(c: Comparison, options: GateOptions) -> str:
    """How many samples fell and rose, how likely that is by chance, and where the difference lies among all inputs of the kind."""
    down, up = ("nearer", "farther") if options.metric == "distance" else ("lost", "won")
    i, scale = c.interval, 1.0 if options.metric == "distance" else 100.0
    unit = "" if options.metric == "distance" else " points"
    text = f"{c.most.down:,} {down}, {c.most.up:,} {up}: {c.test}, p = {c.most.p_value:.2g}"
    if c.least != c.most:
        least = c.least
        text += f" ({least.down:,} and {least.up:,}, p = {least.p_value:.2g}, with the undecided samples in the new model's favour)"
    return f"{text}; {100 * i.confidence:g} % interval of the drop {scale * i.lower:.3g} to {scale * i.upper:.3g}{unit}"
