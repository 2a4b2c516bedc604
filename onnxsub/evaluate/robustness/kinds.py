"""What the units of `onnxsub robustness` do, by what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxsub.evaluate.robustness.settings import RobustnessSettings

__all__ = ["BATCH", "KIND_OF", "kind_of"]

KIND_OF: Mapping[str, str] = MappingProxyType(
    {"satisfaction": "decide", "security": "resist", "accuracy": "draw", "pointwise": "locate", "global": "decide"}
)
"""Metric -> kind of its units, where verdicts are found."""

BATCH = "resist_batch"
"""Kind of the units of `security` that are about several samples and all radii."""


def kind_of(settings: RobustnessSettings, batch: int = 0) -> str:
    """Of the units at one place: `decide`, `resist`, `draw`, `locate`, `maximise`, or with a batch `resist_batch`."""
    if settings.metric == "security" and batch:
        return BATCH
    return "locate" if settings.needs_distances else "maximise" if settings.quantitative else KIND_OF[settings.metric]
