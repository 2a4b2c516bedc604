"""Open nodes at rest: one matrix per kind of number, the nodes in no order."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsub.verifiers.bab.dense.bound import Nodes

__all__ = ["Pool"]

_FIRST = 1024  # places


class Pool:
    """Nodes with their values; those that are taken stay until `done`, so that an interruption loses none.

    Args:
        memory: bytes after which the nodes that are nearest to being closed are taken first, which keeps the rest few.
    """

    def __init__(self, units: int, memory: int) -> None:
        self._count = 0
        self._memory = memory
        self._each = 28 * units + 16
        self._value = torch.empty(0)
        self._taken: Tensor | None = None
        kinds = torch.float32, torch.float32, torch.int8, torch.float32, torch.float32
        parts = [torch.empty((0, units), dtype=kind) for kind in kinds]
        self._parts = [torch.empty(0, dtype=torch.int64), *parts, torch.empty((0, 2 * units))]

    def __len__(self) -> int:
        return self._count

    def rows(self) -> set[int]:
        """The rows that have open nodes."""
        return set(self._parts[0][: self._count].tolist())

    def put(self, nodes: Nodes, values: Tensor) -> None:
        """Adds nodes."""
        end = self._count + len(nodes)
        if end > len(self._value):
            size = max(_FIRST, 2 * end)
            self._value = _larger(self._value, size)
            self._parts = [_larger(p, size) for p in self._parts]
        self._value[self._count : end] = values
        for kept, new in zip(self._parts, nodes.parts, strict=True):
            kept[self._count : end] = new.to(kept.dtype)
        self._count = end

    def take(self, most: int) -> tuple[Nodes, Tensor]:
        """The nodes that are farthest from being closed, and their values."""
        full = self._count * self._each > self._memory
        values, self._taken = self._value[: self._count].topk(min(most, self._count), largest=not full)
        row, lower, upper, side, *rest = (p[self._taken] for p in self._parts)
        return Nodes(row, lower, upper, side.float(), *rest), values

    def done(self) -> None:
        """Removes what was taken; what was put since lies behind it."""
        if self._taken is None:
            return
        left = self._count - len(self._taken)
        holes = self._taken[self._taken < left]
        last = torch.ones(len(self._taken), dtype=torch.bool)
        behind = self._taken[self._taken >= left] - left
        last[behind] = False
        movers = torch.nonzero(last)[:, 0] + left
        for p in (self._value, *self._parts):
            p[holes] = p[movers]
        self._count, self._taken = left, None


def _larger(old: Tensor, size: int) -> Tensor:
    new = old.new_empty((size, *old.shape[1:]))
    new[: len(old)] = old
    return new
