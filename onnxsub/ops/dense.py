"""Products with a constant matrix: Gemm, and MatMul from either side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Affine, Array, Shape
from onnxsub.ops.broadcast import leading, of_sample, required, sum_to
from onnxsub.ops.node import Node

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Dense", "LeftProduct", "read_gemm", "read_matmul"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Affine):
    """`y = x W^T + b` along the last axis.

    Attributes:
        weight: `(*batch, out, in)`; the batch axes are broadcast against those of `(*batch, rows, in)`.
        bias: broadcastable to `out_shape`, or None.
    """

    weight: Array
    bias: Array | None = None

    @property
    def weight_size(self) -> Array:
        return np.abs(self.weight)

    def linear(self, *xs: Tensor) -> Tensor:
        return self._product(xs[0], "weight")

    def magnitude(self, *rs: Tensor) -> Tensor:
        return self._product(rs[0], "weight_size")

    def _product(self, x: Tensor, name: str) -> Tensor:
        return torch.matmul(x, self.tensor(name, x).transpose(-1, -2)).reshape(x.shape[0], *self.out_shape)

    def offset(self, like: Tensor) -> Tensor | None:
        return None if self.bias is None else self.tensor("bias", like)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        rows = self.in_shapes[0][:-1]
        # the product may have lost its axis of length 1 (MatMul by a vector)
        batch = np.broadcast_shapes(rows[:-1], self.weight.shape[:-2])
        a = a.reshape(a.shape[0], *batch, *rows[-1:], self.weight.shape[-2])
        return (sum_to(torch.matmul(a, self.tensor("weight", a)), self.in_shapes[0]),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """Gemm where samples are rows, else MatMul and Add."""
        if self.weight.ndim == 2 and len(self.in_shapes[0]) == len(self.out_shape) == 1:
            bias = np.zeros(self.out_shape) if self.bias is None else np.broadcast_to(self.bias, self.out_shape)
            parameters = writer.weight(output, "weight", self.weight), writer.weight(output, "bias", bias)
            writer.node("Gemm", (inputs[0], *parameters), output, transB=1)
            return
        factors = (inputs[0], writer.weight(output, "weight", np.swapaxes(self.weight, -1, -2)))
        rows = self.in_shapes[0][:-1]
        shape = (*np.broadcast_shapes(rows[:-1], self.weight.shape[:-2]), *rows[-1:], self.weight.shape[-2])
        target = output if self.bias is None else writer.fresh(f"{output}/product")
        if shape == self.out_shape:
            writer.node("MatMul", factors, target)
        else:
            writer.reshape(writer.step("MatMul", factors, output, "rows"), target, self.out_shape)
        if self.bias is not None:
            writer.node("Add", (target, writer.weight(output, "bias", leading(self.bias, len(self.out_shape)))), output)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        if self.weight.ndim > 2:
            return super()._matrices()
        rows = int(np.prod(self.in_shapes[0][:-1], dtype=np.int64))
        return (sp.csr_array(sp.kron(sp.eye_array(rows), sp.csr_array(self.weight.astype(np.float64)), format="csr")),)


@dataclass(frozen=True, eq=False, kw_only=True)
class LeftProduct(Affine):
    """`y = W x`, x a matrix per sample.

    Attributes:
        weight: `(*batch, out, in)`, broadcast against `(*batch, in, columns)`.
    """

    weight: Array

    @property
    def weight_size(self) -> Array:
        return np.abs(self.weight)

    def linear(self, *xs: Tensor) -> Tensor:
        return torch.matmul(self.tensor("weight", xs[0]), xs[0]).reshape(xs[0].shape[0], *self.out_shape)

    def magnitude(self, *rs: Tensor) -> Tensor:
        return torch.matmul(self.tensor("weight_size", rs[0]), rs[0]).reshape(rs[0].shape[0], *self.out_shape)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        shape = self.in_shapes[0]
        batch = np.broadcast_shapes(shape[:-2], self.weight.shape[:-2])
        a = a.reshape(a.shape[0], *batch, self.weight.shape[-2], shape[-1])
        return (sum_to(torch.matmul(self.tensor("weight", a).transpose(-1, -2), a), shape),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        shape = self.in_shapes[0]
        batch = np.broadcast_shapes(shape[:-2], self.weight.shape[:-2])
        factors = (writer.weight(output, "weight", self.weight), inputs[0])
        if (*batch, self.weight.shape[-2], shape[-1]) == self.out_shape:
            writer.node("MatMul", factors, output)
        else:
            writer.reshape(writer.step("MatMul", factors, output, "product"), output, self.out_shape)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        if self.weight.ndim > 2 or len(self.in_shapes[0]) > 2:
            return super()._matrices()
        columns = self.in_shapes[0][-1]
        return (sp.csr_array(sp.kron(sp.csr_array(self.weight.astype(np.float64)), sp.eye_array(columns), format="csr")),)


def read_gemm(node: Node) -> tuple[Dense, ...]:
    """`alpha A' B' + beta C` with a constant B and C."""
    weight = required(node, 1, "the matrix B").astype(np.float64)
    if len(node.variables) != 1 or node.inputs[0] != node.variables[0]:
        raise node.refuse("only A may depend on the network's input")
    if node.attributes.get("transA", 0):
        raise node.refuse("transA moves the batch axis")
    if not node.attributes.get("transB", 0):
        weight = weight.T
    bias = None
    c = node.constant(2)
    if c is not None:
        bias = of_sample(node, c, 2) * float(node.attributes.get("beta", 1.0))
        np.broadcast_to(bias, weight.shape[:1])  # shape inference does not look at C
    return (Dense(**node.common(), weight=weight * float(node.attributes.get("alpha", 1.0)), bias=bias),)


def read_matmul(node: Node) -> tuple[Dense | LeftProduct, ...]:
    """`A B` with one constant factor."""
    if len(node.variables) != 1:
        raise node.refuse("one of the two factors must be a constant")
    common = node.common()
    left = node.inputs[0] in node.constants
    value = required(node, 0 if left else 1, "one factor").astype(np.float64)
    rank = len(node.shapes[node.variables[0]])
    if rank < 2 or (left and rank < 3):
        raise node.refuse("it sums over the batch axis")
    if value.ndim == 1:
        value = value[None, :] if left else value[:, None]
    elif value.ndim > 2:
        value = _batch_of_sample(node, value, rank)
    if left:
        return (LeftProduct(**common, weight=value),)
    return (Dense(**common, weight=np.swapaxes(value, -1, -2)),)


def _batch_of_sample(node: Node, value: Array, rank: int) -> Array:
    """A batch of matrices against a tensor of full rank `rank`: without the axis that meets the batch axis.

    The last two axes are not broadcast, so a tensor with two axes meets no batch of matrices at all.
    """
    if rank == 2:
        raise node.refuse(f"a constant of shape {list(value.shape)} against a tensor with 2 axes moves the batch axis")
    shape: Shape = value.shape
    return of_sample(node, value, rank).reshape(shape[1:] if len(shape) == rank else shape)
