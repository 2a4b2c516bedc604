r"""Bounds of many nodes by one backward pass, gradients in closed form (the bound itself: `bab/bound.py`).

A row that reads the units by q is pulled back layer by layer. On a node, with `l <= z <= u`,

    q_j h_j <= nu_j z_j + t_j,   nu_j = q_j u_j / (u_j - l_j), t_j = -nu_j l_j   where q_j > 0
                                 nu_j = q_j alpha_j, t_j = 0                     where q_j <= 0

for open units; a split adds `beta_j z_j >= 0` (or `-beta_j z_j`) with `beta_j >= 0`. What is left is `w . e + k` over a cube.

*Rounding.* Every number is a sum of at most m or n products; with unit roundoff u, a coefficient that is off by x moves the bound
by at most x times what it multiplies, which is at most `spans`. So a bound in float64 is off by less than `(n + 4 m + 64) u` times
the sum of `|nu_k| spans_k`, `|q_k| spans_k`, `|w|_1` and the row's own span; ten times that is added.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onnxsub.propagate.adam import Adam
from onnxsub.verifiers.bab.dense.ball import Ball, Parts

__all__ = ["Evaluated", "Lines", "Nodes", "attained", "certified", "evaluate", "improve", "pull"]

_UNIT = 10 * 2.0**-53
_RATES = 0.1, 0.04  # of slopes, and of multipliers in units of `scale`


@dataclass(frozen=True, eq=False)
class Nodes:
    """N nodes of one ball, `(N, m)` each but for the row, float32.

    Attributes:
        row: number of the row, `(N,)`.
        lower, upper: intervals of z where the row is not negative.
        side: 1 or -1 where a split says `z >= 0` or `z <= 0`, else 0.
        alpha: lower slopes. beta: multipliers of splits, in units of what rows read.
        cuts: multipliers of the node's line for the upper and the lower ends of units, `(N, 2 m)`; 0: not known.
    """

    row: Tensor
    lower: Tensor
    upper: Tensor
    side: Tensor
    alpha: Tensor
    beta: Tensor
    cuts: Tensor

    def __len__(self) -> int:
        return len(self.row)

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of them."""
        return self.row, self.lower, self.upper, self.side, self.alpha, self.beta, self.cuts

    def take(self, rows: Tensor) -> Nodes:
        """Some of the nodes."""
        return Nodes(*(t[rows] for t in self.parts))

    @property
    def open(self) -> Tensor:
        """Units that are not decided, `(N, m)`."""
        return (self.lower < 0) & (self.upper > 0)

    @property
    def empty(self) -> Tensor:
        """Nodes with an interval that holds nothing, `(N,)`."""
        return (self.lower > self.upper).any(1)

    def children(self, unit: Tensor) -> Nodes:
        """Both halves of every node, all upper ones first, `(2 N,)`."""
        n = len(self)
        row, lower, upper, side, alpha, beta, cuts = (torch.cat([t, t]) for t in self.parts)
        here = torch.arange(n)
        lower[here, unit], upper[n + here, unit] = 0, 0
        side[here, unit], side[n + here, unit] = 1, -1
        return Nodes(row, lower, upper, side, alpha, beta, cuts)


@dataclass(frozen=True, eq=False)
class Lines:
    """Upper lines `slope z + offset` of units and lower ones `low z`, `(N, m)`."""

    slope: Tensor
    offset: Tensor
    low: Tensor
    open: Tensor

    @staticmethod
    def of(lower: Tensor, upper: Tensor, alpha: Tensor) -> Lines:
        """On intervals."""
        open_, on = (lower < 0) & (upper > 0), (lower >= 0).to(lower.dtype)
        # no least width here: a unit may be as small as float32 has numbers, and what reads it as large
        slope = torch.where(open_, upper / torch.where(open_, upper - lower, torch.ones_like(lower)), on)
        offset = torch.where(open_, -slope * lower, torch.zeros_like(lower))
        return Lines(slope, offset, torch.where(open_, alpha, on), open_)

    def take(self, rows: Tensor) -> Lines:
        """Those of some nodes."""
        return Lines(self.slope[rows], self.offset[rows], self.low[rows], self.open[rows])

    def with_low(self, alpha: Tensor) -> Lines:
        """Other lower slopes."""
        return replace(self, low=torch.where(self.open, alpha, self.low))


