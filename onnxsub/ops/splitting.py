"""Non-linear operators of several elements at once, whose bounds get tighter where the interval of one element is split."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxsub.ops.base import Nonlinear

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Splittable"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Splittable(Nonlinear, abc.ABC):
    """An operator that a search splits at the elements of its input, in the middle of their intervals.

    An `Activation` is split too; its kinks say where.
    """

    @abc.abstractmethod
    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Boolean per element of the input, `(B, *in_shape)`: a smaller interval of it would make no bound tighter."""

    @abc.abstractmethod
    def losses(self, a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """About how much of a bound of `a . y`, a `(B, *out_shape)`, is lost to the width of each element, `(B, *in_shape)`."""
