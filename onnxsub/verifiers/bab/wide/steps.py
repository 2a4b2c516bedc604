r"""Steps of Adam for all parameters of a bound (`bound.py`), with gradients in closed form.

The derivative of the bound goes through the points at which its terms are largest, which may be held (envelope theorem). With z*
and `h* = relu(z*)` of the units and `g = kappa (z* - z')`, that by h' is `B^T g - mu (h* - h')`, and that by nu

    A d' + B h* + b - z* + A ((A^T g) / lambda where d' is inside).

kappa is what the parameters say, divided by about the largest eigenvalue of the condition's matrix M: `s = tr(M^(p+1))^(1/(p+1))`,
whose logarithm has the derivative `(M^p M)_jj / tr` by the logarithm of kappa_j, and `-sum_ab M^p_ab R_aj R_bj / tr` by that of
mu_j, where `R = K^1/2 B mu^-1/2`. So M^p, a few squarings of small matrices, is all that is needed.

lambda is not improved by steps: the derivative by lambda_i has two parts, of the input's own term and of s, and is zero at a value
in closed form (`parts.squares_for`). The price in it is `P = -2 T / tr(M^(p+1)) K^1/2 M^p K^1/2`, T the derivative by log s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.propagate.adam import Adam
from onnxsub.verifiers.bab.wide.parts import AWAY, TINY, Multipliers, Part, Squares, squares_for, still

__all__ = ["Pace", "improve", "without_decided"]

_LAST = 0.05  # of the first step's size: the last one's
_SQUARINGS = 4  # p = 16: with 64 alike, 30 % too much
_PRICED = 2  # lots of steps with the same squares before the first price is taken
_ASKED, _ENOUGH = 10, 1e-3  # steps until it is asked whether all bounds are so far below zero, of k, that more of them are idle
_OLD = 0.5  # share of the last price in the next one


@dataclass(frozen=True)
class Pace:
    """How many steps, their first size, which falls to a twentieth, and after how many squares are made anew; 0: never.

    Attributes:
        every: steps for each that kappa and mu take, too.
    """

    steps: int
    rate: float
    renewed: int = 0
    every: int = 1


def without_decided(given: Multipliers, lower: Tensor, upper: Tensor) -> Multipliers:
    """The same where units that are off take no part in the squares: their h is 0, so mu may be endless; kappa is not needed."""
    off = upper <= 0
    kappa, mu = given.kappa.masked_fill(off, -AWAY), given.mu.masked_fill(off, AWAY)
    return replace(given, kappa=kappa, mu=mu, reach=given.reach.masked_fill(off, 0.0))


def _largest_at(lower: Tensor, upper: Tensor, rest: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Where every unit's term is largest on its interval, and its value there."""
    q, nu, kappa, mu, centre, reach = rest
    # off: a concave parabola on [lower, min(upper, 0)]; on: on [max(lower, 0), upper], else at an end
    end, begin = upper.clamp(max=0), lower.clamp(min=0)
    off = torch.minimum(torch.maximum(centre - nu / kappa, lower), end)
    bend = (kappa - mu).clamp(min=TINY)
    on = torch.minimum(torch.maximum((q - nu - mu * reach + kappa * centre) / bend, begin), upper)

    def value(z: Tensor, h: Tensor) -> Tensor:
        return q * h + mu / 2 * (h - reach) ** 2 - nu * z - kappa / 2 * (z - centre) ** 2

    z, best = off, value(off, off.clamp(min=0))
    for other in (on, begin, upper):
        v = value(other, other.clamp(min=0))
        up = v > best
        best, z = torch.where(up, v, best), torch.where(up, other, z)
    return z, best


@dataclass(frozen=True, eq=False)
class _Condition:
    """s of the module, `(N, 1)`, the derivatives of its logarithm, `(N, m)` each and, by `A Lambda^-1 A^T`, `(N, m, m)`."""

    scale: Tensor
    by_kappa: Tensor
    by_mu: Tensor
    by_gram: Tensor

    @staticmethod
    def of(gram: Tensor, b: Tensor, kappa: Tensor, mu: Tensor, first: int, last: int) -> _Condition:
        """For the logarithms of kappa and mu.

        Args:
            first, last: units before the first read none, and none reads the last or one behind it: b is zero there.
        """
        root = (kappa / 2).exp()
        r = root[:, first:, None] * b[first:, :last] * (-mu[:, :last] / 2).exp()[:, None, :]
        m = root[:, :, None] * gram * root[:, None, :]
        m[:, first:, first:] += r @ r.transpose(1, 2)
        size = m.abs().sum(2).amax(1).clamp(min=TINY)[:, None, None]
        power = once = m.div_(size)
        for _ in range(_SQUARINGS):
            power = power @ power
        each = (power * once).sum(2)
        total = each.sum(1, keepdim=True).clamp(min=TINY)
        by_mu = torch.zeros_like(mu)
        by_mu[:, :last] = -((power[:, first:, first:] @ r) * r).sum(1) / (total * size[:, 0])
        by_gram = root[:, :, None] * power * root[:, None, :] / (total * size[:, 0])[:, :, None]
        return _Condition(total ** (1 / (2**_SQUARINGS + 1)) * size[:, 0], each / total, by_mu, by_gram)


