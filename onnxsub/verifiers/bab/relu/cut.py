r"""What `propagate/halfspace.py` computes, for some rows of each of many boxes: every pass goes over memory that lies in a cache.

    min { a . x + b : x in box, c . x + k >= 0 } >= f(v) = min_{x in box} (a - v c) . x + b - v k    for every v >= 0

f is concave and made of straight pieces. Two tangents, one where it rises and one where it falls, meet above its top, and the
next v is where they meet; the first two are those at v = 0 and at infinity. The v are found in float32; the value that counts is
one pass in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsub.verifiers.bab.relu.kernels import compiled

__all__ = ["Halved"]

_PASSES = 6  # over every row
_TANGENTS = 6
_TINY = 1e-300


class Halved:
    """B boxes, each cut by a half-space `c . x + k >= 0`.

    Args:
        c, low, high: `(B, n)` float64. k: `(B,)`.
        rows: that will be asked for, about.
    """

    def __init__(self, c: Tensor, k: Tensor, low: Tensor, high: Tensor, rows: int = 0) -> None:
        self._c = c[:, None]
        self._half, self._centre = ((high - low) / 2)[:, None], ((high + low) / 2)[:, None]
        self._loops = compiled(c, _PASSES * rows * c.numel(), kind="cut")
        if self._loops is not None:
            self._middle = (c * self._centre[:, 0]).sum(1) + k
            return
        reach = self._c * self._half
        self._middle = (self._c * self._centre).sum(2) + k[:, None]
        self._scale = 1 / reach.abs().sum(2).clamp(min=_TINY)  # functions range over 2 in what float32 sees
        self._reach = (reach * self._scale[..., None]).float()
        self._side = self._reach.sign()
        self._offset = (self._middle * self._scale).float()

    def minimum(self, a: Tensor, b: Tensor, sign: float = 1.0) -> Tensor:
        """Lower bounds of `sign (a . x + b)`, `(B, R, n)` and `(B, R)`: `(B, R)`."""
        if self._loops is not None:
            out = torch.empty_like(b)
            box = tuple(t.contiguous().numpy() for t in (self._c[:, 0], self._centre[:, 0], self._half[:, 0]))
            self._loops.cut_rows(a.contiguous().numpy(), b.contiguous().numpy(), sign, box, self._middle.numpy(), out.numpy())
            return out
        a, b = (a, b) if sign > 0 else (-a, -b)
        room = a * self._half
        width = room.abs().sum(2)
        v = self._multipliers((room / width.clamp(min=_TINY)[..., None]).float()).to(a.dtype) * (width * self._scale)
        middle = torch.mul(a, self._centre, out=room).sum(2) + b
        torch.addcmul(a, v[..., None], self._c, value=-1, out=room)
        value = middle - v * self._middle - room.abs_().mul_(self._half).sum(2)
        # a multiplier that overflows proves nothing, and must not hide what plain bounds prove
        return torch.fmax(middle - width, value).nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)

    def _multipliers(self, a: Tensor) -> Tensor:
        """About where f is largest, for rows `a half` of width 1, in float32: `(B, R)`."""
        room = torch.empty_like(a)
        # tangents `value + slope v`: at 0, where f rises if the half-space cuts anything off, and far away
        value = -torch.ones_like(a[..., 0])
        slope = torch.mul(torch.sign(a, out=room), self._reach, out=room).sum(2) - self._offset
        up = (value, slope)
        down = torch.mul(a, self._side, out=room).sum(2), (-1 - self._offset).expand_as(slope)
        best, top = torch.zeros_like(value), value
        for step in range(_TANGENTS):
            v = ((down[0] - up[0]) / (up[1] - down[1])).nan_to_num(0.0, 0.0, 0.0).clamp(min=0)
            torch.addcmul(a, v[..., None], self._reach, value=-1, out=room)
            spread = room.abs().sum(2)
            found = -v * self._offset - spread
            better = found > top
            best, top = torch.where(better, v, best), torch.where(better, found, top)
            if step == _TANGENTS - 1:
                break
            slope = room.sign_().mul_(self._reach).sum(2) - self._offset
            rises = slope > 0
            value = found - slope * v
            up = torch.where(rises, value, up[0]), torch.where(rises, slope, up[1])
            down = torch.where(rises, down[0], value), torch.where(rises, down[1], slope)
        return best
