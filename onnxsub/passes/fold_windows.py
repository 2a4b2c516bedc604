"""Folding windows: rows for the elements of those that are kept, the lines of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.ops.base import Activation, Array, Nonlinear
from onnxsub.ops.picked import Picked
from onnxsub.ops.relaxation import Relaxation, Window
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import WindowMax
from onnxsub.passes.windows import original_windows, read_by
from onnxsub.propagate.backward import flattened

__all__ = ["WindowRecorder", "few_windows", "rows_of"]


@dataclass(frozen=True, eq=False)
class WindowRecorder(Relaxation):
    """Notes the coefficients of the kept windows and passes on those of the others, which are lines.

    Not a bound: equality holds everywhere, which is what folding needs.
    """

    kept: Tensor  # flat positions
    picked: Picked | None  # None where all windows are kept
    notes: list[Tensor]

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor | None, Tensor]:
        self.notes.append(flattened(a, 2)[0][:, self.kept])
        bias = a.new_zeros(a.shape[:2])
        if self.picked is None:
            return None, bias
        (found,) = self.picked.transpose(a[0])
        offset = self.picked.offset(a)
        return found[None], bias if offset is None else bias + torch.matmul(flattened(a, 2), offset.reshape(-1))


def rows_of(op: Nonlinear, kept: Array) -> Array:
    """Flat positions of the inputs of an operator that have rows, where its outputs `kept` (flat) are kept."""
    if isinstance(op, Activation):
        return kept
    if isinstance(op, SubstitutedMax | WindowMax):
        mask = np.zeros(op.out_shape, dtype=np.bool_)
        mask.reshape(-1)[kept] = True
        return read_by(op, mask)
    return np.arange(int(np.prod(op.in_shapes[0])))


def few_windows(op: SubstitutedMax | WindowMax, kept: Array, source: str, output: str) -> WindowMax:
    """The windows `kept` over the rows `source` that `rows_of` names."""
    read, table = rows_of(op, kept), original_windows(op).table[kept]
    return WindowMax(
        op_type=op.op_type, node=op.node, inputs=(source,), output=output, in_shapes=((len(read),),), out_shape=(len(kept),),
        windows=np.where(table < 0, -1, np.searchsorted(read, table)),
    )  # fmt: skip