def improve(
    part: Part,
    start: Multipliers,
    ends: tuple[Tensor, Tensor],
    pace: Pace,
    squares: Squares | None = None,
    *,
    more: Tensor | None = None,
    budget: Budget | None = None,
) -> Multipliers:
    """Parameters after some steps of Adam; the best that every node met.

    Args:
        ends: intervals of the units, `(N, m)` each.
        squares: for all steps; default: those that fit the parameters.
        more: as for `evaluate`.
        budget: when it ends, so do the steps.
    """
    dtype, every = part.A.dtype, pace.every
    lower, upper = ends[0].to(dtype), ends[1].to(dtype)
    unit = start.unit.to(dtype)
    now = [t.to(dtype).clone() for t in (start.nu, start.reach, start.kappa, start.mu)]
    nu, reach, log_kappa, log_mu = now
    price = start.price.to(dtype).clone()
    held = squares is not None and not pace.renewed
    if not held:
        now.append(price)
    best = [t.clone() for t in now]
    off = upper <= 0
    held_units = off | still(lower, upper)  # whose squares stay as they are
    extra = None if more is None else more.to(dtype)
    lowest = torch.full((len(nu),), math.inf, dtype=dtype)
    often = Adam([nu, reach], [pace.rate] * 2, decay=_LAST ** (1 / pace.steps))
    rarely = Adam([log_kappa, log_mu], [pace.rate * min(every, 3)] * 2, decay=_LAST ** (every / pace.steps))
    middle, weight = (part.low + part.high) / 2, part.weight
    readers, read = (torch.nonzero(part.B.any(k))[:, 0] for k in (1, 0))
    first, last = (int(readers[0]), int(read[-1]) + 1) if len(read) else (len(part.b), 0)
    for step in range(pace.steps + 1):
        if budget is not None and budget.over:
            break
        if squares is None or (not held and pace.renewed and step % pace.renewed == 0):
            squares = squares_for(part, replace(start, nu=nu, price=price, unit=unit))
        lam = squares.lam.to(dtype)
        if step % every == 0:
            condition = _Condition.of(squares.gram.to(dtype), part.B, log_kappa, log_mu, first, last)
            kappa, mu = log_kappa.exp() / condition.scale, log_mu.exp()
        own = nu * unit
        moved = own if extra is None else own + extra
        w = torch.addmm(part.a, moved, part.A)
        free = torch.addcdiv(middle, w, lam)
        point = torch.minimum(torch.maximum(free, part.low), part.high)
        rows = (point @ part.A.T) * weight
        inputs = (w * point).sum(1) + (lam * (part.high - point) * (point - part.low)).sum(1) / 2
        centre = rows + torch.addmm(part.b, reach, part.B.T)
        q = torch.addmm(part.c, moved, part.B)
        z, terms = _largest_at(lower, upper, (q, own, kappa, mu, centre, reach))
        value = inputs * weight + terms.sum(1) + moved @ part.b + part.k
        up = value < lowest
        lowest = torch.where(up, value, lowest)
        for kept, t in zip(best, now, strict=True):
            kept.copy_(torch.where(up.reshape(-1, *[1] * (t.dim() - 1)), t, kept))
        if step == pace.steps or (more is None and step % _ASKED == 0 and bool((lowest < -_ENOUGH * part.k.abs()).all())):
            break
        h = z.clamp(min=0)
        away, g = h - reach, kappa * (z - centre)
        inside = (point > part.low) & (point < part.high)
        back = (g @ part.A).div_(lam).mul_(inside)
        by_nu = torch.addmm(rows + part.b - z, h, part.B.T).addmm_(back, part.A.T, alpha=weight)
        by_reach = torch.addmm(-mu * away, g, part.B)
        often.step([(by_nu * unit).nan_to_num_(0.0, 0.0, 0.0), by_reach.masked_fill_(off, 0.0).nan_to_num_(0.0, 0.0, 0.0)])
        if step % every == 0:
            by_kappa = g * (centre - z) / 2
            total = by_kappa.sum(1, keepdim=True)
            by_kappa = (by_kappa - total * condition.by_kappa).masked_fill_(held_units, 0.0)
            by_mu = (mu / 2 * away**2 - total * condition.by_mu).masked_fill_(off, 0.0)
            rarely.step([by_kappa.nan_to_num_(0.0, 0.0, 0.0), by_mu.nan_to_num_(0.0, 0.0, 0.0)])
        if not held and pace.renewed and (step + 1) % pace.renewed == 0 and step + 1 >= _PRICED * pace.renewed:
            now_paid = condition.by_gram * (-2 * total.clamp(max=0))[:, :, None]
            price.mul_(_OLD).add_(now_paid.nan_to_num_(0.0, 0.0, 0.0), alpha=1 - _OLD)
    nu, reach, log_kappa, log_mu, price = (t.double() for t in (*best, start.price)[:5])
    return replace(start, nu=nu, reach=reach, kappa=log_kappa, mu=log_mu, price=price)
