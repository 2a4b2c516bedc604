r"""Layers that are quantised as they run, as onnxruntime's `quantize_dynamic` writes them:

    q, s, z = DynamicQuantizeLinear(x),   y = Cast(MatMulInteger(q, W, z, w)) * (s v)

and likewise with ConvInteger, W, w and v constants. In real numbers that is `y = (s (q - z)) (v (W - w))`: the first factor is one
operator (`dynamic.py`), the second one a constant. Several layers may read one q.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnxsub.ops.base import Array, Shape
from onnxsub.ops.dynamic import UNDONE
from onnxsub.ops.node import Node

__all__ = ["dynamically_quantised"]

_FLOAT = 1
_KINDS = {"MatMulInteger": "MatMul", "ConvInteger": "Conv"}


def dynamically_quantised(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes, those of such layers in real numbers; a quantiser that anything else reads stays as it is, as do its layers."""
    dynamic = {n.outputs[0]: n for n in nodes if n.op_type == "DynamicQuantizeLinear" and len(n.outputs) == 3}
    if not dynamic:
        return nodes
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in dict.fromkeys(node.variables):
            readers.setdefault(name, []).append(node)
    new: dict[str, Node | None] = {}
    for quantiser in dynamic.values():
        found = _layers(quantiser, readers)
        if found is not None:
            new[quantiser.outputs[0]] = replace(
                quantiser, attributes={UNDONE: 1}, outputs=quantiser.outputs[:1],
                shapes={n: quantiser.shapes[n] for n in (quantiser.inputs[0], quantiser.outputs[0])},
            )  # fmt: skip
            new |= found
    changed = (new.get(n.outputs[0], n) if n.outputs else n for n in nodes)
    return tuple(n for n in changed if n is not None)


def _layers(quantiser: Node, readers: Mapping[str, list[Node]]) -> dict[str, Node | None] | None:
    """By the first output of old nodes, what takes their place (None: nothing); None where one is something else."""
    stored, scale, zero = quantiser.outputs
    layers = readers.get(stored, [])
    scaled = _scaled(scale, readers)
    if not layers or scaled is None or any(r not in layers for r in readers.get(zero, [])):
        return None
    new: dict[str, Node | None] = dict.fromkeys(scaled)
    for layer in layers:
        if layer.op_type not in _KINDS or layer.inputs[0] != stored or not layer.has(2) or layer.inputs[2] != zero:
            return None
        (cast, *more) = readers.get(layer.outputs[0], []) or [layer]
        if more or cast.op_type != "Cast" or int(cast.attributes.get("to", 0)) != _FLOAT:
            return None
        (last, *more) = readers.get(cast.outputs[0], []) or [layer]
        other = [n for n in last.inputs if n != cast.outputs[0]]
        if more or last.op_type != "Mul" or len(other) != 1 or other[0] not in scaled:
            return None
        made = _real(layer, last, scaled[other[0]])
        if made is None:
            return None
        new |= {layer.outputs[0]: None, cast.outputs[0]: None, last.outputs[0]: made}
    ends = {n.outputs[0] for n in new.values() if n is not None}
    if any(r.outputs[0] not in ends for name in scaled for r in readers.get(name, []) if name != scale):
        return None
    return new if all(n.outputs[0] in (*scaled, *ends) for n in readers.get(scale, [])) else None


def _scaled(scale: str, readers: Mapping[str, list[Node]]) -> dict[str, Array] | None:
    """Tensors that are the scale times a constant, and that constant."""
    found: dict[str, Array] = {}
    for node in readers.get(scale, []):
        if node.op_type != "Mul" or node.variables != (scale,) or len(node.constants) != 1:
            return None
        found[node.outputs[0]] = next(iter(node.constants.values()))
    return found


def _real(layer: Node, last: Node, factor: Array) -> Node | None:
    """The layer on real numbers, which writes what its last multiplication writes."""
    weight = layer.constant(1)
    if weight is None or not np.issubdtype(weight.dtype, np.integer) or (layer.has(3) and layer.constant(3) is None):
        return None
    offset = layer.constant(3)
    columns = layer.op_type == "MatMulInteger"
    parts = [_along(v, weight.ndim, columns=columns) for v in (np.zeros(()) if offset is None else offset, factor)]
    if any(p is None for p in parts):
        return None
    zero, scale = (np.asarray(p, dtype=np.float64) for p in parts)
    name = f"{last.outputs[0]}:weight"
    shapes: dict[str, Shape] = {n: layer.shapes[n] for n in (layer.inputs[0],) if n in layer.shapes}
    shapes |= {last.outputs[0]: last.shapes[last.outputs[0]], name: weight.shape}
    return replace(
        layer, op_type=_KINDS[layer.op_type], inputs=(layer.inputs[0], name), outputs=last.outputs[:1],
        constants={name: (weight.astype(np.float64) - zero) * scale}, shapes=shapes,
    )  # fmt: skip


def _along(value: Array, rank: int, *, columns: bool) -> Array | None:
    """One number, or one per column of a matrix; None for another shape."""
    if value.size == 1:
        return value.reshape(())
    return value if columns and value.ndim == 1 and rank == 2 else None

