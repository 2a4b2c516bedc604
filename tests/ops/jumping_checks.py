"""What every function that jumps is tested for: lines and errors that hold for every execution, some units of it, rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.ops.jumping import Jumping
from tests.ops.test_encode import encoded
from tests.ops.tools import normal

__all__ = ["SHAPE", "common", "lines_hold", "rows_are_the_relation", "some_units"]

SHAPE = (2, 3, 4)


def common() -> dict[str, Any]:
    """The fields of an operator that no file has."""
    return {"op_type": "Made", "node": "made", "inputs": ("x0",), "output": "y0", "in_shapes": (SHAPE,), "out_shape": SHAPE}


def lines_hold(
    op: Jumping, lower: Tensor, upper: Tensor, z: Tensor, y: Tensor, room: Tensor, steep: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """The interval, all lines and the error of a random line hold at points `z`, where executions give `y`.

    Args:
        room: what rounding may make of a line.
        steep: the same, as a share of slope and point.

    Returns:
        The least and the largest error of the random line, and its error at the points.
    """
    low, high = op.interval((lower, upper))
    assert ((y >= low) & (y <= high)).all()
    alphas = (None, torch.zeros_like(lower), torch.ones_like(lower), torch.rand_like(lower))
    lines = [op.relax(lower, upper, "fastlin"), *(op.relax(lower, upper, "crown", a) for a in alphas)]
    assert lines[0].parallel
    stable = op.affine_on(lower, upper)
    for line in lines:
        size = room + steep * (line.lower_slope.abs() + line.upper_slope.abs()) * (1 + z.abs())
        assert (line.lower_slope * z + line.lower_offset <= y + size).all()
        assert (line.upper_slope * z + line.upper_offset >= y - size).all()
        assert (line.upper_offset == line.lower_offset)[stable].all()
        assert (line.upper_slope == line.lower_slope)[stable].all()
    slope, offset = normal(tuple(lower.shape), 5), normal(tuple(lower.shape), 6)
    slope[::3] = 0.0
    least, most = op.line_error(lower, upper, slope, offset)
    return least, most, y - slope * z - offset


def some_units(op: Jumping, lower: Tensor, upper: Tensor) -> None:
    """`take` gives the same function and the same lines."""
    index = np.array([3, 17, 4, 23, 0])
    part = op.take(index, node="part", inputs=("a",), output="b")
    z = normal((7, *SHAPE)) * 3
    assert torch.equal(part.forward(z.reshape(7, -1)[:, index]), op.forward(z).reshape(7, -1)[:, index])
    found = part.relax(*(t.flatten(1)[:, index] for t in (lower, upper)), "crown")
    assert torch.equal(found.upper_offset, op.relax(lower, upper, "crown").upper_offset.flatten(1)[:, index])


def rows_are_the_relation(op: Any, box: tuple[Tensor, Tensor], clear: Callable[[Tensor], Tensor]) -> None:
    """Rows of four units allow the interval, and clear of jumps the value alone; relaxed they allow no more than lines do."""
    low, high = op.interval(box)
    recorder, result = encoded(op, box, None)
    lines = op.relax(*box, "crown")
    for i in range(4):
        row = result.take(np.array([i]))
        assert recorder.optimum(row, 1)[0] == pytest.approx(float(low[0, i]), abs=1e-6)
        assert recorder.optimum(row, -1)[0] == pytest.approx(float(high[0, i]), abs=1e-6)
    x = box[0] + 0.37 * (box[1] - box[0])
    fixed, value = encoded(op, box, x)
    for i in np.flatnonzero(clear(x)[0].numpy()):
        row = value.take(np.array([i]))
        for sense in (1, -1):
            assert fixed.optimum(row, sense)[0] == pytest.approx(float(op.forward(x)[0, i]), abs=1e-6)
    loose, free = encoded(op, box, x)
    total = float((lines.upper_slope * x + lines.upper_offset).sum())
    assert loose.optimum(free, -1, integer=False)[0] <= total + 1e-6
    total = float((lines.lower_slope * x + lines.lower_offset).sum())
    assert loose.optimum(free, 1, integer=False)[0] >= total - 1e-6
