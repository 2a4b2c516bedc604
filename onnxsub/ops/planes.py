"""Two parallel planes as the linear bounds of an operator of several elements."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxsub.ops.relaxation import Relaxation, Window

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from onnxsub.lazy import torch

__all__ = ["Parallel"]


@dataclass(frozen=True, eq=False)
class Parallel(Relaxation, abc.ABC):
    """`a . y` is within `|a| . spread` of `coefficients(a) . x + a . value`.

    Attributes:
        spread: `(B, *out_shape)`; infinite where there is no bound.
        value: `(B, *out_shape)`, finite.
    """

    spread: Tensor
    value: Tensor

    @abc.abstractmethod
    def coefficients(self, a: Tensor) -> Tensor:
        """`(B, R, *in_shape)`, of an operator with one axis, for a `(B, R, *out_shape)`."""

    @property
    def parallel(self) -> bool:
        return True

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor]:
        data, low, _ = self.both(a, window)
        return data, low

    def both(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor, Tensor]:
        assert not window  # not `windowed`
        domains, rows = self.spread.shape[0], a.shape[1]
        flat = a.reshape(a.shape[0], rows, -1)
        centre = torch.matmul(flat, self.value.reshape(domains, -1, 1)).squeeze(-1)
        away = flat.abs()
        finite = torch.isfinite(self.spread).reshape(domains, -1, 1)
        spread = self.spread.reshape(domains, -1, 1)
        size = torch.matmul(away, torch.where(finite, spread, torch.zeros_like(spread))).squeeze(-1)
        if a.device.type != "cpu" or not bool(finite.all()):
            lost = torch.matmul((away > 0).to(a.dtype), (~finite).to(a.dtype)).squeeze(-1) > 0
            size = size.masked_fill(lost, math.inf)
        return self.coefficients(a), centre - size, centre + size
