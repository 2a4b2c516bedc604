"""Multipliers of splits and cuts, from the lists of a batch of nodes to one number per open unit, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.verifiers.bab.cuts.planes import Cuts
from onnxsub.verifiers.bab.line import sizes_of
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.bab.relu.lines import Push
from onnxsub.verifiers.bab.relu.matrices import Matrices

__all__ = ["Joined", "Sides"]


@dataclass(frozen=True, eq=False)
class Sides:
    """Where the splits of a batch lie: position among the open units and sign, `(B, D)`; the sign of what is no split is 0."""

    at: Tensor
    sign: Tensor
    threshold: Tensor

    @staticmethod
    def of(m: Matrices, nodes: Nodes) -> Sides:
        """The splits of these nodes; a unit that is closed on the whole frame has no place, and its multiplier adds nothing."""
        place = m.place[nodes.unit + m.first[nodes.layer.clamp(min=0)]]
        used = (nodes.layer >= 0) & (place >= 0)
        return Sides(place.clamp(min=0), nodes.side * used, nodes.threshold)

    def take(self, rows: Tensor | slice) -> Sides:
        """The splits of some of the nodes."""
        return Sides(self.at[rows], self.sign[rows], self.threshold[rows])

    def before(self, stop: int) -> Sides:
        """Only the splits of the first `stop` open units."""
        mine = self.at < stop
        return Sides(self.at * mine, self.sign * mine, self.threshold)

    def push(self, beta: Tensor, count: int) -> Push:
        """What multipliers `(B, D)` add to an upper bound: `sum beta side (z - threshold)`."""
        signed = beta * self.sign
        inner = signed.new_zeros((len(beta), count)).scatter_add_(1, self.at, signed)
        return Push(inner, None, -(signed * self.threshold.to(beta.dtype)).sum(1))

    def sizes(self, m: Matrices, lam: Tensor) -> Tensor:
        """How large the coefficients `(B, U)` of a split's layer are in the mean, for the steps of its multiplier: `(B, D)`."""
        size = lam.abs()
        layers = torch.stack([size[:, start:stop].sum(1) / max(stop - start, 1) for start, stop in m.blocks], 1)
        stops = torch.tensor([stop for _, stop in m.blocks], device=lam.device)
        return sizes_of(layers, torch.bucketize(self.at, stops, right=True))

    def gradient(self, z: Tensor) -> Tensor:
        """`side (z - threshold)`: `(B, D)`."""
        return self.sign * (z.gather(1, self.at) - self.threshold.to(z.dtype))


@dataclass(frozen=True, eq=False)
class Joined:
    """The cuts of all Relus as one list, per node of a batch: `sum outer h <= sum inner z + offset`.

    Attributes:
        at: positions among the open units, `(B, C K)`.
        outer, inner: `(B, C, K)`.
        offset: `(B, C)`.
    """

    at: Tensor
    outer: Tensor
    inner: Tensor
    offset: Tensor

    @staticmethod
    def of(m: Matrices, cuts: list[tuple[int, Cuts]], targets: Tensor, dtype: torch.dtype) -> Joined | None:
        """The cuts by the number of their Relu, in the order of the frame's multipliers."""
        if not cuts:
            return None
        parts = [(number, c.of(targets, dtype)) for number, c in cuts]
        at = torch.cat([m.place[c.units + m.first[number]] for number, c in parts], 1)
        # cuts are made of units that are open on the frame, but for padding; one with another unit would say nothing
        known = (at >= 0).all(2, keepdim=True).to(dtype)
        outer, inner = (torch.cat([getattr(c, name) for _, c in parts], 1) * known for name in ("outer", "inner"))
        return Joined(at.clamp(min=0).flatten(1), outer, inner, torch.cat([c.offset for _, c in parts], 1) * known[..., 0])

    def take(self, rows: Tensor | slice) -> Joined:
        """The cuts of some of the nodes."""
        return Joined(self.at[rows], self.outer[rows], self.inner[rows], self.offset[rows])

    def before(self, stop: int) -> Joined:
        """Only the cuts between the first `stop` open units."""
        mine = (self.at.reshape(self.outer.shape) < stop).all(2)
        share = mine.to(self.outer.dtype)
        at = self.at * mine[..., None].expand(self.outer.shape).flatten(1)
        return Joined(at, self.outer * share[..., None], self.inner * share[..., None], self.offset * share)

    def push(self, gamma: Tensor, before: Push) -> Push:
        """What multipliers `(B, C)` add, and what was there before."""
        whole = torch.zeros_like(before.inner)
        outer, inner = (
            whole.scatter_add(1, self.at, (gamma[..., None] * t).flatten(1)) for t in (self.outer, self.inner)
        )
        bias = (gamma * self.offset).sum(1)
        return Push(before.inner + inner, outer, bias if before.bias is None else before.bias + bias)

    def gradient(self, z: Tensor, h: Tensor) -> Tensor:
        """`inner . z + offset - outer . h`: `(B, C)`."""
        shape = self.outer.shape
        read, written = (t.gather(1, self.at).reshape(shape) for t in (z, h))
        return (self.inner * read - self.outer * written).sum(2) + self.offset
