r"""Lines above `f_t - f_y` on many nodes at once, and the gradient of their value at a point, both in closed form.

From the last Relu to the first, the coefficient `lam_j` of `h_j` meets the upper line `s_j z + o_j` where it is positive and the
lower line `alpha_j z` where it is not; multipliers of splits and cuts add to the coefficient `mu_j` of `z_j` (`bound.py`). With

    mu_j = max(lam_j, 0) s_j + min(lam_j, 0) alpha_j + push_j,    lam_i += sum_j mu_j W_ji,    c = a_t + mu A

the line's value at a point delta is a sum over the lines that were chosen. So its gradient needs one pass forward through these
lines (z and h below): the derivative by `alpha_j` is `min(lam_j, 0) z_j`, by the multiplier of a split `side_j z_j`, by that of
a cut `inner . z + offset - outer . h`. No graph is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.ops.relu import Relu
from onnxsub.verifiers.bab.relu.matrices import Matrices, Parts

Blocks = tuple[tuple[int, int], ...]

__all__ = ["Pulled", "Push", "Slopes", "gradient_parts", "pulled"]


@dataclass(frozen=True, eq=False)
class Slopes:
    """The lines of B nodes, `(B, U)` each: upper ones `slope z + offset`; the lower slope is free (1) or the same (0)."""

    slope: Tensor
    offset: Tensor
    free: Tensor

    @staticmethod
    def of(op: Relu, lower: Tensor, upper: Tensor) -> Slopes:
        """The lines on intervals; of any Relu, which are all alike."""
        found = op.relax(lower, upper, "crown")
        return Slopes(found.upper_slope, found.upper_offset, ((lower < 0) & (upper > 0)).to(lower.dtype))

    def low(self, alpha: Tensor) -> Tensor:
        """The lower slopes."""
        return torch.addcmul(self.slope, self.free, alpha - self.slope)

    def take(self, rows: Tensor | slice) -> Slopes:
        """The lines of some of the nodes."""
        return Slopes(self.slope[rows], self.offset[rows], self.free[rows])


@dataclass(frozen=True, eq=False)
class Push:
    """What multipliers add: to the coefficients of z, to those of h (None: nothing), and to the constant (None: nothing)."""

    inner: Tensor
    outer: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Pulled:
    """Upper lines `c . delta + k`, and what led to them: coefficients lam of h and mu of z, `(B, U)`."""

    c: Tensor
    k: Tensor
    lam: Tensor
    mu: Tensor


def pulled(
    parts: Parts, blocks: Blocks, rows: tuple[Tensor | None, Tensor, Tensor], lines: Slopes, low: Tensor, push: Push
) -> Pulled:
    """Pulls functions of all units and the offset back to the offset, from above.

    Args:
        blocks: of the units that the functions may depend on, the first ones.
        rows: coefficients of the offset, of the units and the constant, `(B, n)`, `(B, U)` and `(B,)`; without those of the offset
            the line's are left out too, since the caller makes them of mu.
        low: lower slopes.
    """
    own_a, own_w, k = rows
    lam = own_w.clone() if push.outer is None else own_w - push.outer
    mu = torch.empty_like(lam)
    for start, stop in reversed(blocks):
        here = lam[:, start:stop]
        positive = here.clamp(min=0)
        m = torch.addcmul(push.inner[:, start:stop], positive, lines.slope[:, start:stop])
        m.addcmul_(here - positive, low[:, start:stop])
        mu[:, start:stop] = m
        k = k + (positive * lines.offset[:, start:stop]).sum(1)
        if start:
            lam[:, :start].addmm_(m, parts.w[start:stop, :start])
    k = torch.addmv(k, mu, parts.b[: mu.shape[1]])
    if push.bias is not None:
        k = k + push.bias
    c = mu.new_zeros((0, 0)) if own_a is None else torch.addmm(own_a, mu, parts.a[: mu.shape[1]])
    return Pulled(c, k, lam, mu)


def gradient_parts(m: Matrices, lines: Slopes, low: Tensor, found: Pulled, point: Tensor) -> tuple[Tensor, Tensor]:
    """z and h of the lines that were chosen, at a point: `(B, U)` each."""
    parts = m.of(point.dtype)
    z = torch.addmm(parts.b, point, parts.a.T)
    positive = torch.gt(found.lam, 0, out=torch.empty_like(found.lam))
    slope = torch.addcmul(low, positive, lines.slope - low)
    offset = positive * lines.offset
    h = torch.empty_like(z)
    for start, stop in m.blocks:
        if start:
            z[:, start:stop].addmm_(h[:, :start], parts.w[start:stop, :start].T)
        torch.addcmul(offset[:, start:stop], slope[:, start:stop], z[:, start:stop], out=h[:, start:stop])
    return z, h
