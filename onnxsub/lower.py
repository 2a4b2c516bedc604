"""From the nodes of a prepared file to the `Network` that everything else works on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxsub.errors import OnnxsubError, UnsupportedOperatorError
from onnxsub.files import one_line
from onnxsub.network import Network
from onnxsub.ops import READERS
from onnxsub.ops.base import Operator, Shape
from onnxsub.ops.moved_batch import moved, read_moved
from onnxsub.ops.node import Node
from onnxsub.ops.spelled import recognised
from onnxsub.quantised import joined
from onnxsub.reading.fused import OF_ONE_PROCESSOR
from onnxsub.reading.ml import WHY

if TYPE_CHECKING:
    from onnxsub.model import Model

__all__ = ["lower", "lower_nodes", "unsupported"]

_BY_OUTPUTS = ("BatchNormalization",)
"""Operators whose meaning is another one with further outputs, whether anybody reads them or not."""
_MISFITS = (ValueError, IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError)


def lower(model: Model) -> Network:
    """The network of a model, from its (possibly normalised) input to its logits.

    Raises:
        UnsupportedOperatorError: names the operator, its node and opset, and what of it is not supported.
    """
    return lower_nodes(model.nodes, model.input, model.input_shape, model.output)


def lower_nodes(nodes: tuple[Node, ...], source: str, shape: Shape, output: str) -> Network:
    """The network that reads tensor `source` of per-sample shape `shape` and writes `output`."""
    ops: list[Operator] = []
    for node in _alive(recognised(nodes), output):
        ops.extend(_read(node))
    return Network(source, shape, output, joined(tuple(ops), output))


def unsupported(nodes: tuple[Node, ...], output: str) -> tuple[str, ...]:
    """What of these nodes the operator table lacks, one line per node; empty for a network that can be lowered."""
    reasons = []
    for node in _alive(recognised(nodes), output):
        try:
            _read(node)
        except UnsupportedOperatorError as error:
            reasons.append(str(error))
    return tuple(reasons)


def _alive(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """The nodes that `output` depends on; their outputs that nobody reads (masks, indices) are left out.

    Those of a BatchNormalization are kept: up to opset 13 it normalises with the batch's own statistics where it has more than one.
    """
    used = {output}
    found = []
    for node in reversed(nodes):
        read = tuple(n if n in used else "" for n in node.outputs)
        outputs = node.outputs if any(read) and node.op_type in _BY_OUTPUTS else read
        if any(outputs):
            used.update(node.inputs)
            found.append(node if outputs == node.outputs else replace(node, outputs=outputs))
    return tuple(reversed(found))


def _read(node: Node) -> tuple[Operator, ...]:
    reader = READERS.get(node.op_type)
    if reader is None:
        why = WHY.get(node.op_type, "it is not in the operator table (docs/adding_an_op.md says how to add it)")
        if node.op_type.startswith(OF_ONE_PROCESSOR):
            why = "its layout is of the machine that saved the file; save it with ORT_ENABLE_EXTENDED at the most"
        raise node.refuse(why)
    if not node.variables:
        raise node.refuse("it does not depend on the network's input; fold its value into a constant")
    try:
        return read_moved(node, READERS) if moved(node) else reader(node)
    except OnnxsubError:
        raise
    except KeyError as error:
        unknown = [n for n in (*node.inputs, *node.outputs) if n and n not in node.shapes]
        if error.args[0] in unknown:
            raise node.refuse(f"the shape of {error} is not known; export the model again with a higher opset") from error
        raise node.refuse(f"its inputs or attributes do not fit each other ({one_line(error, 120)})") from error
    except _MISFITS as error:  # what the checker of onnx lets pass: a slope of two numbers for three channels, a bound of none
        raise node.refuse(f"its inputs or attributes do not fit each other ({one_line(error, 120)})") from error
