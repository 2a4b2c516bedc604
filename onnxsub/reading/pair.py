"""Two scores made of one: `(1 - p, p)` with `p = sigmoid(z)`, as exporters of binary classifiers write them, are read as `(0, z)`.

Their Softmax are the two scores: the order is the same, what is said of scores is said of these, and nothing that is not affine
is left behind `z`.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, ValueInfoProto, helper, numpy_helper

from onnxsub.reading.graphs import Names, attribute, constant_value, keep_only, name_of, producers

__all__ = ["is_pair", "unpaired"]


def is_pair(graph: GraphProto, scores: str) -> bool:
    """Whether a tensor is `(1 - sigmoid(z), sigmoid(z))`."""
    return _sigmoid(graph, scores) is not None


def unpaired(graph: GraphProto) -> str | None:
    """Makes a graph whose output is such a pair end in `(0, z)`, in place. Returns a note where it did."""
    (output,) = graph.output
    node = _sigmoid(graph, output.name)
    if node is None:
        return None
    names = Names(graph)
    zero, none, pair = (names.fresh(f"{output.name}/{part}") for part in ("zero", "none", "pair"))
    (concat,) = (n for n in graph.node if output.name in n.output)
    axis = int(attribute(concat, "axis", 1))
    (rest,) = (n for n in graph.node if concat.input[0] in n.output)
    one = np.asarray(constant_value(graph, rest.input[0]))
    graph.initializer.append(numpy_helper.from_array(np.zeros_like(one), zero))
    graph.node.append(helper.make_node("Mul", [node.input[0], zero], [none], name=none))
    graph.node.append(helper.make_node("Concat", [none, node.input[0]], [pair], name=pair, axis=axis))
    del graph.output[:]
    graph.output.append(ValueInfoProto(name=pair))
    keep_only(graph, pair)
    return f"Sigmoid (node {name_of(node)!r}) and the pair (1 - p, p) at the end left out: the order of the classes is the same"


def _sigmoid(graph: GraphProto, scores: str) -> NodeProto | None:
    writers = producers(graph)
    node = writers.get(scores)
    if node is None or node.domain or node.op_type != "Concat" or len(node.input) != 2:
        return None
    rest, p = (writers.get(name) for name in node.input)
    if rest is None or p is None or rest.op_type != "Sub" or p.op_type != "Sigmoid" or rest.input[1] != node.input[1]:
        return None
    one = constant_value(graph, rest.input[0])
    return p if one is not None and one.size == 1 and bool((np.asarray(one) == 1).all()) else None
