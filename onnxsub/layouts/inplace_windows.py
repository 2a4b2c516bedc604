"""Layout `inplace` for windows: the node that is there gets the substitute's lines beside its kept windows, written as plain nodes.

An operator that the network reads as several (a maximum of tensors, a minimum) is written anew between the file's own tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.broadcast import leading
from onnxsub.ops.substituted_max import SubstitutedMax

__all__ = ["replace_windows"]


def replace_windows(graph: gs.Graph, network: Network, op: SubstitutedMax, dtype: np.dtype[Any]) -> None:
    """Puts the lines of one operator's windows in.

    Raises:
        UnsupportedOperatorError: none of the file's tensors lies behind it.
    """
    writer = _GraphWriter(graph, f"{op.output}/onnxsub", dtype)
    tensors = writer.tensors
    last = _written_by_file(network, op, tensors)
    (node,) = tensors[last.output].inputs
    node.outputs.clear()
    if last is op and op.inputs[0] in tensors and op.kept.any():
        # the node itself serves the kept windows
        plain = writer.fresh("function")
        node.outputs.append(writer.tensor(plain))
        mask = writer.weight("", "mask", leading(op.kept.astype(np.float64), len(op.out_shape)))
        masked = writer.step("Mul", (plain, mask), "", "masked")
        line = writer.fresh("line")
        op.picked.to_onnx(writer, op.inputs, line)
        writer.node("Add", (masked, line), last.output)
        return
    for part in _between(network, op, last, set(tensors) - {last.output}):
        part.to_onnx(writer, part.inputs, part.output)


def _written_by_file(network: Network, op: SubstitutedMax, tensors: dict[str, gs.Tensor]) -> Operator:
    """The operator itself or the one behind it (the sign of a minimum) that writes a tensor of the file."""
    found: Operator = op
    while found.output not in tensors:
        behind = [o for o in network.ops if found.output in o.inputs]
        if len(behind) != 1:
            raise UnsupportedOperatorError(
                f"{op.op_type} (node {op.node!r}) writes a value that is no tensor of the file; use --layout compact"
            )
        (found,) = behind
    return found


def _between(network: Network, op: SubstitutedMax, last: Operator, tensors: set[str]) -> list[Operator]:
    """The operators that lead from tensors of the file to what `last` writes, in order."""
    needed = {last.output}
    found = []
    for part in reversed(network.ops):
        if part.output in needed and part.output not in tensors:
            needed.update(part.inputs)
            found.append(part)
    assert op in found  # `last` is behind it
    return found[::-1]


class _GraphWriter:
    """`OnnxWriter` into a graph of graphsurgeon. Tensors that are new are called after `stem`."""

    def __init__(self, graph: gs.Graph, stem: str, dtype: np.dtype[Any]) -> None:
        self.graph = graph
        self.dtype = dtype
        self.tensors: dict[str, gs.Tensor] = dict(graph.tensors())
        while any(name.startswith(stem) for name in self.tensors):
            stem += "_"
        self._stem = stem

    def tensor(self, name: str) -> gs.Tensor:
        if name not in self.tensors:
            self.tensors[name] = gs.Variable(name, dtype=self.dtype)
        return self.tensors[name]

    def fresh(self, name: str) -> str:
        # what operators ask for is called after tensors of the file; here all of it is this one's
        full = f"{self._stem}/{name.rsplit('/', 1)[-1]}"
        while full in self.tensors:
            full += "_"
        self.tensor(full)
        return full

    def node(self, kind: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> None:
        given = {k: v for k, v in attributes.items() if v is not None}
        read = [self.tensor(n) if n else gs.Variable.empty() for n in inputs]
        self.graph.nodes.append(gs.Node(kind, name=f"{output}/node", attrs=given, inputs=read, outputs=[self.tensor(output)]))

    def step(self, kind: str, inputs: tuple[str, ...], output: str, name: str, **attributes: Any) -> str:
        target = self.fresh(name)
        self.node(kind, inputs, target, **attributes)
        return target

    def weight(self, output: str, name: str, values: Array) -> str:
        return self._constant(name, np.asarray(values, dtype=self.dtype, order="C"))

    def integers(self, output: str, name: str, values: Array, kind: type[np.integer[Any]] = np.int64) -> str:
        return self._constant(name, np.asarray(values, dtype=kind, order="C"))

    def _constant(self, name: str, values: Array) -> str:
        full = f"{self._stem}/{name}"
        while full in self.tensors:
            full += "_"
        self.tensors[full] = gs.Constant(full, values)
        return full

    def reshape(self, source: str, output: str, shape: Shape) -> None:
        if len(shape) == 1:
            self.node("Flatten", (source,), output, axis=1)
            return
        self.node("Reshape", (source, self.integers(output, "shape", np.array([0, *shape]))), output)
