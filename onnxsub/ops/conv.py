"""Conv and ConvTranspose by a constant kernel, in one to three spatial axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Affine, Array
from onnxsub.ops.broadcast import only_variable, required
from onnxsub.ops.node import Node
from onnxsub.ops.sliding import Sliding, read_sliding

if TYPE_CHECKING:
    import scipy.sparse as sp
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
    from onnxsub.ops.relaxation import Window

__all__ = ["Conv", "ConvTranspose", "conv_matrix", "read_conv", "read_conv_transpose"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Affine):
    """`y[c, o] = b[c] + sum_{i, k} w[c, i, k] x[i, o stride + k dilation - before]`, in groups of channels.

    Attributes:
        weight: `(C_out, C_in / groups, *kernel)`.
        bias: `(C_out, 1, ...)`, or None.
        sliding: where the kernel meets the input.
    """

    weight: Array
    bias: Array | None = None
    groups: int = 1
    sliding: Sliding

    @property
    def weight_size(self) -> Array:
        return np.abs(self.weight)

    def linear(self, *xs: Tensor) -> Tensor:
        return self.sliding.correlate(xs[0], self.tensor("weight", xs[0]), self.groups)

    def magnitude(self, *rs: Tensor) -> Tensor:
        return self.sliding.correlate(rs[0], self.tensor("weight_size", rs[0]), self.groups)

    def offset(self, like: Tensor) -> Tensor | None:
        return None if self.bias is None else self.tensor("bias", like)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self.sliding.spread(a, self.tensor("weight", a), self.groups),)

    def transpose_window(self, a: Tensor, window: Window) -> tuple[Tensor, Window] | None:
        if len(window) != len(self.sliding.kernel):
            return None
        return self.sliding.spread_window(a, self.tensor("weight", a), self.groups, window)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        self.sliding.to_onnx(writer, (inputs[0], *_parameters(self, writer, output)), output, self.groups)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        return (conv_matrix(self.weight, self.groups, self.sliding),)


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvTranspose(Affine):
    """`y = K^T x + b`, K the convolution with the same kernel and geometry.

    Attributes:
        weight: `(C_in, C_out / groups, *kernel)`.
        bias: `(C_out, 1, ...)`, or None.
        sliding: geometry of K, which slides over y and leads to x.
    """

    weight: Array
    bias: Array | None = None
    groups: int = 1
    sliding: Sliding

    @property
    def weight_size(self) -> Array:
        return np.abs(self.weight)

    def linear(self, *xs: Tensor) -> Tensor:
        return self.sliding.spread(xs[0], self.tensor("weight", xs[0]), self.groups)

    def magnitude(self, *rs: Tensor) -> Tensor:
        return self.sliding.spread(rs[0], self.tensor("weight_size", rs[0]), self.groups)

    def offset(self, like: Tensor) -> Tensor | None:
        return None if self.bias is None else self.tensor("bias", like)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self.sliding.correlate(a, self.tensor("weight", a), self.groups),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        s = self.sliding
        writer.node(
            "ConvTranspose", (inputs[0], *_parameters(self, writer, output)), output, group=self.groups,
            strides=list(s.strides), dilations=list(s.dilations), pads=[*s.before, *[max(0, a) for a in s.after]],
            output_padding=[max(0, -a) for a in s.after] if min(s.after) < 0 else None,
        )  # fmt: skip

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        return (sp.csr_array(conv_matrix(self.weight, self.groups, self.sliding).T),)


def _parameters(op: Conv | ConvTranspose, writer: OnnxWriter, output: str) -> tuple[str, ...]:
    weight = writer.weight(output, "weight", op.weight)
    return (weight,) if op.bias is None else (weight, writer.weight(output, "bias", op.bias.reshape(-1)))


def conv_matrix(weight: Array, groups: int, sliding: Sliding) -> sp.csr_array:
    """The convolution as a sparse matrix over flattened tensors, by index arithmetic."""
    import scipy.sparse as sp

    c_out, c_group = weight.shape[:2]
    n_out, n_in = math.prod(sliding.out_spatial), math.prod(sliding.in_spatial)
    out, ker, inp = sliding.pairs()
    co, ci = np.arange(c_out), np.arange(c_group)
    first = (co // (c_out // groups)) * c_group  # first input channel of each output channel's group
    shape = (c_out, c_group, len(out))
    data = weight.reshape(c_out, c_group, -1).astype(np.float64)[:, :, ker]
    rows = np.broadcast_to((co[:, None] * n_out + out)[:, None, :], shape)
    columns = (first[:, None] + ci)[:, :, None] * n_in + inp
    size = (c_out * n_out, groups * c_group * n_in)
    matrix = sp.coo_array((data.reshape(-1), (rows.reshape(-1), columns.reshape(-1))), shape=size).tocsr()
    matrix.eliminate_zeros()
    return sp.csr_array(matrix)


def read_conv(node: Node) -> tuple[Conv, ...]:
    """Conv by a constant kernel."""
    source = only_variable(node)
    weight = required(node, 1, "the kernel")
    kernel = tuple(weight.shape[2:])
    sliding = read_sliding(node, _same_kernel(node, kernel), node.outputs[0], source)
    groups = int(node.attributes.get("group", 1))
    if weight.shape[1] * groups != node.sample_shape(source)[0] or weight.shape[0] % groups:
        raise node.refuse(f"kernel of shape {list(weight.shape)} in {groups} groups on {list(node.shapes[source])}")
    return (Conv(**node.common(), weight=weight, bias=_bias(node, len(kernel)), groups=groups, sliding=sliding),)


def read_conv_transpose(node: Node) -> tuple[ConvTranspose, ...]:
    """ConvTranspose by a constant kernel; its padding may be given by the shape of its output."""
    source = only_variable(node)
    weight = required(node, 1, "the kernel")
    kernel = _same_kernel(node, tuple(weight.shape[2:]))
    groups = int(node.attributes.get("group", 1))
    if weight.shape[0] != node.sample_shape(source)[0] or weight.shape[0] % groups:
        raise node.refuse(f"kernel of shape {list(weight.shape)} in {groups} groups on {list(node.shapes[source])}")
    sliding = read_sliding(node, kernel, source, node.outputs[0])
    mode = node.attributes.get("auto_pad", "NOTSET")
    if node.attributes.get("output_shape") or mode in ("SAME_UPPER", "SAME_LOWER"):
        # the padding follows from the output's shape; output_padding counts as part of what is spanned
        extra = node.attributes.get("output_padding") or [0] * len(kernel)
        if any(extra) and not node.attributes.get("output_shape"):
            raise node.refuse(f"auto_pad {mode!r} with output_padding {list(extra)}: onnxruntime's output is larger than ONNX says")
        total = [n + int(e) - i for n, e, i in zip(sliding.spans, extra, sliding.in_spatial, strict=True)]
        if min(total) < 0:
            raise node.refuse("its output is larger than what its windows span")
        before = tuple(t // 2 if mode == "SAME_UPPER" else t - t // 2 for t in total)
        sliding = Sliding(kernel, sliding.strides, sliding.dilations, before, sliding.in_spatial, sliding.out_spatial)
    return (ConvTranspose(**node.common(), weight=weight, bias=_bias(node, len(kernel)), groups=groups, sliding=sliding),)


def _same_kernel(node: Node, kernel: tuple[int, ...]) -> tuple[int, ...]:
    given = node.attributes.get("kernel_shape")
    if given and tuple(int(k) for k in given) != kernel:
        raise node.refuse(f"kernel_shape {list(given)} differs from that of the kernel, {list(kernel)}")
    return kernel


def _bias(node: Node, spatial: int) -> Array | None:
    if not node.has(2):
        return None
    return required(node, 2, "the bias").reshape(-1, *[1] * spatial)
