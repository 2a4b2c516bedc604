r"""Intervals of all units of many nodes, where the node's row is not negative.

`w . e + k >= 0` holds at every point of interest, for the node's line. So a unit's own line `v . e + t` is there at most

    min_{g >= 0}  t + g k + |v + g w|_1

which two tangents find in a few passes (`compiled.py`). Units of the first layer are rows of the network; those of later layers are
pulled back over intervals that are new already, with slopes that were looked for at the root.

*Rounding*, in float32 with unit roundoff u: as in `bound.py` with sums of m products, `(2 m + 32) u` times the sum of
`|nu_k| spans_k`, `|q_k| spans_k` and the unit's own span. The n numbers of a norm are summed by 256 in float32 and then in float64:
`272 u` of it. k is raised by `32 u (|k| + |w|_1 + spans)` beyond what its own pass may be off by.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.propagate.adam import Adam
from onnxsub.verifiers.bab.dense.ball import Ball
from onnxsub.verifiers.bab.dense.bound import Evaluated, Lines, Nodes, attained, pull
from onnxsub.verifiers.bab.relu.kernels import compiled

__all__ = ["Slopes", "least_above", "narrowed", "slopes_of"]

_UNIT = 2.0**-24
_NORM = 1 + 272 * _UNIT
_NUMBERS = 2**18  # of the rows of units at a time: what stays in a core's cache
_TRIES = 5
_PASSES = 50  # over every number, by torch
_MODULE = "onnxsub.verifiers.bab.dense.compiled"

Slopes = Tensor
"""Lower slopes for the upper and the lower end of every unit, `(2, m, m)`."""


def slopes_of(ball: Ball, steps: int, budget: Budget | None = None) -> tuple[Slopes, Tensor, Tensor]:
    """Slopes for the ends of all units, and the intervals that they give on the whole ball, `(m,)` each.

    Args:
        budget: when it ends, the slopes that were found so far have to do.
    """
    m, parts = ball.units, ball.single
    lower, upper = ball.lower.clone(), ball.upper.clone()
    slopes = (upper > -lower).float().expand(2, m, m).clone()
    for number, s in enumerate(ball.layers[1:], 1):
        e, earlier = s.start, ball.layers[:number]
        a0, q0, k0 = (torch.cat([t[s], -t[s]]) for t in (parts.A, parts.B[:, :e], parts.b))
        alpha = slopes[:, s, :e].reshape(-1, e).clone()
        lines = Lines.of(lower[:e].expand(len(q0), -1), upper[:e].expand(len(q0), -1), alpha)
        adam = Adam([alpha], (0.1,), decay=0.1 ** (1 / max(steps, 1)))
        best, least = alpha.clone(), torch.full((len(q0),), torch.inf)
        for step in range(steps + 1):
            q, now = q0.clone(), lines.with_low(alpha)
            nu, total = pull(parts, earlier, now, q)
            w = torch.addmm(a0, nu, parts.A[:e])
            norm = w.abs().sum(1)
            size = (nu.abs() + q.abs()) @ ball.spans[:e] + ball.spans[s].repeat(2)
            value = k0 + total + nu @ parts.b[:e] + norm + _UNIT * ((2 * m + 32) * size + ball.inputs * norm)
            up = torch.nonzero(value < least)[:, 0]
            least[up], best[up] = value[up], alpha[up]
            if budget is not None and budget.over:
                break
            if step < steps:
                z = attained(parts, earlier, now, q, w)
                adam.step([q.clamp(max=0) * z * lines.open])
                alpha.clamp_(0, 1)
        high, low = least.reshape(2, -1)
        upper[s], lower[s] = torch.minimum(upper[s], high), torch.maximum(lower[s], -low)
        slopes[:, s, :e] = best.reshape(2, -1, e)
    return slopes, lower, upper


def narrowed(ball: Ball, nodes: Nodes, found: Evaluated, slopes: Slopes) -> Nodes:
    """The nodes with narrower intervals.

    Args:
        found: their bounds.
    """
    parts, spans, m = ball.single, ball.spans, ball.units
    lower, upper, cuts = nodes.lower.clone(), nodes.upper.clone(), nodes.cuts.clone()
    size = (found.nu.abs() + found.q.abs()) @ spans + 2 * found.w.abs().sum(1) + ball.row_spans[nodes.row]
    line = found.w, found.k + _UNIT * ((2 * m + 96) * size + found.k.abs())
    signed = torch.cat([parts.A, -parts.A])
    for number, s in enumerate(ball.layers):
        e = s.start
        at, unit = torch.nonzero((lower[:, s] < 0) & (upper[:, s] > 0), as_tuple=True)
        both, unit = at.repeat(2), (unit + e).repeat(2)
        down = torch.arange(len(both)) >= len(at)
        start = cuts[both, unit + m * down]
        high = torch.empty(len(both))
        if number == 0:
            t = torch.where(down, -parts.b[unit], parts.b[unit]) + 32 * _UNIT * spans[unit]
            high, start = least_above((signed, unit + m * down, t), (*line, both), start)
        else:
            lines = Lines.of(lower[:, :e], upper[:, :e], torch.zeros_like(lower[:, :e]))
            open_ = lines.open.float()
            each = max(1, _NUMBERS // ball.inputs)
            for begin in range(0, len(both), each):
                some = slice(begin, begin + each)
                v, t = _pulled(ball, signed, number, (lines, open_), slopes, (both[some], unit[some], down[some]))
                found_ = least_above((v, torch.arange(len(v)), t), (*line, both[some]), start[some])
                high[some], start[some] = found_
        cuts[both, unit + m * down] = start
        ends, low_ends = high.reshape(2, -1)
        unit = unit[: len(at)]
        upper[at, unit] = torch.minimum(upper[at, unit], ends)
        lower[at, unit] = torch.maximum(lower[at, unit], -low_ends)
    return Nodes(nodes.row, lower, upper, nodes.side, nodes.alpha, nodes.beta, cuts)


def _pulled(
    ball: Ball, signed: Tensor, number: int, known: tuple[Lines, Tensor], slopes: Slopes, which: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Lines above units or what they are times -1, `(R, n)` and `(R,)`.

    Args:
        number: of the layer.
        known: lines of all units before it, with lower slopes of 0 where they are open; 1 where they are, else 0.
        which: nodes, units and whether it is the lower end.
    """
    parts, spans, m = ball.single, ball.spans, ball.units
    node, unit, down = which
    e = ball.layers[number].start
    sign = 1 - 2 * down.float()
    q = parts.B[unit, :e] * sign[:, None]
    lines, open_ = known
    low = torch.addcmul(lines.low[node], open_[node], slopes[down.long(), unit, :e])
    mine = Lines(lines.slope[node], lines.offset[node], low, lines.open)
    nu, total = pull(parts, ball.layers[:number], mine, q)
    v = torch.index_select(signed, 0, unit + m * down).addmm_(nu, parts.A[:e]) if ball.reads[number] else nu @ parts.A[:e]
    size = (nu.abs() + q.abs()) @ spans[:e] + spans[unit]
    return v, parts.b[unit] * sign + total + nu @ parts.b[:e] + (2 * m + 32) * _UNIT * size


