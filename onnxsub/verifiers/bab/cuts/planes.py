"""Linear inequalities between the two sides of an activation, and what their multipliers add to a backward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.ops.base import Shape
from onnxsub.verifiers.bab.pushed import Push

__all__ = ["Cuts"]


@dataclass(frozen=True, eq=False)
class Cuts:
    """`sum_k outer_k y_k <= sum_k inner_k z_k + offset` for the units of one activation, K of them per cut, C cuts per target.

    Attributes:
        units: flat positions, `(T, C, K)`.
        outer, inner: coefficients of outputs y and inputs z, `(T, C, K)`.
        offset: `(T, C)`.
    """

    units: Tensor
    outer: Tensor
    inner: Tensor
    offset: Tensor

    def __len__(self) -> int:
        return self.offset.shape[1]

    @staticmethod
    def stacked(parts: list[Cuts]) -> Cuts:
        """One target each; targets with fewer cuts get `0 <= 0`."""
        most = max(len(p) for p in parts)

        def filled(t: Tensor) -> Tensor:
            return torch.cat([t, t.new_zeros((1, most - t.shape[1], *t.shape[2:]))], 1)

        return Cuts(*(torch.cat([filled(getattr(p, n)) for p in parts]) for n in ("units", "outer", "inner", "offset")))

    @staticmethod
    def joined(parts: list[Cuts]) -> Cuts:
        """All cuts of the same targets."""
        return Cuts(*(torch.cat([getattr(p, n) for p in parts], 1) for n in ("units", "outer", "inner", "offset")))

    def take(self, rows: Tensor) -> Cuts:
        """Some cuts of every target."""
        return Cuts(self.units[:, rows], self.outer[:, rows], self.inner[:, rows], self.offset[:, rows])

    def of(self, targets: Tensor, dtype: torch.dtype) -> Cuts:
        """The cuts of the nodes of a batch, by the target of each."""
        return Cuts(self.units[targets], *(t[targets].to(dtype) for t in (self.outer, self.inner, self.offset)))

    def push(self, gamma: Tensor, shape: Shape) -> Push:
        """Multipliers `(B, C)` times these cuts, which are those of the batch: coefficients `(B, *shape)`, and `(B,)`."""
        units = self.units.flatten(1)
        whole = gamma.new_zeros((len(gamma), math.prod(shape)))
        sums = (whole.scatter_add(1, units, (gamma[..., None] * t).flatten(1)) for t in (self.outer, self.inner))
        outer, inner = (s.reshape(len(gamma), *shape) for s in sums)
        return Push(outer, inner, -(gamma * self.offset).sum(1))
