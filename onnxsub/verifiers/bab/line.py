"""Lines over a box: where they reach zero, where they are largest, and how fast the multipliers move that they are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.geometry import halfspace_radius

__all__ = ["Line", "Rates", "box_radius", "farthest", "sizes_of", "smoothed"]

_TINY = 1e-30
_LEAST = 1e-3  # of the mean of all layers: what a layer that is not read counts for


class Rates:
    """How multipliers are searched for."""

    # step size of the multipliers of splits and of cuts, as multiples of that of slopes; of splits in units of what is read
    split, cut = 4.0, 12.0
    whole = 3.0  # times as large where a line's largest value is lowered, at every second level
    smooth = 0.3  # of a value: what its smoothing may cost
    gain, slow = 1e-4, 12  # as many steps in a row without such a relative gain for any node end the search

    @staticmethod
    def pace(gap: Tensor) -> Tensor:
        """Factor of the step size: multipliers of nodes that are nearly closed move by small steps, others would only jump about.

        Args:
            gap: that is left, as a share of the closing radius.
        """
        return (20.0 * gap).clamp(0.05, 1)


@dataclass(frozen=True, eq=False)
class Line:
    """`f_t - f_y <= c . delta + k`: `(B, n)` and `(B,)`."""

    c: Tensor
    k: Tensor


def box_radius(line: Line, low: Tensor, high: Tensor) -> Tensor:
    """`r(c, k)` of the module, inf where the box has no such point: `(B,)`.

    Args:
        low, high: the box of offsets, `(B, n)`; it need not contain 0.
    """
    return halfspace_radius(line.c, line.k, low, high)


def farthest(c: Tensor, low: Tensor, high: Tensor, radius: Tensor) -> Tensor:
    """The offset of the box and the ball of `radius` `(B,)` at which `c . delta` is largest, `(B, n)`."""
    r = radius[:, None]
    return torch.where(c > 0, torch.minimum(high, torch.maximum(r, low)), torch.maximum(low, torch.minimum(-r, high)))


def smoothed(c: Tensor, low: Tensor, high: Tensor, close: float, value: Tensor) -> Tensor:
    r"""The point at which a smoothed line is largest in a box, `(B, n)`: `centre + half c / (|c| + w)` in place of `half sign(c)`.

    Where a line has next to no slope, and in the end it mostly has none, any corner is as good as another: a step that follows
    one of them leads nowhere, and the search ends far above what multipliers can reach. w is so wide that the smoothing costs a
    share of the value. (Smoothing of a maximum: Nesterov 2005.)

    Args:
        value: of the lines, `(B,)`.
    """
    low, high = low.clamp(min=-close), high.clamp(max=close)
    half = (high - low) / 2
    width = Rates.smooth * value.abs() / half.sum(1).clamp(min=_TINY)
    return (low + high) / 2 + half * (c / (c.abs() + width[:, None]).clamp(min=_TINY))


def sizes_of(layers: Tensor, layer: Tensor) -> Tensor:
    """How large the coefficients of a split's layer are, for the steps of its multiplier: `(B, D)`.

    Args:
        layers: mean size of the coefficients that read each layer, `(B, L)`. layer: of the splits, `(B, D)`.
    """
    return layers.gather(1, layer) + _LEAST * layers.mean(1, keepdim=True)
