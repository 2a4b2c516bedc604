"""Readers of the operators in `movement`: which attribute became an input at which opset."""

from __future__ import annotations

import numpy as np
import onnx

from onnxsub.ops.base import Array
from onnxsub.ops.broadcast import only_variable, required, sample_axes
from onnxsub.ops.moved_batch import sample_of, view
from onnxsub.ops.movement import Gather, Pad, Permute, Reshape, Selection, Slice
from onnxsub.ops.node import Node

__all__ = [
    "axes_of",
    "read_cast",
    "read_dropout",
    "read_gather",
    "read_pad",
    "read_slice",
    "read_split",
    "read_squeeze",
    "read_transpose",
    "read_unsqueeze",
    "read_view",
]


def axes_of(node: Node, i: int = 1) -> list[int] | None:
    """The axes, which are an attribute in old opsets and input i in new ones; None where they are left out."""
    if node.has(i):
        return [int(a) for a in required(node, i, "the list of axes").reshape(-1)]
    axes = node.attributes.get("axes")
    return None if axes is None else [int(a) for a in axes]


def read_view(node: Node) -> tuple[Reshape, ...]:
    """Flatten, Reshape, Identity: the order of elements stays, wherever the batch axis goes."""
    source, output = only_variable(node), node.outputs[0]
    return (view(node, source, output, sample_of(node.shapes[source]), sample_of(node.shapes[output])),)


def read_squeeze(node: Node) -> tuple[Reshape, ...]:
    """Axes of length 1 removed, which are an input since opset 13."""
    if node.has(1):
        required(node, 1, "the list of axes")
    return read_view(node)


def read_unsqueeze(node: Node) -> tuple[Reshape, ...]:
    """Axes of length 1 put in, which are an input since opset 13."""
    if axes_of(node) is None:
        raise node.refuse("no axes are given")
    return read_view(node)


def read_dropout(node: Node) -> tuple[Reshape, ...]:
    """Identity: Dropout does something in training only."""
    only_variable(node)
    if any(node.outputs[1:]):
        raise node.refuse("its mask is used")
    if node.has(2) and required(node, 2, "training_mode").any():
        raise node.refuse("training mode, where it draws random numbers; export the model in evaluation mode")
    return (Reshape(**node.common()),)


def read_cast(node: Node) -> tuple[Reshape, ...]:
    """Identity over the real numbers, between all types of floats: what they round is up to the replay."""
    only_variable(node)
    to = int(node.attributes["to"])
    if to not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
        raise node.refuse(f"a cast to {onnx.TensorProto.DataType.Name(to)} rounds")
    return (Reshape(**node.common()),)


def read_transpose(node: Node) -> tuple[Permute, ...]:
    """Axes in another order; the batch axis stays in front."""
    rank = len(node.shapes[only_variable(node)])
    perm = [int(p) for p in node.attributes.get("perm") or reversed(range(rank))]
    if sorted(perm) != list(range(rank)):
        raise node.refuse(f"perm {perm} on a tensor with {rank} axes")
    if rank == 0 or perm[0] != 0:
        raise node.refuse(f"perm {perm} moves the batch axis")
    return (Permute(**node.common(), order=tuple(p - 1 for p in perm[1:])),)


