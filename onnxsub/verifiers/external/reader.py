"""What other verifiers read, from their source: checked before one is run, with the repair named.

Being on the list is not enough: Marabou's reader takes some nodes and gets them wrong without a word. Those are refused as well.

- Conv and MaxPool: `dilations` and `auto_pad` are not looked at, for MaxPool `pads` and `ceil_mode` neither.
- Sub of a constant is read as Add of it.
- Add of a constant is folded into the equation that makes its other input: whatever else reads that tensor is changed with it.

(maraboupy 2.0.0, `parsers/ONNXParser.py`.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from onnx import GraphProto, NodeProto, helper, numpy_helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.model import Model

__all__ = ["READERS", "Reader", "check_readable"]

_REPAIR = "give it a substitute of layout chain (`onnxsub prune --layout chain`, or --via METHOD:GAMMA)"
_VIEWS = frozenset({"Identity", "Dropout", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze"})
"""Operators through which Marabou hands on the same variables."""


class _Graph:
    """Who makes a tensor, how many read it, and which are constants."""

    def __init__(self, graph: GraphProto) -> None:
        self.nodes = tuple(graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.constants = {w.name for w in graph.initializer} | {
            name for node in self.nodes if node.op_type == "Constant" for name in node.output
        }
        self.sizes = {w.name: numpy_helper.to_array(w).size for w in graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.sizes[node.output[0]] = numpy_helper.to_array(node.attribute[0].t).size
        self._readers = Counter(name for node in self.nodes for name in node.input)
        self._readers.update(value.name for value in graph.output)

    def read_elsewhere(self, tensor: str) -> bool:
        """Whether the variables of a tensor that one node reads are read by another one too, views included."""
        while True:
            if self._readers[tensor] > 1:
                return True
            maker = self.maker.get(tensor)
            if maker is None or maker.op_type not in _VIEWS:
                return False
            tensor = maker.input[0]


Rule = Callable[[NodeProto, _Graph], str]
"""What is wrong with a node; empty: nothing."""


@dataclass(frozen=True)
class Reader:
    """What one tool reads.

    Attributes:
        tool: its name in messages.
        operators: of the standard domain.
        rules: per operator, what else must hold.
        whole: what must hold of the graph.
    """

    tool: str
    operators: frozenset[str]
    rules: Mapping[str, Rule]
    whole: Callable[[_Graph], str] = lambda graph: ""


def check_readable(model: Model, name: str | None) -> None:
    """Raises UnsupportedOperatorError where the tool does not read the file, or reads something else than what it says.

    Args:
        name: entry of `READERS`; None: what the tool reads is not known, and nothing is checked.
    """
    if name is None:
        return
    reader = READERS[name]
    graph = _Graph(model.form.graph)
    for node in graph.nodes:
        complaint = ""
        if node.domain not in ("", "ai.onnx") or node.op_type not in reader.operators:
            complaint = "which it does not read"
        elif node.op_type in reader.rules:
            complaint = reader.rules[node.op_type](node, graph)
        if complaint:
            what = f"{node.op_type} (node {node.name or node.output[0]!r})"
            raise UnsupportedOperatorError(f"{model.where}: {what} is not for {reader.tool}, {complaint}; {_REPAIR}")
    complaint = reader.whole(graph)
    if complaint:
        raise UnsupportedOperatorError(f"{model.where} is not for {reader.tool}, {complaint}; {_REPAIR}")


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def _window(*ignored: str) -> Rule:
    """Attributes that are not looked at must say nothing."""

    def rule(node: NodeProto, graph: _Graph) -> str:
        neutral = {
            "dilations": all(d == 1 for d in _attribute(node, "dilations", ())),
            "pads": not any(_attribute(node, "pads", ())),
            "ceil_mode": _attribute(node, "ceil_mode", 0) == 0,
            "auto_pad": _attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID"),
            "group": _attribute(node, "group", 1) == 1,
        }
        wrong = [name for name in ignored if not neutral[name]]
        return f"which ignores {' and '.join(wrong)}" if wrong else ""

    return rule


def _add(node: NodeProto, graph: _Graph) -> str:
    constant = [name in graph.constants for name in node.input]
    if any(constant) and not all(constant):
        variable = node.input[constant.index(False)]
        if graph.read_elsewhere(variable):
            return f"which would add the constant to {variable!r} for all that read it"
    return ""


def _by_constant(node: NodeProto, graph: _Graph) -> str:
    return "" if any(name in graph.constants for name in node.input) else "which reads it with a constant only"


def _by_scalar(node: NodeProto, graph: _Graph) -> str:
    return "" if graph.sizes.get(node.input[1]) == 1 else "which reads it with a scalar behind only"


def _a_chain(graph: _Graph) -> str:
    """nnenum works through its nodes one after the other."""
    reads = [[name for name in node.input if name and name not in graph.constants] for node in graph.nodes]
    if any(len(inputs) > 1 for inputs in reads):
        return "which reads chains only"
    if any(count > 1 for name, count in Counter(n for inputs in reads for n in inputs).items()):
        return "which reads chains only"
    if not any(node.op_type == "Relu" for node in graph.nodes):
        return "which wants at least one Relu"
    return ""


_MARABOU = Reader(
    "Marabou",
    frozenset({
        "Constant", "Identity", "Dropout", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "BatchNormalization",
        "Concat", "MaxPool", "Conv", "Gemm", "MatMul", "Mul", "Add", "Relu", "LeakyRelu", "Sigmoid", "Tanh",
    }),
    MappingProxyType({
        "Conv": _window("dilations", "auto_pad", "group"),
        "MaxPool": _window("pads", "dilations", "ceil_mode", "auto_pad"),
        "Add": _add,
        "MatMul": _by_constant,
        "Mul": _by_scalar,
    }),
)  # fmt: skip

_NNENUM = Reader(
    "nnenum",
    frozenset({
        "Add", "AveragePool", "Constant", "Concat", "Conv", "Flatten", "Gather", "Gemm", "MatMul", "Mul", "Reshape", "Relu",
        "Shape", "Sub", "Unsqueeze", "Slice", "Dropout",
    }),
    MappingProxyType({}),
    _a_chain,
)  # fmt: skip

READERS: Mapping[str, Reader] = MappingProxyType({"marabou": _MARABOU, "nnenum": _NNENUM})
"""Tools by name."""
