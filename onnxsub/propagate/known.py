"""Which elements of a tensor have intervals already that another pass of linear bounds would not make tighter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Affine, Operator
from onnxsub.ops.combine import Concat
from onnxsub.ops.movement import Selection

__all__ = ["Known"]


class Known:
    """Tensors that need no pass, as a walk through the network finds them.

    A tensor is *exact* where no linear bound can improve its interval, and *bounded* where a pass has been made for all of it.
    What only moves elements hands both on, so that a tensor that joins others is passed for the elements that are new.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._exact = {network.input}
        self._moved = {network.input}  # exact, or the same elements as a tensor that is known
        self._joined: dict[str, Tensor] = {}  # flat positions that are not known, of a tensor that joins others

    def exact(self, tensor: str) -> bool:
        """Whether no linear bound can improve the interval of a tensor."""
        return tensor in self._exact

    def left(self, tensor: str, wanted: Tensor) -> Tensor:
        """The flat positions among `wanted` that a pass is needed for."""
        if tensor in self._moved:
            return wanted[:0]
        return wanted if tensor not in self._joined else wanted[torch.isin(wanted, self._joined[tensor].to(wanted.device))]

    def bounded(self, tensor: str, wanted: Tensor) -> None:
        """Notes that a pass has been made for these positions of a tensor."""
        if len(wanted) == math.prod(self._network.shapes[tensor]):
            self._moved.add(tensor)

    def image(self, tensor: str) -> None:
        """Notes the output of an activation: the image of an interval under one monotone piece after the other."""
        self._exact.add(tensor)
        self._moved.add(tensor)

    def affine(self, op: Affine) -> None:
        """Notes what an affine operator writes."""
        if len(op.inputs) == 1 and self._stays_exact(op):
            self._exact.add(op.output)
            self._moved.add(op.output)
        elif isinstance(op, Selection) and op.inputs[0] in self._moved:
            self._moved.add(op.output)
        elif isinstance(op, Concat) and op.axis == 0 and len(op.out_shape) == 1:
            self._join(op)

    def _join(self, op: Concat) -> None:
        new = [
            torch.arange(slot, slot + shape[0])
            for name, slot, shape in zip(op.inputs, op.slots, op.in_shapes, strict=True)
            if name not in self._moved
        ]
        if len(new) < len(op.inputs):
            self._joined[op.output] = torch.cat(new) if new else torch.zeros(0, dtype=torch.long)

    def _stays_exact(self, op: Affine) -> bool:
        """Interval arithmetic is exact for an affine image of a box: of the input itself, or by way of elementwise operators."""
        source = op.inputs[0]
        if source == self._network.input:
            return True
        if source not in self._exact:
            return False
        before = self._network.producers.get(source)
        # behind a mixing operator or an activation the elements depend on each other, so only elementwise steps keep exactness
        return not op.mixing or (isinstance(before, Affine) and not before.mixing and self._only_elementwise(source))

    def _only_elementwise(self, tensor: str) -> bool:
        while tensor != self._network.input:
            op: Operator = self._network.producers[tensor]
            if not isinstance(op, Affine) or op.mixing or len(op.inputs) != 1:
                return False
            tensor = op.inputs[0]
        return True
