"""Operators that no single node is read as: the package makes them itself, or of several nodes."""

from __future__ import annotations

import numpy as np

from onnxsub.ops.base import Activation, Operator
from onnxsub.ops.convex import Odds, Square
from onnxsub.ops.dynamic import DynamicSteps
from onnxsub.ops.maxpool import Chosen, MaxPool
from onnxsub.ops.picked import Picked
from onnxsub.ops.relu import Relu
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from tests.ops.tools import Case, random

__all__ = ["MADE"]

SHAPE = (2, 3, 4)


def _made() -> dict[str, Operator]:
    common = {"op_type": "Made", "node": "made", "inputs": ("x0",), "output": "y0", "in_shapes": (SHAPE,), "out_shape": SHAPE}
    relu = Relu(**common)  # type: ignore[arg-type]
    kept = np.arange(24).reshape(SHAPE) % 3 != 0
    pool = Case("MaxPool", ((2, 4, 6),), {"kernel_shape": [2, 2], "strides": [2, 2]}).op1()
    assert isinstance(pool, MaxPool)
    chosen = Chosen(
        op_type=pool.op_type, node=pool.node, inputs=pool.inputs, output=pool.output, in_shapes=pool.in_shapes,
        out_shape=pool.out_shape, index=pool.table[:, 2].reshape(pool.out_shape),
    )  # fmt: skip
    few = np.arange(pool.out_size).reshape(pool.out_shape) % 3 == 0
    second = pool.table[:, 1].reshape(pool.out_shape)
    picked = Picked(
        op_type=pool.op_type, node=pool.node, inputs=pool.inputs, output=pool.output, in_shapes=pool.in_shapes,
        out_shape=pool.out_shape, first=chosen.index, second=second, weight=random(pool.out_shape, 3).astype(np.float64),
        other=random(pool.out_shape, 4).astype(np.float64) * (second % 2), shift=random(pool.out_shape, 5).astype(np.float64),
    )  # fmt: skip
    units: list[Activation] = [Odds(**common), Square(**common)]  # type: ignore[arg-type]
    return {"Substituted": Substituted.of(relu, kept, random(SHAPE, 3), random(SHAPE, 4)),
            "Chosen": chosen, "Picked": picked, "SubstitutedMax": SubstitutedMax.of(pool, few, picked),
            "DynamicSteps": DynamicSteps(**common, room=np.zeros(())),  # type: ignore[arg-type]
            **{type(op).__name__: op for op in units}}  # fmt: skip


MADE = _made()
