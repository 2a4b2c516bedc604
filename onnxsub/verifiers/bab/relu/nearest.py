r"""The distance of half-spaces within boxes by Newton's method: what `geometry.halfspace_radius` finds by a sort.

Within the radius r a half-space `c . d + k >= 0` is reached where

    g(r) = k + sum_i |c_i| min(stop_i, r) >= 0,

g concave and increasing. A Newton step from the left of its root stays on the left (its tangent lies above g), so every iterate is
a lower bound of the distance, and the root is met after finitely many steps; a step from the right lands on the left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.verifiers.bab.relu.kernels import compiled

__all__ = ["Reach", "Reached", "newton_radius", "reached"]

_STEPS = 60
_TINY = {torch.float32: 1e-37, torch.float64: 1e-300}


@dataclass(frozen=True, eq=False)
class Reach:
    """How far each coordinate can go in the direction of `c_i` (`stop`), and where it begins (`start`), `(B, n)` each.

    Attributes:
        size: `|c|`.
        sign: of c.
    """

    size: Tensor
    sign: Tensor
    stop: Tensor
    start: Tensor

    @staticmethod
    def of(c: Tensor, low: Tensor, high: Tensor) -> Reach:
        """For boxes `[low, high]`, `(B, n)`, the ends taken as they are."""
        positive = torch.gt(c, 0, out=torch.empty_like(c))
        negative = 1 - positive
        return Reach(c.abs(), c.sign(), positive * high - negative * low, positive * low - negative * high)

    def within(self, radius: Tensor) -> Tensor:
        """How far every coordinate goes at most within a radius `(B,)`: the offset `farthest` is `sign` times this."""
        return torch.minimum(self.stop, torch.maximum(self.start, radius[:, None]))


def newton_radius(reach: Reach, k: Tensor, least: Tensor, begin: Tensor | None = None, steps: int = _STEPS) -> Tensor:
    """The distance of every half-space, inf where the box does not reach it; a lower bound where the steps do not suffice: `(B,)`.

    Args:
        least: the distance of the box itself, at least 0.
        begin: a guess.
    """
    tiny = _TINY[k.dtype]
    radius = least if begin is None else torch.maximum(least, begin.nan_to_num(0.0, 0.0, 0.0))
    end, moving = torch.empty_like(reach.stop), torch.empty_like(reach.stop)
    left = begin is None  # of the root
    for _ in range(steps):
        at = radius[:, None]
        torch.minimum(reach.stop, at, out=end)
        torch.gt(reach.stop, at, out=moving)
        value, speed = k + torch.linalg.vecdot(reach.size, end), torch.linalg.vecdot(reach.size, moving)
        # where nothing moves, the value is all there is: it is reached at once, or nowhere
        still = torch.where(value >= 0, -torch.inf, torch.inf)
        new = torch.maximum(least, radius + torch.where(speed > 0, -value / speed.clamp(min=tiny), still))
        if left:
            new = torch.maximum(new, radius)
            if not bool((new > radius).any()):
                break
        radius, left = new, True
    return radius


@dataclass(frozen=True, eq=False)
class Reached:
    """Where lines `c . d + k` reach zero in boxes.

    Attributes:
        radius: the distance, `(B,)`.
        value: of the line at `point`.
        size: `|c|_1`.
        point: the farthest offset in the direction of c within the radius and `close`, `(B, n)`.
    """

    radius: Tensor
    value: Tensor
    size: Tensor
    point: Tensor


def reached(
    line: tuple[Tensor, Tensor], box: tuple[Tensor, Tensor], close: float, *, begin: Tensor | None = None, steps: int = _STEPS,
    whole: bool = False,
) -> Reached:  # fmt: skip
    """Distances and points of lines `(c, k)` in boxes `(low, high)`.

    Args:
        close: no point is farther.
        begin: guesses of the distances.
        whole: points lie as far as `close` lets them.
    """
    (c, k), (low, high) = line, box
    loops = compiled(c, 2 * c.numel(), kind=c.dtype)
    if loops is not None:
        radius, value, size = (torch.empty_like(k) for _ in range(3))
        point, guess = torch.empty_like(c), torch.zeros_like(k) if begin is None else begin
        sides, numbers = (tuple(t.contiguous().numpy() for t in ts) for ts in ((c, low, high), (radius, value, size)))
        loops.reached_rows(sides, k.contiguous().numpy(), guess.numpy(), (close, whole, steps), numbers, point.numpy())
        return Reached(radius, value, size, point)
    reach = Reach.of(c, low, high)
    radius = newton_radius(reach, k, torch.maximum(low, -high).amax(1).clamp(min=0), begin, steps)
    end = reach.within(torch.full_like(radius, close) if whole else radius.clamp(max=close))
    return Reached(radius, k + torch.linalg.vecdot(reach.size, end), reach.size.sum(1), reach.sign * end)
