"""`y = scale x + shift` with constants: Add, Sub, Mul, Div, Neg and BatchNormalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from onnxsub.ops.base import Affine, Array, Box
from onnxsub.ops.broadcast import crop, leading, of_sample, only_variable, required, sum_to
from onnxsub.ops.node import Node

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
    from onnxsub.ops.relaxation import Window
else:
    from onnxsub.lazy import torch

__all__ = ["TRAINING", "Scale", "read_batch_normalization", "read_div", "read_mul", "read_neg", "shifted"]

TRAINING = "training mode, where it takes the statistics of the batch; export the model in evaluation mode"


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Affine):
    """`y = scale x + shift`, both broadcastable to `out_shape`; None stands for 1 and 0.

    The output may be larger than the input, where a constant widens it.
    """

    mixing: ClassVar[bool] = False

    scale: Array | None = None
    shift: Array | None = None

    @property
    def scale_size(self) -> Array:
        return np.asarray(np.abs(np.asarray(self.scale)))

    def linear(self, *xs: Tensor) -> Tensor:
        return self._times(xs[0], "scale")

    def magnitude(self, *rs: Tensor) -> Tensor:
        return self._times(rs[0], "scale_size")

    def _times(self, x: Tensor, name: str) -> Tensor:
        widened = self.in_shapes[0] != self.out_shape
        if widened:
            missing = len(self.out_shape) - len(self.in_shapes[0])
            x = x.reshape(x.shape[0], *[1] * missing, *self.in_shapes[0])
        y = x if self.scale is None else x * self.tensor(name, x)
        return y.expand(-1, *self.out_shape) if widened else y

    def offset(self, like: Tensor) -> Tensor | None:
        return None if self.shift is None else self.tensor("shift", like)

    def interval(self, *boxes: Box) -> Box:
        # exact at both ends, where centre and radius would round
        (lower, upper) = (self.forward(end) for end in boxes[0])
        return (lower, upper) if self.scale is None else (torch.minimum(lower, upper), torch.maximum(lower, upper))

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        y = a if self.scale is None else a * self.tensor("scale", a)
        return (sum_to(y, self.in_shapes[0]),)

    def transpose_window(self, a: Tensor, window: Window) -> tuple[Tensor, Window] | None:
        if self.in_shapes[0] != self.out_shape or len(window) > len(self.out_shape):
            return None
        return (a if self.scale is None else a * crop(self.tensor("scale", a), window)), window

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        found = (("Mul", "scale", self.scale), ("Add", "shift", self.shift))
        constants = [(kind, name, value) for kind, name, value in found if value is not None]
        source, rank = inputs[0], len(self.out_shape)
        if len(self.in_shapes[0]) < rank:
            # the batch axis stays in front of the axes that a constant brings
            source = writer.fresh(f"{output}/raised")
            writer.reshape(inputs[0], source, (1,) * (rank - len(self.in_shapes[0])) + self.in_shapes[0])
        for i, (kind, name, value) in enumerate(constants):
            target = output if i == len(constants) - 1 else writer.fresh(f"{output}/scaled")
            writer.node(kind, (source, writer.weight(output, name, leading(value, rank))), target)
            source = target
        if not constants:
            writer.node("Identity", (source,), output)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        n_in, n_out = int(np.prod(self.in_shapes[0], dtype=np.int64)), self.out_size
        columns = np.broadcast_to(np.arange(n_in).reshape(self.in_shapes[0]), self.out_shape).reshape(-1)
        scale = np.ones(()) if self.scale is None else self.scale.astype(np.float64)
        data = np.broadcast_to(scale, self.out_shape).reshape(-1)
        matrix = sp.csr_array((data.copy(), columns.copy(), np.arange(n_out + 1)), shape=(n_out, n_in))
        matrix.eliminate_zeros()
        return (matrix,)


def shifted(node: Node, sign_x: int, sign_c: int) -> tuple[Scale, ...]:
    """`sign_x x + sign_c c` for the one constant c of the node."""
    i = 0 if node.inputs[0] in node.constants else 1
    rank = len(node.shapes[node.variables[0]])
    c = of_sample(node, required(node, i, "one operand"), rank)
    return (Scale(**node.common(), scale=None if sign_x > 0 else np.array(-1.0), shift=sign_c * c),)


def read_mul(node: Node) -> tuple[Scale, ...]:
    """A tensor times a constant."""
    if len(node.variables) != 1:
        raise node.refuse("one of the two factors must be a constant")
    i = 0 if node.inputs[0] in node.constants else 1
    c = of_sample(node, required(node, i, "one factor"), len(node.shapes[node.variables[0]]))
    return (Scale(**node.common(), scale=c),)


def read_div(node: Node) -> tuple[Scale, ...]:
    """A tensor divided by a constant."""
    source = only_variable(node)
    c = of_sample(node, required(node, 1, "the divisor"), len(node.shapes[source]))
    if (c == 0).any():
        raise node.refuse("the divisor contains a zero")
    return (Scale(**node.common(), scale=1.0 / c),)


def read_neg(node: Node) -> tuple[Scale, ...]:
    """`-x`."""
    return (Scale(**node.common(), scale=np.array(-1.0)),)


def read_batch_normalization(node: Node) -> tuple[Scale, ...]:
    """`gamma (x - mean) / sqrt(var + epsilon) + beta` with the stored statistics."""
    source = only_variable(node)
    if node.attributes.get("training_mode", 0) or any(node.outputs[1:]):
        raise node.refuse(TRAINING)
    if not node.attributes.get("spatial", 1):
        raise node.refuse("spatial = 0")
    names = ("scale", "bias", "mean", "variance")
    gamma, beta, mean, variance = (required(node, i + 1, name).astype(np.float64) for i, name in enumerate(names))
    denominator = variance + float(node.attributes.get("epsilon", 1e-5))
    if (denominator <= 0).any():
        raise node.refuse("a variance is not positive")
    scale = gamma / np.sqrt(denominator)
    shape = (-1, *[1] * (len(node.sample_shape(source)) - 1))
    return (Scale(**node.common(), scale=scale.reshape(shape), shift=(beta - mean * scale).reshape(shape)),)
