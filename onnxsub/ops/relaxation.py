"""Linear bounds of a non-linear operator, in the one form that backward propagation needs.

For `y = s(z)` on an interval, `a . y >= lower(a)`: a linear function of `z` plus a bias. The upper bound of `a . y` is minus
the lower bound of `-a . y`.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from onnxsub.lazy import torch

__all__ = ["MODES", "Elementwise", "Relaxation", "Window", "check_mode", "cropped", "inside"]

MODES = ("fastlin", "crown")
"""How lines are chosen: parallel ones (Weng et al. 2018), or the tighter lower line for every unit (Zhang et al. 2018)."""

Window = tuple["slice[int, int, None]", ...]
"""Where in the trailing spatial axes a cropped coefficient tensor lies; () for the whole tensor."""


def cropped(t: Tensor, window: Window) -> Tensor:
    """`t` cut to `window` in its last axes."""
    index: tuple[Any, ...] = (..., *window)
    return t[index]


def inside(lower: Tensor, upper: Tensor) -> Tensor:
    """A number within each interval and, where that is longer than a point, not at an end: the middle, where there is one.

    It is finite wherever an end is finite, or neither is.
    """
    below, above = torch.isinf(lower), torch.isinf(upper)
    found = torch.where(below | above, torch.zeros_like(lower), lower / 2 + upper / 2)
    found = torch.where(above & ~below, lower + 1 + lower.abs(), found)
    found = torch.where(below & ~above, upper - 1 - upper.abs(), found)
    return found.clamp(min=lower, max=upper)


def check_mode(mode: str) -> None:
    """Raises ValueError unless `mode` is one of `MODES`: another name must not run one of them."""
    if mode not in MODES:
        raise ValueError(f"unknown mode of linear bounds {mode!r}; choose one of {', '.join(MODES)}")


class Relaxation(abc.ABC):
    """Linear bounds of one operator over one interval per domain, B domains at a time."""

    @abc.abstractmethod
    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor | None, Tensor]:
        """Coefficients `(B, R, *in_shape)` and bias `(B, R)` of a lower bound of `a . y`, for `a` of `(B, R, *out_shape)`.

        None stands for coefficients that are all zero: nothing further back matters.
        """

    @property
    def windowed(self) -> bool:
        """Whether the coefficients for a cropped `a` are cropped to the same window (else they cover the whole input)."""
        return False

    @property
    def parallel(self) -> bool:
        """Whether lower and upper lines have the same slopes, so that one pass serves both ends."""
        return False

    def both(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor, Tensor]:
        """For parallel lines: coefficients, bias of the lower and bias of the upper bound of `a . y`."""
        raise TypeError("only parallel relaxations bound both ends in one pass")

    def sized(self, a: Tensor, window: Window, scale: Tensor, *, both: bool) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
        """`both` (or `lower`, its bias twice), and `|A| . scale` or more for the coefficients A it leads to, `(B, R)`.

        Args:
            scale: of the elements of the input, finite, `(B, *in_shape)`.
        """
        if both:
            data, low, high = self.both(a, window)
        else:
            found, low = self.lower(a, window)
            if found is None:
                return None, low, low, torch.zeros_like(low)
            data, high = found, low
        inner = cropped(scale, window) if self.windowed else scale
        return data, low, high, torch.matmul(data.abs().flatten(2), inner.flatten(1).unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True, eq=False)
class Elementwise(Relaxation):
    """`lower_slope z + lower_offset <= s(z) <= upper_slope z + upper_offset`, each `(B, *shape)`.

    Parallel lines are stated by giving the same tensor object for both slopes; an exact affine unit has equal offsets too. An
    infinite offset with slope 0 stands for no line: a coefficient of 0 does not feel it.
    """

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor

    @property
    def windowed(self) -> bool:
        return True

    @property
    def parallel(self) -> bool:
        return self.lower_slope is self.upper_slope

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor]:
        ls, lo, us, uo = (cropped(t, window).unsqueeze(1) for t in self._parts())
        axes = tuple(range(2, a.dim()))
        if self.parallel:
            bias = torch.where(a > 0, lo, uo).mul_(a)
            return a * ls, self._end(bias.sum(axes) if axes else bias, a, lo, uo)
        positive = a > 0
        bias = torch.where(positive, lo, uo) * a
        return torch.where(positive, ls, us) * a, self._end(bias.sum(axes) if axes else bias, a, lo, uo)

    @staticmethod
    def _end(bias: Tensor, a: Tensor, below: Tensor, above: Tensor) -> Tensor:
        """The bias `sum a (below where a > 0, above where a < 0)`, computed anew with `0 inf = 0` where it is NaN.

        Not on a GPU, where the look would stop the queue: NaN stays there, and proves nothing.
        """
        if bias.device.type != "cpu" or not bool(torch.isnan(bias).any()):
            return bias
        zero = torch.zeros_like(a)
        parts = torch.where(a > 0, a * below, zero) + torch.where(a < 0, a * above, zero)
        return parts.flatten(2).sum(-1) if a.dim() > 2 else parts

    def both(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor, Tensor]:
        slope, lo, _, uo = (cropped(t, window).unsqueeze(1) for t in self._parts())
        # centre and half-width: lower and upper bias are (a . mid) -+ (|a| . half), one product each
        flat = a.reshape(*a.shape[:2], -1)
        mid = ((lo + uo) / 2).reshape(lo.shape[0], -1, 1)
        half = ((uo - lo) / 2).reshape(lo.shape[0], -1, 1)
        centre = torch.matmul(flat, mid).squeeze(-1)
        spread = torch.matmul(flat.abs(), half).squeeze(-1)
        return a * slope, self._end(centre - spread, a, lo, uo), self._end(centre + spread, a, uo, lo)

    def sized(self, a: Tensor, window: Window, scale: Tensor, *, both: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ls, lo, us, uo = (cropped(t, window).unsqueeze(1) for t in self._parts())
        steep = torch.maximum(ls.abs(), us.abs()) * cropped(scale, window).unsqueeze(1)
        # |a| gives the half-width of the bias and the size of the coefficients
        flat = a.reshape(*a.shape[:2], -1)
        size_of = flat.abs()
        spread, size = (torch.matmul(size_of, t.reshape(t.shape[0], -1, 1)).squeeze(-1) for t in ((uo - lo) / 2, steep))
        centre = torch.matmul(flat, ((lo + uo) / 2).reshape(lo.shape[0], -1, 1)).squeeze(-1)
        data = a * ls if self.parallel else torch.where(a > 0, ls, us).mul_(a)
        low, high = self._end(centre - spread, a, lo, uo), self._end(centre + spread, a, uo, lo)
        return data, low, high if both else low, size

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.lower_slope, self.lower_offset, self.upper_slope, self.upper_offset
