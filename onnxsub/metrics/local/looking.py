"""Anchors of a batch that is attacked, and how far points of their balls are beyond what a property allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.classification import ClassificationRobustness
from onnxsub.metrics.local.confidence import ConfidenceRobustness
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.standard import NORMS, StandardRobustness
from onnxsub.metrics.local.strong import StrongClassificationRobustness

__all__ = ["Looking", "excess_at"]


@dataclass(frozen=True, eq=False)
class Looking:
    """The anchors that a search still looks at, and what it needs of each.

    Attributes:
        rows: their places. x0: the anchors. low, high: ends of the ball. f0: outputs at the anchors. labels: classes, `(N, 1)`.
        aim: of cr, the one class that is to win, `(N, 1)`; None: any.
    """

    rows: Tensor
    x0: Tensor
    low: Tensor
    high: Tensor
    f0: Tensor
    labels: Tensor
    aim: Tensor | None

    def take(self, keep: Tensor) -> Looking:
        """Some of them."""
        return Looking(*(None if t is None else t[keep] for t in vars(self).values()))  # type: ignore[arg-type]

    def project(self, x: Tensor) -> Tensor:
        """The nearest points of the balls."""
        return torch.clamp(x, self.low, self.high)

    def parts(self, size: int) -> list[slice]:
        """All of them, so many at a time."""
        return [slice(at, at + size) for at in range(0, len(self.rows), size)]


def excess_at(prop: LocalProperty, f: Tensor, x: Tensor, look: Looking, part: slice) -> Tensor:
    """How far the outputs `(N, classes)` at points of some of the anchors are beyond what the property allows."""
    labels, f0 = look.labels[part], look.f0[part]
    match prop:
        case ClassificationRobustness():
            own = f.gather(1, labels)[:, 0]
            if look.aim is not None:
                return f.gather(1, look.aim[part])[:, 0] - own
            return f.scatter(1, labels, -math.inf).amax(1) - own
        case StandardRobustness():
            change: Tensor = torch.linalg.vector_norm(f - f0, ord=NORMS[prop.norm], dim=1)
            return change - prop.delta
        case StrongClassificationRobustness():
            return math.log(prop.eta) - f.log_softmax(1).gather(1, labels)[:, 0]
        case LipschitzRobustness():
            return (f - f0).abs().amax(1) - prop.lipschitz * (x - look.x0[part]).flatten(1).abs().amax(1)
        case ConfidenceRobustness():
            return (f.softmax(1) - f0.softmax(1)).abs().amax(1) - prop.gamma
        case _:
            raise ValueError(f"nothing says what property {prop.name} maximises; add it here")
