r"""An upper bound of a sum of maxima over a box, in closed form for any multipliers.

Every group g of maxima gets a copy of the input of its own, held to the others by slopes `s_g` (Lagrangian decomposition), and
every minimum i is replaced by a mixture `mu_i` of its elements. With the box moved to `[-1, 1]^n`, the elements `W_gk . x + b_gk`
of a group, one per choice of what is the largest in each of its maxima, and those `M_j . x + B_j` of the minima,

    row <= k + sum_g max_k (b_gk + |W_gk - s_g|_1) + sum_j mu_j B_j + |a + sum_j mu_j M_j + sum_g s_g|_1.

With one maximum per group the best slopes give what the hulls of all single maxima give (Anderson et al. 2020), with several the
joint hulls. A node leaves out choices. Slopes lie between the smallest and the largest slope of their elements, `s = sigma span`
above the smallest one, which is moved into a; mixtures are softmax of `theta`.

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
from onnxsub.verifiers.bab.pieces.maxima import Affines, Maxima

__all__ = ["Bounded", "Multipliers", "Pace", "Sums", "improve"]

_OF_TERMS = 1e-12  # of the sizes of all terms: thousands of times what float64 can round
_STEEP = 0.1  # of the temperature: where the clipped line is the sign
_FASTER = 10.0  # the rate of theta in that of sigma
_CHUNK = 20  # steps after which nodes that are done are left out
_NONE = -1e9  # theta of no element


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Of N nodes: `sigma` `(N, G, S)` and `theta` `(N, J)`, float32."""

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
        z: weights of the choices, `(N, G, K)`. x: a point of `[-1, 1]^n`, `(N, n)`.
    """

    value: Tensor
    z: Tensor
    x: Tensor


class Sums:
    """A row within a radius, in one precision. Names as in the module; `unit` is the sum of all spans.

    Attributes:
        middle, half: of the box, float64.
    """

    def __init__(self, row: Maxima, groups: Groups, radius: float, dtype: torch.dtype) -> None:
        low, high = row.within(radius)
        self.middle, self.half, self.dtype = (low + high) / 2, np.maximum((high - low) / 2, 0.0), dtype
        n = len(self.half)
        rising, falling = ([self._moved(e) for e in part] for part in (row.rising, row.falling))
        a, joined = row.a * self.half, groups.joined(tuple(rising))
        bases = [e.w.min(axis=0) for e in joined]
        spans = [np.ptp(e.w, axis=0) for e in joined]
        wide = max((int((s > 0).sum()) for s in spans), default=0)
        shape = (len(joined), groups.most, wide)
        W, b, index = np.zeros(shape), np.zeros(shape[:2]), np.full((len(joined), wide), n)
        there = np.zeros(shape[:2], dtype=np.bool_)
        for g, (e, base, span) in enumerate(zip(joined, bases, spans, strict=True)):
            used = np.flatnonzero(span > 0)
            a = a + base
            index[g, : len(used)] = used
            W[g, : len(e.b), : len(used)] = (e.w - base)[:, used]
            b[g, : len(e.b)], there[g, : len(e.b)] = e.b, True
        sizes = [len(e.b) for e in falling]
        first = np.cumsum([0, *sizes])
        members = np.full((len(sizes), max(sizes, default=0)), first[-1])
        for i, size in enumerate(sizes):
            members[i, :size] = first[i] + np.arange(size)
        self.there = torch.from_numpy(there)
        self.k = row.k + float(row.a @ self.middle)
        self._W, self._b, self._a = self._tensor(W), self._tensor(b), self._tensor(a)
        self._M = self._tensor(np.concatenate([np.zeros((0, n)), *(e.w for e in falling)]))
        self._B = self._tensor(np.concatenate([np.zeros(0), *(e.b for e in falling)]))
        self._index, self._members = torch.from_numpy(index).reshape(-1), torch.from_numpy(members)
        self._span = self._W.amax(1) if groups.most else self._tensor(np.zeros((0, wide)))
        self.unit = max(float(self._span.sum()), 1e-30)
        everything = (W, b[there], a, self._M.numpy(), self._B.numpy(), self.k, row.a * self.middle)
        self._size = float(sum(np.abs(t).sum() for t in everything))

    def _moved(self, e: Affines) -> Affines:
        return Affines(e.w * self.half, e.b + e.w @ self.middle)

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(self.dtype)

    def begin(self) -> Multipliers:
        """Multipliers of one node to begin with."""
        return Multipliers(torch.full((1, *self._span.shape), 0.5), torch.zeros((1, len(self._B))))

    def numbers(self) -> int:
        """How many a node's evaluation goes over."""
        return self._W.numel() + self._M.numel()

    def offsets(self, x: Tensor) -> Array:
        """Points of `[-1, 1]^n` as offsets from the anchor."""
        found: Array = self.middle + self.half * x.double().numpy()
        return found

    def mixtures(self, theta: Tensor) -> Tensor:
        """`mu`, `(N, J)`."""
        return self._flat(self._softmax(theta))

    def _softmax(self, theta: Tensor) -> Tensor:
        return torch.softmax(self._padded(theta, _NONE), 2) if theta.shape[1] else theta.new_zeros((len(theta), 0, 0))

    def _padded(self, values: Tensor, rest: float) -> Tensor:
        """One number per element of the minima as `(N, minima, most)`."""
        return torch.cat([values, values.new_full((len(values), 1), rest)], 1)[:, self._members]

    def _flat(self, values: Tensor) -> Tensor:
        found = values.new_zeros((len(values), len(self._B) + 1))
        found[:, self._members.reshape(-1)] = values.reshape(len(values), -1)
        return found[:, :-1]

    def _parts(self, sigma: Tensor, mu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`W - s`, the groups' elements at their best, and the slope that is left for all."""
        s = sigma * self._span
        apart = self._W - s[:, :, None, :]
        height = self._b + apart.abs().sum(3)
        left = torch.cat([self._a + mu @ self._M, s.new_zeros((len(s), 1))], 1).index_add(1, self._index, s.reshape(len(s), -1))
        return apart, height, left[:, :-1]

    def _value(self, height: Tensor, allowed: Tensor, mu: Tensor, left: Tensor) -> Tensor:
        best = height.masked_fill(~allowed, -math.inf).amax(2).sum(1) if height.shape[1] else 0.0
        return best + mu @ self._B + left.abs().sum(1) + self.k

    def evaluate(self, given: Multipliers, allowed: Tensor) -> Tensor:
        """The bound, in this precision; in float64 it is moved outward by what that can round."""
        mu = self.mixtures(given.theta.to(self.dtype))
        _, height, left = self._parts(given.sigma.to(self.dtype), mu)
        return self._value(height, allowed, mu, left) + _OF_TERMS * self._size

    def gradient(self, given: Multipliers, allowed: Tensor, temperature: float) -> tuple[Bounded, Tensor, Tensor]:
        """The bound and the gradients of the smoothed one, of sigma and of theta."""
        soft = self._softmax(given.theta)
        mu = self._flat(soft)
        apart, height, left = self._parts(given.sigma, mu)
        value = self._value(height, allowed, mu, left)
        z = torch.softmax((height / temperature).masked_fill(~allowed, -math.inf), 2)
        x = (left / (_STEEP * temperature)).clamp(-1.0, 1.0)
        own = torch.cat([x, x.new_zeros((len(x), 1))], 1)[:, self._index].reshape(given.sigma.shape)
        slope = own - (z[..., None] * apart.sign()).sum(2)
        rise = self._padded(self._B + x @ self._M.T, 0.0) if len(self._B) else soft
        turn = self._flat(soft * (rise - (soft * rise).sum(2, keepdim=True)))
        return Bounded(value, z, x), slope * self._span / self.unit, turn / self.unit


def improve(
    sums: Sums, start: Multipliers, allowed: Tensor, pace: Pace, budget: Budget
) -> tuple[Multipliers, Bounded]:
    """Multipliers of N nodes after some steps, with a bound that proves nothing yet: nodes below zero are left out on the way.

    Args:
        sums: in float32.
        allowed: `(N, G, K)`, bool: some choice of every group.
    """
    sigma, theta = start.sigma.clone(), start.theta.clone()
    n = len(sums.half)
    z = torch.zeros((len(sigma), *sums.there.shape))
    found = Bounded(torch.full((len(sigma),), math.inf), z, torch.zeros((len(sigma), n)))
    rows = torch.arange(len(sigma))
    decay = pace.end ** (1 / pace.steps)
    now = Multipliers(sigma.clone(), theta.clone())
    adam = Adam([now.sigma, now.theta], [pace.rate, _FASTER * pace.rate], decay=decay)
    temperature = pace.temperature * sums.unit
    for step in range(pace.steps + 1):
        if budget.over:
            break
        at, slope, turn = sums.gradient(now, allowed[rows], temperature * decay**step)
        if step % _CHUNK == 0 or step == pace.steps:
            for whole, part in ((found.value, at.value), (found.z, at.z), (found.x, at.x), (sigma, now.sigma), (theta, now.theta)):
                whole[rows] = part
            left = torch.nonzero(~(at.value < 0))[:, 0]
            if len(left) == 0:
                break
            if len(left) < len(rows):
                rows = rows[left]
                now = Multipliers(now.sigma[left].clone(), now.theta[left].clone())
                adam = adam.taken([now.sigma, now.theta], left)
                slope, turn = slope[left], turn[left]
        adam.step([slope, turn])
        now.sigma.clamp_(0.0, 1.0)
    return Multipliers(sigma, theta), found