def pull(parts: Parts, layers: tuple[slice, ...], lines: Lines, q: Tensor, push: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """nu and the sum of the offsets; q `(N, m)` is completed in place."""
    nu, total = torch.empty_like(q), q.new_zeros(len(q))
    for s in reversed(layers):
        above, below = q[:, s].clamp(min=0), q[:, s].clamp(max=0)  # several times as fast as `where`
        nu[:, s] = torch.addcmul(above * lines.slope[:, s], below, lines.low[:, s])
        if push is not None:
            nu[:, s] += push[:, s]
        total += (above * lines.offset[:, s]).sum(1)
        if s.start:
            q[:, : s.start] += nu[:, s] @ parts.B[s, : s.start]
    return nu, total


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Linear functions `w . e + k` above the rows, and their largest values; q, nu and the lines that they are made of.

    Attributes:
        value: `(N,)`. w: `(N, n)`. k: `(N,)`. q, nu: `(N, m)`.
    """

    value: Tensor
    w: Tensor
    k: Tensor
    q: Tensor
    nu: Tensor
    lines: Lines

    def take(self, rows: Tensor) -> Evaluated:
        """Those of some nodes."""
        value, w, k, q, nu = (t[rows] for t in (self.value, self.w, self.k, self.q, self.nu))
        return Evaluated(value, w, k, q, nu, self.lines.take(rows))


def attained(parts: Parts, layers: tuple[slice, ...], lines: Lines, q: Tensor, w: Tensor) -> Tensor:
    """z where `w . e` is largest, with units on the lines that q has chosen, `(N, m)`: a bound's gradient is made of it."""
    m = q.shape[1]
    z = torch.addmm(parts.b[:m], w.sign(), parts.turned[:, :m])
    up, h = q > 0, torch.empty_like(q)
    for s in layers:
        if s.start:
            z[:, s] += h[:, : s.start] @ parts.B_turned[: s.start, s]
        at = z[:, s]
        h[:, s] = torch.where(up[:, s], lines.slope[:, s] * at + lines.offset[:, s], lines.low[:, s] * at)
    return z


def evaluate(ball: Ball, nodes: Nodes, scale: Tensor, lines: Lines | None = None, *, double: bool = False) -> Evaluated:
    """The bounds of nodes, in float32 or in float64.

    Args:
        scale: of beta, `(T, m)`.
        lines: of the nodes, where they are known.
    """
    parts, dtype = (ball.double, torch.float64) if double else (ball.single, torch.float32)
    if lines is None:
        lines = Lines.of(*(t.to(dtype) for t in (nodes.lower, nodes.upper, nodes.alpha)))
    q = parts.c[nodes.row]
    nu, total = pull(parts, ball.layers, lines, q, (nodes.side * nodes.beta * scale[nodes.row]).to(dtype))
    w = torch.addmm(parts.a[nodes.row], nu, parts.A)
    k = parts.k[nodes.row] + total + nu @ parts.b
    return Evaluated(k + w.abs().sum(1), w, k, q, nu, lines)


def certified(ball: Ball, nodes: Nodes, scale: Tensor) -> Tensor:
    """Proved upper bounds of the rows on the nodes, rounded outward, in float64; infinite where they are no numbers: `(N,)`."""
    found = evaluate(ball, nodes, scale, double=True)
    spans = ball.spans.double()
    size = (found.nu.abs() + found.q.abs()) @ spans + found.w.abs().sum(1) + ball.row_spans.double()[nodes.row]
    value = found.value + _UNIT * (ball.inputs + 4 * ball.units + 64) * size
    value = torch.where(value.isfinite(), value, torch.full_like(value, torch.inf))
    return torch.where(nodes.empty, torch.full_like(value, -torch.inf), value)


def improve(ball: Ball, nodes: Nodes, scale: Tensor, steps: int) -> tuple[Nodes, Evaluated]:
    """The nodes with the best slopes and multipliers of so many steps, and their bounds."""
    lines = Lines.of(nodes.lower, nodes.upper, nodes.alpha)
    alpha, beta = nodes.alpha.clone(), nodes.beta.clone()
    best = nodes.alpha.clone(), nodes.beta.clone()
    least = torch.full((len(nodes),), torch.inf)
    adam = Adam([alpha, beta], _RATES, decay=0.1 ** (1 / max(steps, 1)))
    open_, split = lines.open.float(), nodes.side
    for step in range(steps + 1):
        now = replace(nodes, alpha=alpha, beta=beta)
        found = evaluate(ball, now, scale, lines.with_low(alpha))
        up = torch.nonzero(found.value < least)[:, 0]
        least[up] = found.value[up]
        for kept, new in zip(best, (alpha, beta), strict=True):
            kept[up] = new[up]
        if step == steps or bool((least < 0).all()):
            break
        z = attained(ball.single, ball.layers, found.lines, found.q, found.w)
        adam.step([found.q.clamp(max=0) * z * open_, split * z])
        alpha.clamp_(0, 1)
        beta.clamp_(min=0)
    better = replace(nodes, alpha=best[0], beta=best[1])
    return better, evaluate(ball, better, scale)
