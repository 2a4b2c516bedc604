r"""Layer normalisation that files spell out in several nodes, as PyTorch writes it before opset 17.

    d = x - mean(x),   y = d / sqrt(mean(d^2) + eps)

over the last axes, where `d^2` is `Pow(d, 2)` or `Mul(d, d)` and the two differences may be two nodes. The quotient becomes one
LayerNormalization with a scale of 1, so that it has the limit of one (`normalised.py`); scale and bias stay nodes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnxsub.ops.base import Shape
from onnxsub.ops.node import Node

__all__ = ["layer_normalised"]

_OPSET = 17  # the first that has the node


def layer_normalised(node: Node, by_output: Mapping[str, Node], shapes: Mapping[str, Shape]) -> Node | None:
    """The node as a LayerNormalization; None where it is no quotient of this kind."""
    if node.op_type != "Div" or len(node.variables) != 2:
        return None
    above, root = node.inputs
    deviation, power = _made(above, "Sub", by_output), by_output.get(root)
    if deviation is None or power is None or not _is_root(power):
        return None
    sum_ = _made(power.inputs[0], "Add", by_output)
    if sum_ is None or len(sum_.variables) != 1:
        return None
    (variance,) = sum_.variables
    epsilon = _number(sum_, next(n for n in sum_.inputs if n != variance))
    spread = _made(variance, "ReduceMean", by_output)
    if epsilon is None or not 0 < epsilon < np.inf or spread is None:
        return None
    squared = by_output.get(spread.inputs[0])
    source = deviation.inputs[0]
    mean = _made(deviation.inputs[1], "ReduceMean", by_output)
    if squared is None or mean is None or mean.inputs[0] != source or source not in shapes:
        return None
    if shapes.get(node.outputs[0]) != shapes[source]:  # an epsilon with more axes gives the quotient more
        return None
    axes = _tail(mean, shapes[source])
    if axes is None or axes != _tail(spread, shapes[source]) or not _is_square(squared, deviation, mean, by_output):
        return None
    size = tuple(shapes[source][axes:])
    scale = f"{node.outputs[0]}:one"
    own = {t: shapes[t] for t in (source, node.outputs[0]) if t in shapes} | {scale: size}
    return replace(
        node, op_type="LayerNormalization", attributes={"axis": axes, "epsilon": epsilon}, inputs=(source, scale),
        constants={scale: np.ones(size)}, shapes=own, opset=max(node.opset, _OPSET),
    )  # fmt: skip


def _made(tensor: str, kind: str, by_output: Mapping[str, Node]) -> Node | None:
    """The node of a kind that writes a tensor."""
    node = by_output.get(tensor)
    return node if node is not None and node.op_type == kind else None


def _number(node: Node, name: str) -> float | None:
    value = node.constants.get(name)
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _is_root(node: Node) -> bool:
    return node.op_type == "Sqrt" or (node.op_type == "Pow" and _number(node, node.inputs[1]) == 0.5)


def _is_square(node: Node, deviation: Node, mean: Node, by_output: Mapping[str, Node]) -> bool:
    """Whether a node writes the square of the deviation, or of the same difference by another node."""
    twice = node.op_type == "Mul" and node.inputs[0] == node.inputs[1]
    if not twice and not (node.op_type == "Pow" and _number(node, node.inputs[1]) == 2.0):
        return False
    if node.inputs[0] == deviation.outputs[0]:
        return True
    other = _made(node.inputs[0], "Sub", by_output)
    if other is None or other.inputs[0] != deviation.inputs[0]:
        return False
    again = _made(other.inputs[1], "ReduceMean", by_output)
    return again is not None and again.inputs == mean.inputs and again.attributes == mean.attributes


def _tail(node: Node, shape: Shape) -> int | None:
    """The first of the axes of a mean that keeps them, where they are all from there on; never the batch axis."""
    given = node.attributes.get("axes")
    if given is None and node.has(1):
        given = node.constant(1)
    if given is None or not int(node.attributes.get("keepdims", 1)):
        return None
    rank = len(shape)
    axes = sorted({int(a) % rank for a in np.asarray(given).reshape(-1)})
    return axes[0] if axes and axes[0] > 0 and axes == list(range(axes[0], rank)) else None
