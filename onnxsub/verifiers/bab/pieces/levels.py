r"""Units of one depth of a row, in closed form for any multipliers (`bound.py`).

All coordinates are moved to `[-1, 1]`: those of the input, and the values of units before, `u_q = middle_q + half_q x_q`. A unit is
`x_q = max_i (W_qi . x + b_qi)` over these; the row has a weight left for it, by the units behind. Where that is positive, the unit
is part of a group g with weights R_g and elements `W_gk = sum R W`, one per choice of what is the largest in each of its members:

    sum R u <= max_k (b_gk + |W_gk - s_g|_1) + s_g . x,    s_g = sum R base + sigma span,

base being the smallest and span the range of a member's slopes. Where it is negative, a mixture of its elements comes in its place.
Either way weights for units before and for the input are left, and a constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.pieces.groups import Groups
from onnxsub.verifiers.bab.pieces.maxima import Maxima

__all__ = ["At", "Level", "Scaled"]

_NONE = -1e9  # theta of no element
_LEAST = 1e-9  # of an interval's middle: half of the narrowest one


class Scaled:
    """The coordinates of a row within a radius: of the input, then of its units.

    Attributes:
        middle, half: `(n + Q,)`. size: no sum of terms of the row, with whatever multipliers, has larger terms in all.
    """

    def __init__(self, row: Maxima, radius: float) -> None:
        low, high = row.within(radius)
        n = self._n = len(low)
        self._row = row
        self.middle, self.half = (np.concatenate([part, np.zeros(len(row.units))]) for part in ((low + high) / 2, (high - low) / 2))
        self.half = np.maximum(self.half, 0.0)
        self.size = abs(row.k) + float(np.abs(row.a) @ (np.abs(self.middle) + self.half)[:n])
        for q, unit in enumerate(row.units):
            w = np.concatenate([unit.w, unit.v], axis=1)
            center, far = w @ self.middle + unit.b, np.abs(w) @ self.half
            least, most = max(np.maximum(unit.low, center - far)), max(np.minimum(unit.high, center + far))
            self.middle[n + q] = (least + most) / 2
            self.half[n + q] = max((most - least) / 2 * (1 + _LEAST), _LEAST * (1 + abs(self.middle[n + q])))
            terms = (np.abs(w) @ (np.abs(self.middle) + self.half) + np.abs(unit.b)).sum() + abs(self.middle[n + q])
            self.size += max(-row.ends[0][q], row.ends[1][q]) * float(terms)

    def unit(self, q: int) -> tuple[Array, Array]:
        """W `(K, n + Q)` and b `(K,)` of a unit."""
        unit, place = self._row.units[q], self._n + q
        w = np.concatenate([unit.w, unit.v], axis=1)
        return w * self.half / self.half[place], (w @ self.middle + unit.b - self.middle[place]) / self.half[place]

    def row(self) -> tuple[Array, float]:
        """The row."""
        w = np.concatenate([self._row.a, self._row.weights])
        return w * self.half, self._row.k + float(w @ self.middle)


@dataclass(frozen=True, eq=False)
class At:
    """Of N nodes at some multipliers: weights `(N or 1, ...)`, groups `(G, N, ...)`."""

    sigma: Tensor
    up: Tensor
    R: Tensor
    span: Tensor
    apart: Tensor
    height: Tensor
    allowed: Tensor
    down: Tensor
    mu: Tensor


class Level:
    """In one precision.

    Attributes:
        slots: which groups of the row these are. shape: `(G, S)`: of sigma.
        places: elements of the units that the row may fall with; elements: how many of all of these.
        unit: sum of all spans at the largest weights that there may be.
    """

    def __init__(self, row: Maxima, groups: Groups, scaled: Scaled, depth: int, dtype: torch.dtype) -> None:
        self._dtype, E, n = dtype, len(scaled.half), len(row.a)
        slots = [g for g, members in enumerate(groups.members) if row.depths[members[0]] == depth]
        self.slots = slice(slots[0], slots[-1] + 1) if slots else slice(0, 0)
        parts = {q: scaled.unit(q) for g in slots for q in groups.members[g]}
        used = [np.flatnonzero(np.sum([np.ptp(parts[q][0], axis=0) for q in groups.members[g]], axis=0) > 0) for g in slots]
        G, M, K, S = len(slots), groups.largest, groups.most, max((len(own) for own in used), default=0)
        W, b, span = np.zeros((G, M, K, S)), np.zeros((G, M, K)), np.zeros((G, M, S))
        self._read = bool((row.depths > depth).any())
        bases, index, place = np.zeros((len(parts), E)), np.full((G, S), E), np.full((G, M), len(parts))
        most, count = np.zeros((G, M)), 0
        for at, (g, own) in enumerate(zip(slots, used, strict=True)):
            index[at, : len(own)] = own
            for m, q in enumerate(groups.members[g]):
                w, offsets = parts[q]
                chosen = groups.choices[g][:, m]
                bases[count], place[at, m], most[at, m] = w.min(axis=0), count, row.ends[1][q] * scaled.half[n + q]
                W[at, m, : len(chosen), : len(own)] = (w - bases[count])[:, own][chosen]
                b[at, m, : len(chosen)] = offsets[chosen]
                span[at, m, : len(own)] = np.ptp(w, axis=0)[own]
                count += 1
        self.shape, self.unit = (G, S), float((most[:, :, None] * span).sum())
        self._W, self._b, self._spans, self._bases = (self._tensor(t) for t in (W, b, span, bases))
        self._index, self._place = torch.from_numpy(index).reshape(-1), torch.from_numpy(place)
        self._columns = torch.tensor(list(parts), dtype=torch.int64) + n  # by the order of groups
        self._falls(row, scaled, [q for q in row.falling if row.depths[q] == depth])

    def _falls(self, row: Maxima, scaled: Scaled, falling: list[int]) -> None:
        parts = [scaled.unit(q) for q in falling]
        sizes = [len(b) for _, b in parts]
        first = np.cumsum([0, *sizes])
        self.elements = int(first[-1])
        self.places = {q: slice(int(first[i]), int(first[i + 1])) for i, q in enumerate(falling)}
        self._F = self._tensor(np.concatenate([np.zeros((0, len(scaled.half))), *(w for w, _ in parts)]))
        self._B = self._tensor(np.concatenate([np.zeros(0), *(b for _, b in parts)]))
        pad = np.full((len(falling), max(sizes, default=0)), first[-1])
        for i, size in enumerate(sizes):
            pad[i, :size] = first[i] + np.arange(size)
        self._pad = torch.from_numpy(pad)
        self._falling = torch.tensor(falling, dtype=torch.int64) + len(row.a)
        self._owner = torch.from_numpy(np.repeat(np.arange(len(falling)), sizes))

    def _tensor(self, values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64)).to(self._dtype)

    def numbers(self) -> int:
        """How many a node's evaluation goes over."""
        return self._W.numel() + self._F.numel()

    def _mixtures(self, theta: Tensor, elements: Tensor) -> Tensor:
        if not theta.shape[1]:
            return theta
        padded = torch.cat([theta.masked_fill(~elements, _NONE), theta.new_full((len(theta), 1), _NONE)], 1)[:, self._pad]
        found = theta.new_zeros((len(theta), self.elements + 1))
        found[:, self._pad.reshape(-1)] = torch.softmax(padded, 2).reshape(len(theta), -1)
        return found[:, :-1]

    def backward(
        self, left: Tensor, sigma: Tensor, theta: Tensor, groups: Tensor, elements: Tensor
    ) -> tuple[At, Tensor, Tensor]:
        """What is left, `(N, E)`, and what is added to the bound, `(N,)`, with this depth's units replaced.

        Args:
            left: `(N or 1, E)`. sigma: `(N, G, S)`. theta: `(N, J)`.
            groups, elements: what may be chosen, `(N, G, K)` and `(N, J)`, bool.
        """
        (G, M, K, S), N = self._W.shape, len(sigma)
        up = left[:, self._columns].clamp(min=0.0)
        R = torch.cat([up, up.new_zeros((len(up), 1))], 1)[:, self._place].transpose(0, 1)  # (G, N or 1, M)
        span = R @ self._spans
        s = sigma.transpose(0, 1) * span
        apart = (R @ self._W.reshape(G, M, K * S)).reshape(G, R.shape[1], K, S) - s[:, :, None, :]
        height, allowed = R @ self._b + apart.abs().sum(3), groups.transpose(0, 1)
        bound = height.masked_fill(~allowed, -math.inf).amax(2).sum(0) if G else left.new_zeros(N)
        down, mu = left[:, self._falling].clamp(max=0.0), self._mixtures(theta, elements)
        coefficients = down[:, self._owner] * mu
        more = up @ self._bases + coefficients @ self._F
        found = torch.cat([(left + more).expand(N, -1), left.new_zeros((N, 1))], 1)
        found = found.index_add(1, self._index, s.transpose(0, 1).reshape(N, G * S))[:, :-1]
        return At(sigma, up, R, span, apart, height, allowed, down, mu), found, bound + coefficients @ self._B

    def forward(self, at: At, x: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the choices `(N, G, K)` and the derivatives by sigma and theta of a bound that is smoothed.

        Args:
            x: the point that multipliers stand for, `(N, E)`; this depth's units are written to it.
        """
        (G, M, K, S), N = self._W.shape, len(x)
        z = torch.softmax((at.height / temperature).masked_fill(~at.allowed, -math.inf), 2)
        pulls = z[..., None] * at.apart.sign()
        own = torch.cat([x, x.new_zeros((N, 1))], 1)[:, self._index].reshape(N, G, S).transpose(0, 1)
        slope = own - pulls.sum(2)
        rise = self._B + x @ self._F.T
        mean = x.new_zeros((N, len(self._falling))).index_add(1, self._owner, at.mu * rise)
        turn = at.down[:, self._owner] * at.mu * (rise - mean[:, self._owner])
        if self._read:
            inner = pulls.reshape(G, N, K * S) @ self._W.reshape(G, M, K * S).transpose(1, 2) + z @ self._b.transpose(1, 2)
            inner = inner + (slope * at.sigma.transpose(0, 1)) @ self._spans.transpose(1, 2)
            values = x.new_zeros((N, len(self._columns) + 1))
            values[:, self._place.reshape(-1)] = inner.transpose(0, 1).reshape(N, G * M)
            x[:, self._falling] = mean
            x[:, self._columns] = torch.where(at.up > 0, values[:, :-1] + x @ self._bases.T, x[:, self._columns])
        return z.transpose(0, 1), (slope * at.span).transpose(0, 1), turn
