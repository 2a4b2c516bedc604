"""Whether the property holds at a sample, as far as the metric can say."""

from __future__ import annotations

from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import verdict_of
from onnxsub.metrics.local.verdict import STOOD

__all__ = ["holds"]


def holds(row: SampleRow, settings: RobustnessSettings) -> bool | None:
    """True or False; None: not looked at, or open.

    Of `security` it holds where the attack failed within its limits, and is open where a limit ended the attack; of `accuracy` it
    holds where all points that were asked for satisfy.
    """
    verdict = verdict_of(row, settings)
    if verdict in ("violated", "misclassified"):
        return False
    if verdict == "proved":
        return True
    if row.status == "drawn" and row.drawn == settings.draws:
        return True
    return True if settings.metric == "security" and row.status == "undecided" and row.reason == STOOD else None
