"""What bounds the nodes of a frame: matrices where the network is one of Relus, its operators else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.dense import Dense
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.relu.bounder import ReluBounder

__all__ = ["bounder_of", "lowered"]


def bounder_of(frame: Frame, budget: Budget | None = None, level: float = 0.0) -> Bounder:
    """A bounder.

    Args:
        level: taken off the value of a network of two outputs (value, 0).
    """
    m = frame.matrices
    if level:
        frame = replace(frame, network=lowered(frame.network, level))
    return Bounder(frame, budget) if m is None else ReluBounder(frame, m.lowered(level), budget)


def lowered(network: Network, level: float) -> Network:
    """The network of two outputs (value, 0) with `level` taken off the value."""
    if level == 0:
        return network
    name = f"{network.output}:above"
    above = Dense(
        op_type="Level", node="value - level", inputs=(network.output,), output=name, in_shapes=((2,),), out_shape=(2,),
        weight=np.eye(2), bias=np.array([-level, 0.0]),
    )  # fmt: skip
    return network.then((above,))
