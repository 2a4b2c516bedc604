"""Readers of operators that repeat and rearrange elements: Tile, DepthToSpace, SpaceToDepth, GatherND, GatherElements, Scatter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.broadcast import only_variable, required, sample_axes
from onnxsub.ops.choose import Choose
from onnxsub.ops.movement import Gather, Permute, Reshape
from onnxsub.ops.node import Node
from onnxsub.ops.read_scatter import reduced

__all__ = [
    "read_depth_to_space",
    "read_gather_elements",
    "read_gather_nd",
    "read_scatter_elements",
    "read_scatter_nd",
    "read_space_to_depth",
    "read_tile",
]


def read_tile(node: Node) -> tuple[Gather, ...]:
    """Constant numbers of repeats, one for each axis."""
    shape = node.shapes[only_variable(node)]
    repeats = [int(r) for r in required(node, 1, "the numbers of repeats").reshape(-1)]
    if len(repeats) != len(shape) or min(repeats) < 1:
        raise node.refuse(f"repeats {repeats} of a tensor with {len(shape)} axes")
    if repeats[0] != 1:
        raise node.refuse("it repeats along the batch axis")
    indices = tuple(None if r == 1 else np.tile(np.arange(n), r) for n, r in zip(shape[1:], repeats[1:], strict=True))
    return (Gather(**node.common(), indices=indices),)


def read_depth_to_space(node: Node) -> tuple[Operator, ...]:
    """Channels into blocks of places: depth, column, row order (DCR), or column, row, depth (CRD, since opset 11)."""
    lead, (c, h, w) = _image(node)
    b = int(node.attributes["blocksize"])
    mode = node.attributes.get("mode", "DCR")
    if mode not in ("DCR", "CRD") or b < 1 or c % (b * b):
        raise node.refuse(f"mode {mode!r} with blocks of {b} and {c} channels")
    parts, order = ((b, b, c // b**2, h, w), (2, 3, 0, 4, 1)) if mode == "DCR" else ((c // b**2, b, b, h, w), (0, 3, 1, 4, 2))
    return _rearranged(node, lead, parts, order)


def read_space_to_depth(node: Node) -> tuple[Operator, ...]:
    """Blocks of places into channels."""
    lead, (c, h, w) = _image(node)
    b = int(node.attributes["blocksize"])
    if b < 1 or h % b or w % b or node.attributes.get("mode", "DCR") != "DCR":
        raise node.refuse(f"blocks of {b} in {h} x {w} places, mode {node.attributes.get('mode', 'DCR')!r}")
    return _rearranged(node, lead, (c, h // b, b, w // b, b), (2, 4, 0, 1, 3))


def _image(node: Node) -> tuple[Shape, Shape]:
    """Rows that are no batch axis (`moved_batch.py`), or (); channels and places."""
    shape = node.sample_shape(only_variable(node))
    if len(shape) not in (3, 4):
        raise node.refuse(f"a tensor with {len(shape) + 1} axes, not 4")
    return shape[:-3], shape[-3:]


def _rearranged(node: Node, lead: Shape, parts: Shape, order: tuple[int, ...]) -> tuple[Operator, ...]:
    """The tensor with its axes behind `lead` split into `parts`, these in another order, and merged."""
    common, parts = node.common(), lead + parts
    order = tuple(range(len(lead))) + tuple(len(lead) + i for i in order)
    output = common["output"]
    split, turned = f"{output}:split", f"{output}:turned"
    after = tuple(parts[i] for i in order)
    return (
        Reshape(**common | {"output": split, "out_shape": parts}),
        Permute(**common | {"inputs": (split,), "output": turned, "in_shapes": (parts,), "out_shape": after}, order=order),
        Reshape(**common | {"inputs": (turned,), "in_shapes": (after,)}),
    )


def read_gather_nd(node: Node) -> tuple[Operator, ...]:
    """Constant indices into the leading axes behind `batch_dims`; the batch axis is one of these (`batch_dims` of 1 or more)."""
    shape = node.shapes[only_variable(node)]
    index = required(node, 1, "the indices").astype(np.int64)
    batch = int(node.attributes.get("batch_dims", 0))
    depth = index.shape[-1] if index.ndim else 0
    if batch < 1 or batch >= index.ndim or index.shape[:batch] != shape[:batch] or batch + depth > len(shape):
        raise node.refuse(f"indices of shape {list(index.shape)} with batch_dims {batch} move the batch axis")
    limits = np.array(shape[batch : batch + depth])
    _check(node, index, limits)
    marks = np.arange(math.prod(shape)).reshape(-1, *shape[batch:])
    places = (index % limits).reshape(len(marks), -1, depth)
    return _picked(node, np.stack([m[tuple(p.T)] for m, p in zip(marks, places, strict=True)]))


def read_gather_elements(node: Node) -> tuple[Operator, ...]:
    """One constant index for each element of the output, along an axis of the sample."""
    shape = node.shapes[only_variable(node)]
    index = required(node, 1, "the indices").astype(np.int64)
    axis = sample_axes(node, [int(node.attributes.get("axis", 0))], len(shape))[0] + 1
    return _picked(node, np.arange(math.prod(shape)).reshape(shape)[_along(node, index, shape, axis)])


def _along(node: Node, index: Array, shape: Shape, axis: int) -> tuple[Array, ...]:
    """The place in a tensor of shape `shape` of every element of `index`, which counts along `axis`."""
    if index.ndim != len(shape) or any(i > n for k, (i, n) in enumerate(zip(index.shape, shape, strict=True)) if k != axis):
        raise node.refuse(f"indices of shape {list(index.shape)} for a tensor of shape {list(shape)}")
    _check(node, index, np.array(shape[axis]))
    places: list[Array] = list(np.indices(index.shape))
    places[axis] = index % shape[axis]
    return tuple(places)


def _check(node: Node, index: Array, limits: Array) -> None:
    if index.size and not ((-limits <= index) & (index < limits)).all():
        raise node.refuse("an index is outside the tensor")


def _picked(node: Node, marks: Array) -> tuple[Operator, ...]:
    """The elements number `marks` of the flattened sample, in the shape of the output."""
    return _gathered(node.common(), marks)


def _gathered(common: dict[str, Any], marks: Array) -> tuple[Operator, ...]:
    flat, n = f"{common['output']}:flat", math.prod(common["in_shapes"][0])
    return (
        Reshape(**common | {"output": flat, "out_shape": (n,)}),
        Gather(**common | {"inputs": (flat,), "in_shapes": ((n,),)}, indices=(marks.reshape(-1).astype(np.int64),)),
    )


def read_scatter_elements(node: Node) -> tuple[Operator, ...]:
    """Elements replaced at constant places along an axis of the sample."""
    shape = node.shapes[node.inputs[0]]
    index = required(node, 1, "the indices").astype(np.int64)
    axis = sample_axes(node, [int(node.attributes.get("axis", 0))], len(shape))[0] + 1
    return _replaced(node, np.arange(math.prod(shape)).reshape(shape)[_along(node, index, shape, axis)])


def read_scatter_nd(node: Node) -> tuple[Operator, ...]:
    """Elements, or whole slices, replaced at constant places."""
    shape = node.shapes[node.inputs[0]]
    index = required(node, 1, "the indices").astype(np.int64)
    depth = index.shape[-1]
    limits = np.array(shape[:depth])
    _check(node, index, limits)
    marks = np.arange(math.prod(shape)).reshape(shape)
    return _replaced(node, marks[tuple(np.moveaxis(index % limits, -1, 0))])


def _replaced(node: Node, places: Array) -> tuple[Operator, ...]:
    """The elements number `places` of the first input replaced by those of the third one, or combined with them."""
    reduction = str(node.attributes.get("reduction", "none"))
    if reduction != "none" and places.size:
        return reduced(node, places, reduction)
    if len(np.unique(places)) != places.size:
        raise node.refuse("a place is written twice")
    shape, common = node.shapes[node.inputs[0]], node.common()
    source = np.full(math.prod(shape), -1)
    source[places.reshape(-1)] = np.arange(places.size)
    written = (source >= 0).reshape(common["out_shape"])
    which, constant = np.full(common["out_shape"], -1, dtype=np.int64), np.zeros(common["out_shape"])
    before: tuple[Operator, ...] = ()
    names: list[str] = []
    for number, place in ((0, ~written), (2, written)):
        if number == 2 and not places.size:
            continue
        name, value = node.inputs[number], node.constant(number)
        if value is not None:
            values = np.asarray(value, dtype=np.float64).reshape(-1)
            values = values if number == 0 else values[np.maximum(source, 0)]
            constant += np.where(place, values.reshape(common["out_shape"]), 0.0)
            continue
        if number == 2:
            part = {"inputs": (name,), "in_shapes": (node.sample_shape(name),), "output": f"{common['output']}:updates"}
            before = _gathered(common | part, np.maximum(source, 0))
            name = f"{common['output']}:updates"
        which[place] = len(names)
        names.append(name)
    if not np.isfinite(constant).all():
        raise node.refuse("a constant operand is not finite")
    shapes: Sequence[Shape] = [common["out_shape"]] * len(names)
    given = common | {"inputs": tuple(names), "in_shapes": tuple(shapes)}
    return *before, Choose(**given, which=which, constant=constant)
