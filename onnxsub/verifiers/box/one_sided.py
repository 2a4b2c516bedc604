r"""Units that need no binary, because a clause's row falls wherever they rise.

A program looks for points at which a row is large. Where the row's total derivative with respect to a unit is at most 0, whatever
the slopes of the units behind it are on their intervals, the row itself pulls the unit down. Letting its binary be a fraction
allows values between the unit and its chord, never below the unit; from any such point the row only rises when the units are put
back, one by one from the first. So the best point is the same with these binaries relaxed, and every bound holds as before.

The derivative is an interval row carried back through the operators (`transpose_slopes`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Affine, Array, Box
from onnxsub.ops.interval_rows import Rows
from onnxsub.ops.relu import Relu
from onnxsub.ops.windows import Windows, switches

__all__ = ["pulled_down", "switched_units"]

_ROUND = 1e-9
"""Share of the row's derivative that counts as none; what it could let the row rise by is far below every tolerance."""


def pulled_down(network: Network, row: Array, intervals: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """Which Relus and windows a row of the outputs pulls down: booleans, flat, by the tensor that the operator writes.

    Args:
        row: `(classes,)`.
        intervals: of the input of every non-linear operator, flat, proved where the row is asked about.
    """
    if any("slopes" in op.unsupported for op in network.ops):
        return {}
    start = torch.as_tensor(np.asarray(row, dtype=np.float64)).reshape(1, *network.output_shape)
    pending: dict[str, Rows] = {network.output: (start, torch.zeros_like(start))}
    found: dict[str, Array] = {}
    with torch.no_grad():
        for op in reversed(network.ops):
            rows = pending.pop(op.output, None)
            if rows is None:
                continue
            if isinstance(op, Relu | Windows):
                centre, radius = (t.reshape(-1) for t in rows)
                size = centre.abs() + radius
                found[op.output] = (centre + radius <= _ROUND * size.max()).numpy()  # a comparison with NaN is none
            boxes: tuple[Box, ...] = ()
            if not isinstance(op, Affine):
                lower, upper = (torch.as_tensor(np.array(e)).reshape(1, *op.in_shapes[0]) for e in intervals[op.output])
                boxes = ((lower, upper),)
            for name, part in zip(op.inputs, op.transpose_slopes(rows, *boxes), strict=True):
                have = pending.get(name)
                pending[name] = part if have is None else (have[0] + part[0], have[1] + part[1])
    return found


def switched_units(op: Relu | Windows, lower: Array, upper: Array) -> Array:
    """Flat position of the output that each binary of `encode` belongs to, in the order of the columns.

    Args:
        lower, upper: of the operator's input, flat.
    """
    if isinstance(op, Relu):
        return np.flatnonzero((lower < 0) & (upper > 0))
    return switches(op.table, lower, upper)[0]
