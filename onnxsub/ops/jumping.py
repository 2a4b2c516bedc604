"""Functions that jump: where rounding of what they read, not the real number, may decide between values that are far apart.

Everything here that proves speaks of a *relation*, the graph of the function with a room round every jump in which either side may
be taken. The room is at least what float32 may be off by before the function (`onnxsub/quantised.py`), so that what is proved
holds for every execution.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from onnxsub.ops.base import Activation, Array, Box

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["Jumping"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Jumping(Activation, abc.ABC):
    """An activation that jumps.

    Attributes:
        room: broadcastable, in a unit of the function's own: how far from a jump an execution may still take its other side.
    """

    unsupported: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"slopes": "it jumps, so no number bounds its slope; Lipschitz constants need a model without jumps (steps, thresholds)"}
    )

    room: Array

    @property
    def piecewise_linear(self) -> bool:
        return False  # methods that follow pieces from one to the next do not see the jumps

    @property
    def takes_alpha(self) -> bool:
        return True

    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        raise self.missing("slopes")

    def unsure(self, z: Tensor) -> Tensor:
        return ~self.affine_on(z, z)

    def _flat(self, values: Array) -> Array:
        """One number per unit."""
        return np.broadcast_to(values, self.in_shapes[0]).reshape(-1)

    @abc.abstractmethod
    def roomier(self, error: Array) -> Self:
        """The function with more room: for what it reads being off by up to `error` `(*in_shape)`, beside what it has."""

    @abc.abstractmethod
    def passed_on(self, error: Tensor, size: Tensor) -> Tensor:
        """What an executed output may be off by from a value that the relation allows for the real input.

        Args:
            error: what the input may be off by.
            size: the largest magnitude of the output, shaped like it.
        """
