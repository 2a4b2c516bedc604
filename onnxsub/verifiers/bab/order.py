r"""What a frontier orders its nodes by: the distance at which a target may be reached, or the largest value that a row may take.

Every node has a *key*, a proved lower bound of what is minimised over it; nodes with small keys come first, and a node whose key
reaches `close` is done.

- By distance, the key says that no point of the node at which its row is `>= 0` lies nearer to the anchor; `close` is the radius
that is asked about.
- By value, the key is minus the largest value that the node's line `c . delta + k >= row` takes on its box; `close` is minus the
  *level*, a value that is reached already.

In the order of values everything that a distance draws from `row >= 0` (intervals and boxes cut by the line, multipliers that push
it below zero) serves with `row >= level`: the level is taken off the network's output. It may only rise, so cuts made below it hold
on.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.bab.bound import Bounded, Bounder
from onnxsub.verifiers.bab.bounders import bounder_of, lowered
from onnxsub.verifiers.bab.frame import Frame

__all__ = ["BEYOND", "ByDistance", "ByValue", "Order", "lowered"]

BEYOND = 1.000001
"""Of the reach of a box: the radius that only nodes without any point of interest reach."""


class Order(Protocol):
    """How keys are made.

    Attributes:
        nothing: key of what has not been bounded yet.
    """

    nothing: float

    def bounder(self, frame: Frame, close: float, budget: Budget | None) -> Bounder:
        """What bounds nodes while `close` stands there."""
        ...

    def radius(self, frame: Frame, close: float) -> float:
        """The distance bound at which a node is done."""
        ...

    def keys(self, found: Bounded, parents: Tensor, close: float) -> Tensor:
        """The keys of bounded nodes, `(B,)`; a child's is not below its parent's."""
        ...

    def point(self, found: Bounded) -> Tensor:
        """The offsets that are worth a look, `(B, n)`."""
        ...


class ByDistance:
    """The distance of a node's points of interest from the anchor."""

    nothing = 0.0

    def bounder(self, frame: Frame, close: float, budget: Budget | None) -> Bounder:
        return bounder_of(frame, budget)

    def radius(self, frame: Frame, close: float) -> float:
        return close

    def keys(self, found: Bounded, parents: Tensor, close: float) -> Tensor:
        return found.nodes.radius

    def point(self, found: Bounded) -> Tensor:
        return found.point


class ByValue:
    """Minus the largest value of a node's row; one row, `whole` frames."""

    nothing = -math.inf

    def bounder(self, frame: Frame, close: float, budget: Budget | None) -> Bounder:
        return bounder_of(frame, budget, -close)

    def radius(self, frame: Frame, close: float) -> float:
        return frame.radius * BEYOND

    def keys(self, found: Bounded, parents: Tensor, close: float) -> Tensor:
        line, nodes = found.line, found.nodes
        largest = line.k + torch.where(line.c > 0, line.c * nodes.high, line.c * nodes.low).sum(1) - close
        # a line that is no number says nothing beyond what the parent says
        return torch.fmax(-largest, parents)

    def point(self, found: Bounded) -> Tensor:
        return torch.where(found.line.c > 0, found.nodes.high, found.nodes.low)
