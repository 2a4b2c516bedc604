r"""An upper bound of a row over maxima on a box, in closed form for any multipliers.

Every group g of maxima gets a copy of what it reads, input and units before, held to the others by slopes `s_g` (Lagrangian
decomposition), and every unit that the row falls with is replaced by a mixture of its elements, depth by depth (`levels.py`). With
everything moved to `[-1, 1]` and `a . x + k` what is left in the end,

    row <= k + sum_g max_k (b_gk + |W_gk - s_g|_1) + |a|_1.

With one maximum per group the best slopes give what the hulls of all single maxima give (Anderson et al. 2020), with several the
joint hulls. A node leaves out choices. Slopes lie between the smallest and the largest slope of their elements; mixtures are the
softmax of `theta`.

Multipliers are improved by Adam on a smoothed bound: a softmax over the choices and a clipped line in place of the sign, both of
which sharpen as the steps get shorter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.propagate.adam import Adam
from onnxsub.verifiers.bab.pieces.groups import Groups
from onnxsub.verifiers.bab.pieces.levels import At, Level, Scaled
from onnxsub.verifiers.bab.pieces.maxima import Maxima

__all__ = ["Bounded", "Choices", "Multipliers", "Pace", "Sums", "improve"]

_OF_TERMS = 1e-12  # of the sizes of all terms: thousands of times what float64 can round
_STEEP = 0.1  # of the temperature: where the clipped line is the sign
_FASTER = 10.0  # the rate of theta in that of sigma
_CHUNK = 20  # steps after which nodes that are done are left out


@dataclass(frozen=True, eq=False)
class Choices:
    """What N nodes leave: choices of groups `(N, G, K)` and elements of units that the row may fall with `(N, J)`, bool."""

    groups: Tensor
    elements: Tensor

    def take(self, rows: Tensor) -> Choices:
        """Those of some nodes."""
        return Choices(self.groups[rows], self.elements[rows])

    @staticmethod
    def joined(parts: list[Choices]) -> Choices:
        """Those of several lots of nodes."""
        return Choices(torch.cat([p.groups for p in parts]), torch.cat([p.elements for p in parts]))


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Of N nodes: those of all depths one after the other, `sigma` `(N, G S)` and `theta` `(N, J)`, float32."""

    sigma: Tensor
    theta: Tensor

    def take(self, rows: Tensor) -> Multipliers:
        """Those of some nodes."""
        return Multipliers(self.sigma[rows], self.theta[rows])

    @staticmethod
    def joined(parts: list[Multipliers]) -> Multipliers:
        """Those of several lots of nodes."""
        return Multipliers(torch.cat([p.sigma for p in parts]), torch.cat([p.theta for p in parts]))


@dataclass(frozen=True)
class Pace:
    """How multipliers are improved.

    Attributes:
        steps: of Adam. rate: of the first step.
        end: share of the rate, and of the temperature, that is left at the last one.
        temperature: of the softmax over choices, in units of `Sums.unit`.
    """

    steps: int
    rate: float
    end: float
    temperature: float


