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
from onnxsub.verifiers.bab.relu.kernels import compiled

__all__ = ["At", "Level", "Scaled"]

_NONE = -1e9  # theta of no element
_LOOPS = "onnxsub.verifiers.bab.pieces.compiled"
_FAR = -16.0  # of the temperature below the best one: choices that pull at nothing
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
    """Of N nodes at some multipliers.

    Attributes:
        sigma, span, s: `(N, G, S)`. up, down: weights of what the row rises and falls with, `(N or 1, ...)`.
        R: of members, `(N or 1, G, M)`. height: -inf where nothing is allowed, `(N, G, K)`. mu: `(N, J)`.
    """

    sigma: Tensor
    up: Tensor
    R: Tensor
    span: Tensor
    s: Tensor
    height: Tensor
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
        self._arrays = self._W.numpy(), self._b.numpy(), np.zeros_like(self._W.numpy(), shape=S)
        sizes = [(len(groups.members[g]), len(groups.choices[g]), len(own)) for g, own in zip(slots, used, strict=True)]
        self._sizes = np.array(sizes, dtype=np.int64).reshape(-1, 3)
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
        (G, _, _, S), N = self._W.shape, len(sigma)
        up = left[:, self._columns].clamp(min=0.0)
        R = torch.cat([up, up.new_zeros((len(up), 1))], 1)[:, self._place]
        span = (R.transpose(0, 1) @ self._spans).transpose(0, 1)
        s = sigma * span
        height = self._heights(R, s, groups)
        bound = height.amax(2).sum(1) if G else left.new_zeros(N)
        down, mu = left[:, self._falling].clamp(max=0.0), self._mixtures(theta, elements)
        coefficients = down[:, self._owner] * mu
        more = up @ self._bases + coefficients @ self._F
        found = torch.cat([(left + more).expand(N, -1), left.new_zeros((N, 1))], 1)
        found = found.index_add(1, self._index, s.reshape(N, G * S))[:, :-1]
        return At(sigma, up, R, span, s, height, down, mu), found, bound + coefficients @ self._B

    def forward(self, at: At, x: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of the choices `(N, G, K)` and the derivatives by sigma and theta of a bound that is smoothed.

        Args:
            x: the point that multipliers stand for, `(N, E)`; this depth's units are written to it.
        """
        (G, M, _, S), N = self._W.shape, len(x)
        below = (at.height - at.height.amax(2, keepdim=True)) / temperature if G else at.height
        z = torch.softmax(below.masked_fill(below < _FAR, -math.inf), 2)
        own = torch.cat([x, x.new_zeros((N, 1))], 1)[:, self._index].reshape(N, G, S)
        pulls, inner = self._pulls(at, z)
        slope = own - pulls
        rise = self._B + x @ self._F.T
        mean = x.new_zeros((N, len(self._falling))).index_add(1, self._owner, at.mu * rise)
        turn = at.down[:, self._owner] * at.mu * (rise - mean[:, self._owner])
        if self._read:
            inner = inner + ((slope * at.sigma).transpose(0, 1) @ self._spans.transpose(1, 2)).transpose(0, 1)
            values = x.new_zeros((N, len(self._columns) + 1))
            values[:, self._place.reshape(-1)] = inner.reshape(N, G * M)
            x[:, self._falling] = mean
            x[:, self._columns] = torch.where(at.up > 0, values[:, :-1] + x @ self._bases.T, x[:, self._columns])
        return z, slope * at.span, turn

    def _apart(self, R: Tensor, s: Tensor) -> Tensor:
        """`(G, N, K, S)`."""
        G, M, K, S = self._W.shape
        elements = (R.transpose(0, 1) @ self._W.reshape(G, M, K * S)).reshape(G, len(R), K, S)
        return elements - s.transpose(0, 1)[:, :, None, :]

    def _heights(self, R: Tensor, s: Tensor, groups: Tensor) -> Tensor:
        """`(N, G, K)`, -inf where a choice is left out."""
        loops = compiled(s, len(s) * self._W.numel(), _LOOPS)
        if loops is None:
            found = (R.transpose(0, 1) @ self._b + self._apart(R, s).abs().sum(3)).transpose(0, 1)
            return found.masked_fill(~groups, -math.inf)
        found = s.new_full(groups.shape, -math.inf)
        R = R.expand(len(s), -1, -1)
        loops.heights(R.numpy(), s.contiguous().numpy(), groups.numpy(), self._arrays, self._sizes, found.numpy())
        return found

    def _pulls(self, at: At, z: Tensor) -> tuple[Tensor, Tensor]:
        """How the choices pull at the slopes `(N, G, S)`, and what they give each member if it is read, `(N, G, M)`."""
        G, M, K, S = self._W.shape
        loops = compiled(z, len(z) * self._W.numel(), _LOOPS)
        if loops is None:
            each = z.transpose(0, 1)[..., None] * self._apart(at.R, at.s).sign()
            inner = each.reshape(G, len(z), K * S) @ self._W.reshape(G, M, K * S).transpose(1, 2)
            inner = inner + z.transpose(0, 1) @ self._b.transpose(1, 2)
            return each.sum(2).transpose(0, 1), inner.transpose(0, 1)
        found, inner = z.new_zeros(at.s.shape), z.new_zeros((len(z), G, M))
        R = at.R.expand(len(z), -1, -1)
        out = found.numpy(), inner.numpy()
        loops.pulls(R.numpy(), at.s.contiguous().numpy(), z.contiguous().numpy(), self._arrays, self._sizes, self._read, out)
        return found, inner
