"""An If on a condition that is known when the file is read: the branch that is taken, in its place.

PyTorch's exporter writes one for every Squeeze of an axis whose length it does not know ("if that is 1, squeeze, else leave it").
The condition is a constant once shapes are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, NodeProto, helper

from onnxsub.ops.base import Array

__all__ = ["Branches"]

_DEFAULT = ("", "ai.onnx")


class Branches:
    """The nodes of a graph in order, with those of branches that are taken.

    Args:
        constants: what is known, by tensor; looked at node by node, so that it may grow in between.

    Attributes:
        taken: whether there were any.
        nodes: what was gone through so far.
    """

    def __init__(self, graph: GraphProto, constants: Mapping[str, Array]) -> None:
        self.taken, self.nodes = False, list[NodeProto]()
        self._graph, self._constants = graph, constants
        self._names = {v.name for v in (*graph.input, *graph.output, *graph.initializer)}
        self._names |= {name for node in graph.node for name in (*node.input, *node.output)}

    def __iter__(self) -> Iterator[NodeProto]:
        left = list(reversed(self._graph.node))
        while left:
            node = left.pop()
            condition = self._constants.get(node.input[0]) if node.op_type == "If" and node.domain in _DEFAULT else None
            if condition is not None and condition.size == 1:
                self.taken = True
                left += reversed(self._inside(node, bool(condition.reshape(-1)[0])))
                continue
            self.nodes.append(node)
            yield node

    def _inside(self, node: NodeProto, condition: bool) -> list[NodeProto]:
        """The nodes of a branch, under names that nothing else has, and views that write the outputs of the If."""
        branch = next(a.g for a in node.attribute if a.name == ("then_branch" if condition else "else_branch"))
        made = [helper.make_node("Constant", [], [t.name], value=t) for t in branch.initializer]
        for inner in branch.node:
            copy = NodeProto()
            copy.CopyFrom(inner)
            made.append(copy)
        new = {name: self._fresh(name) for n in made for name in n.output if name}
        for inner in made:
            _rename(inner, new)
            inner.output[:] = [new.get(name, name) for name in inner.output]
        for value, name in zip(branch.output, node.output, strict=False):
            if name:
                source = new.get(value.name, value.name)
                made.append(helper.make_node("Identity", [source], [name], name=f"{node.name or name}/{value.name}"))
        return made

    def _fresh(self, name: str) -> str:
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def _rename(node: NodeProto, new: Mapping[str, str]) -> None:
    """Gives what a node reads other names, in its own branches too; a name that is written there is another tensor."""
    node.input[:] = [new.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {name for inner in graph.node for name in inner.output} | {t.name for t in graph.initializer}
            seen = {k: v for k, v in new.items() if k not in own}
            for inner in graph.node:
                _rename(inner, seen)
            for value in graph.output:
                value.name = seen.get(value.name, value.name)
