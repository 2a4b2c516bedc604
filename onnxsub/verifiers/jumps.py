"""Points at a jump: there an execution may take the other side, and what is proved speaks of both."""

from __future__ import annotations

import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.jumping import Jumping

__all__ = ["at_a_jump"]


def at_a_jump(network: Network, x: Array) -> bool:
    """Whether a unit is so near to a jump at a point `(*input_shape)` that either side may be taken (`ops/jumping.py`).

    An execution with another class than the real numbers have contradicts nothing there: bounds hold for it, too.
    """
    if not any(isinstance(op, Jumping) for op in network.activations):
        return False
    with torch.no_grad():
        values = network.preactivations(torch.as_tensor(x, dtype=torch.float64).reshape(1, *network.input_shape))
        pairs = zip(network.activations, values, strict=True)
        return any(bool(op.unsure(z).any()) for op, z in pairs if isinstance(op, Jumping))
