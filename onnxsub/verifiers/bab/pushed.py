"""The lines of an activation with multipliers: those of splits add to its input's coefficients, those of cuts to both sides."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from onnxsub.ops.base import Nonlinear
from onnxsub.ops.relaxation import Elementwise, Relaxation, Window
from onnxsub.verifiers.bab.nodes import Nodes

__all__ = ["Push", "Pushed", "split_push"]


@dataclass(frozen=True, eq=False)
class Push:
    """What multipliers add: `outer` to the coefficients of the output, `-inner` to those of the input, `bias` to the constant."""

    outer: Tensor | None
    inner: Tensor
    bias: Tensor


class Pushed(Relaxation):
    """An activation's lines with the multipliers of splits and cuts; notes the coefficients that come."""

    def __init__(self, inner: Elementwise | Relaxation, pushes: list[Push]) -> None:
        self._inner = inner
        self._pushes = pushes
        self.seen: Tensor | None = None

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor | None, Tensor]:
        self.seen = a
        for push in self._pushes:
            if push.outer is not None:
                a = a + push.outer.unsqueeze(1)
        data, low = self._inner.lower(a, window)
        if data is None:
            # what a split adds may be left out, a cut's two sides only together
            assert all(push.outer is None for push in self._pushes)
            return data, low
        for push in self._pushes:
            data, low = data - push.inner.unsqueeze(1), low + push.bias.unsqueeze(1)
        return data, low


def split_push(nodes: Nodes, number: int, beta: Tensor, op: Nonlinear) -> Push:
    """What the multipliers of the splits of one operator add."""
    mine = nodes.layer == number
    signed = beta * nodes.side * mine
    push = signed.new_zeros((len(nodes), math.prod(op.in_shapes[0]))).scatter_add(1, nodes.unit * mine, signed)
    return Push(None, push.reshape(len(nodes), *op.in_shapes[0]), (signed * nodes.threshold.to(beta.dtype)).sum(1))
