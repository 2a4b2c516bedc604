r"""Windows as Relus and affine operators, exactly: `max(a, b) = b + relu(a - b)`, a tree over the elements of each window.

A window of m elements becomes m - 1 Relus. Windows that a substitute has replaced by lines stay lines; where bounds say which
elements can win, only those count (`stabilise`, before this pass).
"""

from __future__ import annotations

import math

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.combine import Sum
from onnxsub.ops.movement import Gather, Reshape, flatten
from onnxsub.ops.picked import Picked
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.passes.pieces import Pieces
from onnxsub.passes.windows import original_windows

__all__ = ["relus_needed", "unpooled", "without_windows"]


def relus_needed(op: Windows | SubstitutedMax) -> int:
    """How many Relus the kept windows of an operator become."""
    table = op.base.table[op.index] if isinstance(op, SubstitutedMax) else op.table
    return int(((table >= 0).sum(axis=1) - 1).sum())


def without_windows(network: Network) -> Network:
    """The network with Relus in the place of all windows: the same function."""
    names = {network.input} | {op.output for op in network.ops}
    ops: list[Operator] = []
    for op in network.ops:
        ops += unpooled(op, names) if isinstance(op, Windows | SubstitutedMax) else [op]
    return Network(network.input, network.input_shape, network.output, tuple(ops))


def unpooled(op: Windows | SubstitutedMax, names: set[str]) -> list[Operator]:
    """The operators that take the place of one; `names` are those of all tensors of the network."""
    if isinstance(op, SubstitutedMax) and not op.kept.any():
        return [op.picked]
    tree = _Tree(op, names)
    index = op.index if isinstance(op, SubstitutedMax) else np.arange(op.out_size)
    best = tree.best(original_windows(op).table[index])
    if not isinstance(op, SubstitutedMax):
        tree.add(Reshape, (best,), op.output, op.out_shape)
        return tree.ops
    zero = np.zeros(op.out_shape)
    place = np.zeros(op.out_shape, dtype=np.int64)
    place.reshape(-1)[index] = np.arange(len(index))
    put = tree.add(
        Picked, (best,), None, op.out_shape, first=place, second=place, weight=op.kept.astype(np.float64), other=zero, shift=zero
    )
    line = op.picked
    arrays = {n: getattr(line, n) for n in ("first", "second", "weight", "other", "shift")}
    source = tree.add(Picked, op.inputs, None, op.out_shape, **arrays)
    tree.add(Sum, (put, source), op.output, op.out_shape, signs=(1, 1))
    return tree.ops


class _Tree(Pieces):
    """Maxima of pairs, and maxima of these."""

    def best(self, table: Array) -> str:
        """The maxima `(W,)` of the windows of a table."""
        op = self.op
        order = np.argsort(table < 0, axis=1, kind="stable")  # elements first
        index = np.take_along_axis(table, order, axis=1)
        present = index >= 0
        index = np.where(present, index, index[:, :1])
        values = flatten(op.inputs[0], op.in_shapes[0], next(self.names))
        self.ops.append(values)
        source = values.output
        while index.shape[1] > 1:
            first = index[:, 0::2]
            second, pair = first.copy(), np.zeros(first.shape, dtype=np.bool_)
            half = index.shape[1] // 2
            second[:, :half], pair[:, :half] = index[:, 1::2], present[:, 1::2]
            a, b = self._gather(source, second), self._gather(source, first)
            # an element without a partner is carried on: its difference is the line 0
            shape = (first.size,)
            difference = self.add(Sum, (a, b), None, shape, signs=(1, -1))
            source = self.add(Sum, (b, self.relu(difference, pair.reshape(-1))), None, shape, signs=(1, 1))
            present = present[:, 0::2]
            index = np.arange(first.size).reshape(first.shape)
        if index.size != math.prod(self.shape(source)) or not np.array_equal(index.reshape(-1), np.arange(index.size)):
            source = self._gather(source, index)
        return source

    def _gather(self, source: str, index: Array) -> str:
        return self.add(Gather, (source,), None, (index.size,), indices=(index.reshape(-1),))