@dataclass(frozen=True, eq=False)
class Bounded:
    """What multipliers bring: `value` proves what it says, `(N,)`; the rest is where to look.

    Attributes:
        z: weights of the choices, `(N, G, K)`. v: of the units, by their coordinates, `(N, Q)`.
        x: a point of `[-1, 1]^n`, `(N, n)`.
    """

    value: Tensor
    z: Tensor
    v: Tensor
    x: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of it."""
        return self.value, self.z, self.v, self.x

    def take(self, rows: Tensor) -> Bounded:
        """Those of some nodes."""
        return Bounded(*(part[rows] for part in self.parts))


class Sums:
    """A row within a radius, in one precision. `unit`: the sum of all spans.

    Attributes:
        scaled: the coordinates. inputs: n. groups: all choices of all groups, `(G, K)`, bool.
        places: of the elements of each unit that the row may fall with, among all of these.
    """

    def __init__(self, row: Maxima, groups: Groups, radius: float, dtype: torch.dtype) -> None:
        self.scaled, self.inputs = Scaled(row, radius), len(row.a)
        depths = sorted(set(row.depths.tolist()), reverse=True)
        self._levels = [Level(row, groups, self.scaled, depth, dtype) for depth in depths]
        self._sigma = np.cumsum([0, *(math.prod(level.shape) for level in self._levels)])
        self._theta = np.cumsum([0, *(level.elements for level in self._levels)])
        self.places: dict[int, slice] = {}
        for level, first in zip(self._levels, self._theta.tolist(), strict=False):
            self.places |= {q: slice(first + own.start, first + own.stop) for q, own in level.places.items()}
        self.groups = torch.from_numpy(groups.there)
        a, self._k = self.scaled.row()
        self._a = torch.from_numpy(a).to(dtype)
        self.unit = max(sum(level.unit for level in self._levels), 1e-30)

    def begin(self) -> tuple[Multipliers, Choices]:
        """Multipliers of one node to begin with, and all choices."""
        sigma, theta = torch.full((1, int(self._sigma[-1])), 0.5), torch.zeros((1, int(self._theta[-1])))
        return Multipliers(sigma, theta), Choices(self.groups[None], torch.ones_like(theta, dtype=torch.bool))

    def numbers(self) -> int:
        """How many a node's evaluation goes over."""
        return sum(level.numbers() for level in self._levels)

    def offsets(self, x: Tensor) -> Array:
        """Points of `[-1, 1]^n` as offsets from the anchor."""
        n = self.inputs
        found: Array = self.scaled.middle[:n] + self.scaled.half[:n] * x.double().numpy()
        return found

    def _backward(self, given: Multipliers, choices: Choices) -> tuple[list[At], Tensor, Tensor]:
        """All depths, what is left of the row, and the bound."""
        left, value, found = self._a[None], self._k + torch.zeros(len(given.sigma), dtype=self._a.dtype), []
        for i, level in enumerate(self._levels):
            sigma = given.sigma[:, self._sigma[i] : self._sigma[i + 1]].to(self._a.dtype).reshape(len(value), *level.shape)
            at = slice(self._theta[i], self._theta[i + 1])
            theta, elements = given.theta[:, at].to(self._a.dtype), choices.elements[:, at]
            own, left, more = level.backward(left, sigma, theta, choices.groups[:, level.slots], elements)
            found.append(own)
            value = value + more
        return found, left, value + left[:, : self.inputs].abs().sum(1)

    def evaluate(self, given: Multipliers, choices: Choices) -> Tensor:
        """The bound, in this precision; in float64 it is moved outward by what that can round."""
        return self._backward(given, choices)[2] + _OF_TERMS * self.scaled.size

    def gradient(self, given: Multipliers, choices: Choices, temperature: float) -> tuple[Bounded, Tensor, Tensor]:
        """The bound and the gradients of the smoothed one, of sigma and of theta."""
        at, left, value = self._backward(given, choices)
        n, N = self.inputs, len(value)
        left = left.expand(N, -1)
        x = torch.zeros_like(left)
        x[:, :n] = (left[:, :n] / (_STEEP * temperature)).clamp(-1.0, 1.0)
        z = x.new_zeros(choices.groups.shape)
        slope, turn = torch.zeros_like(given.sigma), torch.zeros_like(given.theta)
        for i in reversed(range(len(at))):
            level = self._levels[i]
            z[:, level.slots], own, turn[:, self._theta[i] : self._theta[i + 1]] = level.forward(at[i], x, temperature)
            slope[:, self._sigma[i] : self._sigma[i + 1]] = own.reshape(N, -1)
        return Bounded(value, z, left[:, n:], x[:, :n]), slope / self.unit, turn / self.unit


def improve(
    sums: Sums, start: Multipliers, choices: Choices, pace: Pace, budget: Budget
) -> tuple[Multipliers, Bounded]:
    """Multipliers of N nodes after some steps, with a bound that proves nothing yet: nodes below zero are left out on the way.

    Args:
        sums: in float32.
    """
    sigma, theta = start.sigma.clone(), start.theta.clone()
    N, n = len(sigma), sums.inputs
    shapes = (N, *sums.groups.shape), (N, len(sums.scaled.half) - n), (N, n)
    found = Bounded(torch.full((N,), math.inf), *(torch.zeros(shape) for shape in shapes))
    rows = torch.arange(N)
    decay = pace.end ** (1 / pace.steps)
    now = Multipliers(sigma.clone(), theta.clone())
    adam = Adam([now.sigma, now.theta], [pace.rate, _FASTER * pace.rate], decay=decay)
    temperature = pace.temperature * sums.unit
    for step in range(pace.steps + 1):
        if budget.over:
            break
        at, slope, turn = sums.gradient(now, choices, temperature * decay**step)
        if step % _CHUNK == 0 or step == pace.steps:
            for whole, part in zip((*found.parts, sigma, theta), (*at.parts, now.sigma, now.theta), strict=True):
                whole[rows] = part
            left = torch.nonzero(~(at.value < 0))[:, 0]
            if len(left) == 0:
                break
            if len(left) < len(rows):
                rows, choices = rows[left], choices.take(left)
                now = Multipliers(now.sigma[left].clone(), now.theta[left].clone())
                adam = adam.taken([now.sigma, now.theta], left)
                slope, turn = slope[left], turn[left]
        adam.step([slope, turn])
        now.sigma.clamp_(0.0, 1.0)
    return Multipliers(sigma, theta), found
