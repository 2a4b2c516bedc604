r"""Attention masks: minus infinity in front of a Softmax, whose weight there is exactly 0.

    Softmax(z + c),  c constant, -inf where masked   becomes   Softmax(Where(c > -inf, z + c', -K)),  c' = c, 0 where masked

and `Where(constant, z, -inf)` likewise. With K = 1e30, `exp(-K - LSE)` is 0 in float64 for every LSE that is no number of 30
digits, as minus infinity gives it; no sum of the bounds meets an infinity. A row that is masked throughout has no Softmax (NaN): it
stays, and is refused with all other infinities.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxsub.ops.base import Array, Shape
from onnxsub.ops.node import Node

__all__ = ["without_infinite_masks"]

_FAR = -1e30


def without_infinite_masks(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes, masks of minus infinity before a Softmax as selections of a finite number."""
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    found: list[Node] = []
    for node in nodes:
        after = readers.get(node.outputs[0], []) if node.outputs else []
        if node.op_type in ("Add", "Where") and after and all(r.op_type == "Softmax" for r in after):
            found += _masked(node, after)
        else:
            found.append(node)
    return tuple(found)


def _masked(node: Node, after: list[Node]) -> list[Node]:
    """The nodes that take the place of one."""
    masks = {n: v for n, v in node.constants.items() if v.dtype.kind == "f" and bool((v == -np.inf).any())}
    shape = node.shapes.get(node.outputs[0])
    if len(masks) != 1 or shape is None or len(node.variables) != 1:
        return [node]
    ((name, mask),) = masks.items()
    open_ = _open(node, name, mask, shape)
    axes = [_axis(r, len(shape)) for r in after]
    if open_ is None or any(a is None or not bool(open_.any(axis=a).all()) for a in axes):
        return [node]
    far = f"{node.outputs[0]}:masked"
    kind = mask.dtype
    if node.op_type == "Where":
        finite = np.where(mask == -np.inf, np.asarray(_FAR, dtype=kind), mask)
        return [replace(node, constants={**node.constants, name: finite})]
    (source,) = node.variables
    steps: list[Node] = []
    rest = np.where(mask == -np.inf, np.asarray(0, dtype=kind), mask)
    if rest.any() or node.shapes.get(source) != shape:
        sum_ = f"{node.outputs[0]}:open"
        steps.append(
            replace(node, outputs=(sum_,), constants={name: rest}, shapes={**node.shapes, sum_: shape})
        )
        source = sum_
    where = f"{node.outputs[0]}:where"
    steps.append(
        replace(
            node, op_type="Where", inputs=(where, source, far), attributes={},
            constants={where: mask != -np.inf, far: np.asarray(_FAR, dtype=kind)},
            shapes={where: mask.shape, source: shape, far: (), node.outputs[0]: shape},
        )
    )  # fmt: skip
    return steps


def _open(node: Node, name: str, mask: Array, shape: Shape) -> Array | None:
    """Where the output is not masked, of its shape; None where a constant does not fit it, or an infinity is another one."""
    if np.isnan(mask).any() or bool((mask == np.inf).any()) or mask.dtype == np.float16:
        return None
    try:
        if node.op_type == "Add":
            return np.broadcast_to(mask != -np.inf, shape)
        condition = node.constant(0)
        if condition is None or name not in node.inputs[1:]:
            return None
        chosen = condition.astype(bool) if node.inputs[1] == name else ~condition.astype(bool)
        return ~np.broadcast_to(np.logical_and(chosen, mask == -np.inf), shape)
    except ValueError:
        return None


def _axis(softmax: Node, rank: int) -> int | None:
    """The axis whose rows a Softmax sums to 1; None before opset 13, where it may be several."""
    if softmax.opset < 13:
        axis = int(softmax.attributes.get("axis", 1)) % max(rank, 1)
        return axis if axis == rank - 1 else None
    return int(softmax.attributes.get("axis", -1)) % max(rank, 1)
