"""What a sample adds to the mean of `--metric global`: a bracket of `g`, or of the quantity."""

from __future__ import annotations

from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings

__all__ = ["bracket_of"]


def bracket_of(row: SampleRow, settings: RobustnessSettings) -> tuple[float, float]:
    """`(lower, upper)` of one sample's value, within `settings.values`.

    Qualitative: `g` is 1 where the property holds; an undecided sample is `(0, 1)`, a misclassified one 0. Quantitative: of cr
    `min(rho, eps) / eps`; of the others the extreme of their quantity over the ball, as far as it is known, cut to the range.
    """
    if not settings.quantitative:
        known = {"proved": (1.0, 1.0), "violated": (0.0, 0.0), "misclassified": (0.0, 0.0)}
        return known.get(row.status, (0.0, 1.0))
    if settings.needs_distances:
        eps = settings.eps
        return min(row.lower or 0.0, eps) / eps, (eps if row.upper is None else min(row.upper, eps)) / eps
    low, high = settings.values
    lower = low if row.lower is None else min(max(row.lower, low), high)
    upper = high if row.upper is None else max(min(row.upper, high), lower)
    return lower, upper
