"""Resize and Upsample with constant scales: a fixed linear map, one small matrix per axis.

Nearest is a selection of elements (`Gather`); linear and cubic interpolation is `Interpolate`.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Affine, Array
from onnxsub.ops.broadcast import only_variable, required
from onnxsub.ops.movement import Gather
from onnxsub.ops.node import Node
from onnxsub.ops.resize_axis import COORDINATES, NEAREST, AxisResize

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Interpolate", "read_resize", "read_upsample"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Interpolate(Affine):
    """`y[i_1, ..., i_k] = sum over j of M_1[i_1, j_1] ... M_k[i_k, j_k] x[j_1, ..., j_k] + shift`.

    Attributes:
        weights: M of every axis of the sample, `(out, in)`; None where the axis stays as it is.
        shift: `out_shape`, what places outside the input hold; None where there are none.
    """

    weights: tuple[Array | None, ...]
    shift: Array | None = None

    def _weight(self, axis: int, like: Tensor, size: bool) -> Tensor:
        weight = np.asarray(self.weights[axis])

        def make() -> Tensor:
            return torch.as_tensor(np.abs(weight) if size else weight, dtype=like.dtype, device=like.device)

        result: Tensor = self.cached((axis, size, like.dtype, like.device), make)
        return result

    def _apply(self, x: Tensor, size: bool = False, turned: bool = False) -> Tensor:
        for axis, weight in enumerate(self.weights):
            if weight is not None:
                matrix = self._weight(axis, x, size)
                x = torch.movedim(torch.movedim(x, axis + 1, -1) @ (matrix if turned else matrix.T), -1, axis + 1)
        return x

    def linear(self, *xs: Tensor) -> Tensor:
        return self._apply(xs[0])

    def magnitude(self, *rs: Tensor) -> Tensor:
        return self._apply(rs[0], size=True)

    def offset(self, like: Tensor) -> Tensor | None:
        return None if self.shift is None else self.tensor("shift", like)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self._apply(a, turned=True),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """A MatMul per axis, between two Transposes where it is not the last one, and an Add."""
        source, rank = inputs[0], len(self.weights)
        axes = [i for i, w in enumerate(self.weights) if w is not None]
        for axis in axes:
            last = axis == axes[-1] and self.shift is None
            target = output if last else writer.fresh(f"{output}/axis{axis}")
            perm = [*(i for i in range(rank + 1) if i != axis + 1), axis + 1]
            matrix = writer.weight(output, f"weight{axis}", np.asarray(self.weights[axis]).T)
            if axis == rank - 1:
                writer.node("MatMul", (source, matrix), target)
            else:
                turned = writer.step("Transpose", (source,), output, f"turned{axis}", perm=perm)
                product = writer.step("MatMul", (turned, matrix), output, f"product{axis}")
                writer.node("Transpose", (product,), target, perm=[int(i) for i in np.argsort(perm)])
            source = target
        if self.shift is not None:
            writer.node("Add", (source, writer.weight(output, "shift", self.shift[None])), output)

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        import scipy.sparse as sp

        result = sp.csr_array(np.ones((1, 1)))
        for weight, n in zip(self.weights, self.in_shapes[0], strict=True):
            part = sp.eye_array(n) if weight is None else sp.csr_array(weight)
            result = sp.csr_array(sp.kron(result, part, format="csr"))
        result.eliminate_zeros()
        return (result,)


def read_upsample(node: Node) -> tuple[Gather | Interpolate, ...]:
    """Scales are an attribute before opset 9; places are those of `asymmetric`, rounded down."""
    rule = AxisResize(_mode(node, "nearest"), "asymmetric", "simple")
    scales = node.attributes.get("scales")
    values = required(node, 1, "scales").reshape(-1) if scales is None else np.asarray(scales)
    return _resize(node, rule, [float(s) for s in values])


def read_resize(node: Node) -> tuple[Gather | Interpolate, ...]:
    """`scales` or `sizes`, one of which is given since opset 11; opset 10 has scales, and places as Upsample."""
    rank = len(node.shapes[only_variable(node)])
    if node.opset < 11:
        rule = AxisResize(_mode(node, "nearest"), "asymmetric", "simple")
        return _resize(node, rule, [float(s) for s in required(node, 1, "scales").reshape(-1)])
    given = node.attributes
    rule = AxisResize(
        mode=_mode(node, "nearest"),
        coordinates=given.get("coordinate_transformation_mode", "half_pixel"),
        nearest=given.get("nearest_mode", "round_prefer_floor"),
        cubic=float(given.get("cubic_coeff_a", -0.75)),
        exclude_outside=bool(given.get("exclude_outside", 0)),
        antialias=bool(given.get("antialias", 0)),
    )
    if rule.coordinates not in COORDINATES or rule.nearest not in NEAREST[:-1]:
        raise node.refuse(f"coordinate_transformation_mode {rule.coordinates!r} with nearest_mode {rule.nearest!r}")
    if rule.antialias and rule.mode == "nearest":
        raise node.refuse("antialias with mode nearest, which onnxruntime does not run")
    axes = [int(a) % rank for a in given.get("axes", range(rank))]
    shape, scales = node.shapes[node.inputs[0]], [1.0] * rank
    sized = not (node.has(2) and required(node, 2, "scales").size)
    if not sized:
        for axis, scale in zip(axes, required(node, 2, "scales").reshape(-1), strict=True):
            scales[axis] = float(scale)
    else:
        sizes = [int(n) for n in required(node, 3, "sizes").reshape(-1)]
        ratios = [np.float32(size) / np.float32(shape[axis]) for axis, size in zip(axes, sizes, strict=True)]
        policy = given.get("keep_aspect_ratio_policy", "stretch")
        if policy not in ("stretch", "not_larger", "not_smaller"):
            raise node.refuse(f"keep_aspect_ratio_policy {policy!r}")
        if policy != "stretch":
            if min(given.get("axes", [0])) < 0:  # onnxruntime leaves the tensor as it is then
                raise node.refuse(f"keep_aspect_ratio_policy {policy!r} with negative axes; count them from 0")
            ratios = [min(ratios) if policy == "not_larger" else max(ratios)] * len(ratios)
        for axis, ratio in zip(axes, ratios, strict=True):
            scales[axis] = float(ratio)
    roi = [(0.0, 1.0)] * rank
    if rule.coordinates == "tf_crop_and_resize":
        values = required(node, 1, "roi").reshape(-1)
        for k, axis in enumerate(axes):
            roi[axis] = float(values[k]), float(values[k + len(axes)])
    return _resize(node, rule, scales, sized=sized, roi=roi, outside=float(given.get("extrapolation_value", 0.0)))


def _mode(node: Node, default: str) -> str:
    mode = str(node.attributes.get("mode", default))
    mode = "linear" if mode == "bilinear" else mode
    if mode not in ("nearest", "linear", "cubic"):
        raise node.refuse(f"mode {mode!r}")
    return mode


def _resize(
    node: Node,
    rule: AxisResize,
    scales: list[float],
    *,
    sized: bool = False,
    roi: list[tuple[float, float]] | None = None,
    outside: float = 0.0,
) -> tuple[Gather | Interpolate, ...]:
    before, after = node.shapes[only_variable(node)], node.shapes[node.outputs[0]]
    roi = roi or [(0.0, 1.0)] * len(before)
    if len(scales) != len(before) or min(scales) <= 0 or not all(map(math.isfinite, scales)):
        raise node.refuse(f"scales {scales} of a tensor with {len(before)} axes")
    lengths = [int(np.float32(n) * np.float32(s)) for n, s in zip(before, scales, strict=True)]
    if not sized and lengths != list(after):
        raise node.refuse(f"in float32 scales {scales} lead to {lengths}, by the shapes of the file to {list(after)}; export sizes")
    found = list(zip(before, after, scales, roi, strict=True))
    ratios = [m / n if sized and abs(m / n - s) < 1e-6 * s else s for n, m, s in zip(before, after, scales, strict=True)]
    if any(rule.hangs_on_rounding(*axis, ratio) for axis, ratio in zip(found, ratios, strict=True)):
        raise node.refuse("an element lies on the border of two neighbours, so that the last bit decides; use other lengths")
    matrices = [rule.matrix(*axis) for axis in found]
    weights = [None if m.shape == (n, n) and (m == np.eye(n)).all() else m for m, n in zip(matrices, before, strict=True)]
    if weights[0] is not None:
        raise node.refuse("it resizes the batch axis")
    inside = [rule.inside(*axis) for axis in found]
    if list(before) == list(after) and not (all(w is None for w in weights) and all(part.all() for part in inside)):
        raise node.refuse(f"scales {scales} keep every length, and onnxruntime then copies the tensor; leave it out")
    common = node.common()
    if all(part.all() for part in inside) and rule.mode == "nearest":
        return (Gather(**common, indices=tuple(None if w is None else w.argmax(axis=1) for w in weights[1:])),)
    shift = None
    if not all(part.all() for part in inside):
        if not math.isfinite(outside):
            raise node.refuse(f"places outside the input hold {outside}")
        shift = np.where(functools.reduce(np.logical_and.outer, inside[1:]), 0.0, outside)
    if all(w is None for w in weights):
        weights[-1] = np.eye(before[-1])
    return (Interpolate(**common, weights=tuple(weights[1:]), shift=shift),)
