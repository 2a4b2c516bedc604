"""The matrices of any affine operator, from its transpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scipy.sparse as sp

if TYPE_CHECKING:
    import torch

    from onnxsub.ops.base import Affine
else:
    from onnxsub.lazy import torch

__all__ = ["matrices_by_rows"]

_VALUES = 2**22  # of one block of rows


def matrices_by_rows(op: Affine) -> tuple[sp.csr_array, ...]:
    """`L_i` as sparse matrices `(out_size, in_size_i)`, row block by row block."""
    blocks: list[list[sp.csr_array]] = [[] for _ in op.inputs]
    step = max(1, _VALUES // max(1, op.out_size))
    for start in range(0, op.out_size, step):
        stop = min(start + step, op.out_size)
        rows = torch.zeros((stop - start, op.out_size), dtype=torch.float64)
        rows[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        for block, part in zip(blocks, op.transpose(rows.reshape(-1, *op.out_shape)), strict=True):
            block.append(sp.csr_array(part.reshape(stop - start, -1).numpy()))
    return tuple(sp.csr_array(sp.vstack(b)) for b in blocks)