def read_slice(node: Node) -> tuple[Selection, ...]:
    """Constant ranges of the axes of the sample (attributes before opset 10)."""
    shape = node.shapes[only_variable(node)]
    if node.has(1):
        names = ("starts", "ends", "axes", "steps")
        lists = [required(node, i, what) if node.has(i) else None for i, what in enumerate(names, 1)]
        starts, ends, axes, steps = (None if v is None else [int(n) for n in v.reshape(-1)] for v in lists)
        axes = node.attributes.get("axes") if axes is None else axes
    else:
        starts, ends, axes = (node.attributes.get(n) for n in ("starts", "ends", "axes"))
        steps = None
    if starts is None or ends is None:
        raise node.refuse("starts or ends are missing")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if len({len(starts), len(ends), len(axes), len(steps)}) != 1 or 0 in steps:
        raise node.refuse(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    ranges = [(0, n, 1) for n in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -len(shape) <= axis < len(shape):
            raise node.refuse(f"axis {axis} of a tensor with {len(shape)} axes")
        n = shape[axis]
        # ONNX clamps like Python, but an end below -n with a negative step means "past the first element"
        ranges[axis] = _bounds(int(start), int(end), int(step), n)
    if ranges[0] != (0, 1, 1):
        raise node.refuse("it cuts along the batch axis")
    common = node.common()
    if min(step for _, _, step in ranges) > 0:
        return (Slice(**common, ranges=tuple(ranges[1:])),)
    indices = tuple(None if r == (0, n, 1) else np.arange(*r) for r, n in zip(ranges[1:], shape[1:], strict=True))
    return (Gather(**common, indices=indices),)


def _bounds(start: int, end: int, step: int, n: int) -> tuple[int, int, int]:
    start = start + n if start < 0 else start
    end = end + n if end < 0 else end
    if step > 0:
        return min(max(start, 0), n), min(max(end, 0), n), step
    return min(max(start, 0), n - 1), min(max(end, -1), n - 1), step


def read_split(node: Node) -> tuple[Slice, ...]:
    """One Slice for each output that is read (sizes: attribute before opset 13, `num_outputs` since 18)."""
    shape = node.shapes[only_variable(node)]
    (axis,) = sample_axes(node, [int(node.attributes.get("axis", 0))], len(shape))
    n = shape[axis + 1]
    if node.has(1):
        sizes = [int(s) for s in required(node, 1, "split").reshape(-1)]
    elif node.attributes.get("split") is not None:
        sizes = [int(s) for s in node.attributes["split"]]
    else:
        parts = int(node.attributes.get("num_outputs", len(node.outputs)))
        size = -(-n // parts)
        sizes = [min(size, n - i * size) for i in range(parts)]
    if sum(sizes) != n or len(sizes) != len(node.outputs) or min(sizes) < 0:
        raise node.refuse(f"split {sizes} of {n} elements into {len(node.outputs)} outputs")
    found, at = [], 0
    for i, size in enumerate(sizes):
        if node.outputs[i]:
            ranges = [(0, m, 1) for m in shape[1:]]
            ranges[axis] = (at, at + size, 1)
            found.append(Slice(**node.common(i), ranges=tuple(ranges)))
        at += size
    return tuple(found)


def read_gather(node: Node) -> tuple[Gather, ...]:
    """Constant indices along an axis of the sample."""
    shape = node.shapes[only_variable(node)]
    index = required(node, 1, "the list of indices").astype(np.int64)
    (axis,) = sample_axes(node, [int(node.attributes.get("axis", 0))], len(shape))
    n = shape[axis + 1]
    if index.size and not (-n <= index.min() and index.max() < n):
        raise node.refuse(f"an index outside [{-n}, {n - 1}]")
    indices: list[Array | None] = [None] * (len(shape) - 1)
    indices[axis] = (index % n).reshape(-1)
    return (Gather(**node.common(), indices=tuple(indices)),)


def read_pad(node: Node) -> tuple[Selection, ...]:
    """Constant, reflected, repeated or wrapped padding of the sample (attributes before opset 11)."""
    shape = node.shapes[only_variable(node)]
    rank = len(shape)
    mode = node.attributes.get("mode", "constant")
    if node.has(1):
        given = [int(p) for p in required(node, 1, "pads").reshape(-1)]
        value = float(required(node, 2, "the padding value").reshape(-1)[0]) if node.has(2) else 0.0
    else:
        given = [int(p) for p in node.attributes["pads"]]
        value = float(node.attributes.get("value", 0.0))
    axes = axes_of(node, 3) if node.has(3) else list(range(rank))
    assert axes is not None
    if len(given) != 2 * len(axes) or not all(-rank <= a < rank for a in axes):
        raise node.refuse(f"pads {given} for axes {axes}")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = given[i], given[len(axes) + i]
    if before[0] or after[0]:
        raise node.refuse("it pads the batch axis")
    common = node.common()
    if mode == "constant":
        if not np.isfinite(value):
            raise node.refuse(f"padding with {value}")
        return (Pad(**common, before=tuple(before[1:]), after=tuple(after[1:]), value=value),)
    numpy_mode = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}.get(mode)
    if numpy_mode is None or min(before + after) < 0:
        raise node.refuse(f"mode {mode!r} with pads {given}")
    indices = tuple(
        None if b == 0 == a else np.pad(np.arange(n), (b, a), mode=numpy_mode)  # type: ignore[call-overload]
        for n, b, a in zip(shape[1:], before[1:], after[1:], strict=True)
    )
    return (Gather(**common, indices=indices),)