def least_above(rows: tuple[Tensor, Tensor, Tensor], lines: tuple[Tensor, Tensor, Tensor], start: Tensor) -> tuple[Tensor, Tensor]:
    """The bound of the module for N lines, `(N,)`, and the multipliers to begin with next time.

    Args:
        rows: v `(R, n)`, which of them `(N,)`, t `(N,)`.
        lines: w `(L, n)`, k `(L,)`, which of them `(N,)`.
        start: multipliers that may be nearly the best, `(N,)`; 0: not known.
    """
    v, which, t = rows
    w, k, line = lines
    loops = compiled(v, _PASSES * len(which) * v.shape[1], _MODULE)
    if loops is not None:
        out, start = torch.empty_like(t), start.clone()
        given = (tuple(x.contiguous().numpy() for x in xs) for xs in (rows, lines))
        loops.near_rows(*given, _NORM, _TRIES, start.numpy(), out.numpy())
        return torch.nextafter(out, torch.full_like(out, torch.inf)), start
    v, w, k = v[which], w[line], k[line].double()
    norm = w.abs().sum(1).double().clamp(min=1e-30)
    best, g = torch.full_like(k, torch.inf), torch.zeros_like(k)
    good = torch.zeros_like(k)
    ends = torch.zeros((2, 3, len(k)), dtype=torch.float64)  # multiplier, value and slope of the two tangents
    met = torch.zeros((2, len(k)), dtype=torch.bool)
    for _ in range(_TRIES + 1):
        g = g.float().double()
        d = torch.addcmul(v, g.float()[:, None], w)
        total = d.double().abs().sum(1)
        value, slope = t + g * k + total * _NORM, k + (d.sign() * w).double().sum(1)
        good = torch.where(value < best, g, good)
        best = torch.fmin(best, value)
        for side, here in enumerate((slope < 0, slope >= 0)):
            met[side] |= here
            ends[side] = torch.where(here, torch.stack([g, value, slope]), ends[side])
        (g0, f0, s0), (g1, f1, s1) = ends
        cross = (f0 - s0 * g0 - f1 + s1 * g1) / (s1 - s0)
        first = torch.where(g > 0, 2 * g, total / (2 * norm))
        g = torch.where(met.all(0), cross, torch.where(met[0], first, torch.zeros_like(g))).nan_to_num(0, 0, 0).clamp(0, 1e30)
    best = torch.where(best.isfinite(), best, torch.full_like(best, torch.inf))
    return torch.nextafter(best.float(), torch.full_like(t, torch.inf)), good.float()
