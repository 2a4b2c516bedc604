"""Take the trailing Softmax, LogSoftmax or Sigmoid off: they keep the order of the classes, and hence the decision.

softmax(z)_t >= softmax(z)_y  <=>  z_t >= z_y; of several scores sigmoid(z_t) >= sigmoid(z_y)  <=>  z_t >= z_y; of one score
sigmoid(z) >= 1/2  <=>  z >= 0: the boundary is that of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from onnxsub.errors import ModelError
from onnxsub.ops.base import Shape
from onnxsub.ops.node import Node

__all__ = ["strip_head"]

_SAME_VALUES = frozenset({"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that keep the values in their order (a Cast: up to rounding), and so may stand behind the head."""
_FLOATS = frozenset({1, 10, 11, 16})


def strip_head(
    nodes: tuple[Node, ...], output: str, shapes: Mapping[str, Shape], where: str, *, sigmoids: bool = False
) -> tuple[str, tuple[str, ...]]:
    """The name of the logits, and one note for each node taken off; `sigmoids`: those over several scores stay."""
    producers = {name: node for node in nodes for name in node.outputs if name}
    notes: list[str] = []
    while True:
        name, behind = output, []
        while (node := producers.get(name)) is not None and _keeps_values(node, name):
            behind.append(node.op_type)
            name = node.inputs[0]
        node = producers.get(name)
        kept = sigmoids and node is not None and node.op_type == "Sigmoid" and math.prod(shapes.get(node.inputs[0], (1,))) != 1
        if node is None or kept or not _is_head(node, shapes, where):
            return output, tuple(notes)
        also = f" and the {', '.join(reversed(behind))} behind it" if behind else ""
        output = node.inputs[0]
        single = math.prod(shapes[output]) == 1
        why = "the boundary 0.5 becomes logit 0" if single else "it does not change the order of the classes"
        if node.op_type == "Sigmoid" and not single:
            why = "each output is read as the score of a class, and the largest one is the class"
        notes.append(f"{node.op_type} (node {node.name!r}) at the end{also} left out: {why}")
        if single:
            return output, tuple(notes)  # what stands before it has its boundary at 0, not at 1/2


def _keeps_values(node: Node, name: str) -> bool:
    if node.op_type not in _SAME_VALUES or name != node.outputs[0] or node.variables != (node.inputs[0],):
        return False
    if node.op_type == "Cast":
        return node.attributes.get("to") in _FLOATS
    training = node.constant(2) if node.op_type == "Dropout" else None
    return training is None or not training.any()


def _is_head(node: Node, shapes: Mapping[str, Shape], where: str) -> bool:
    shape = shapes.get(node.inputs[0]) if node.inputs else None
    if shape is None:
        return False
    classes = math.prod(shape)
    if node.op_type == "Sigmoid":
        return True
    if node.op_type not in ("Softmax", "LogSoftmax"):
        return False
    if classes == 1:
        raise ModelError(f"{where}: {node.op_type} (node {node.name!r}) over one class is constant; export the logit before it")
    axis = int(node.attributes.get("axis", 1 if node.opset < 13 else -1))
    axis += len(shape) if axis < 0 else 0
    # up to opset 12 the axes from `axis` on are one, later `axis` is the only one
    over = math.prod(shape[axis:]) if node.opset < 13 else shape[axis]
    return over == classes
