"""Which output of a file is meant, and which tensor holds the scores behind which a class or a map is made of them.

| output | what is read |
|---|---|
| a float tensor | its values |
| a list of maps (`ZipMap` of scores) | the scores |
| a class: ArgMax of scores, a label looked up by it, the label of a linear classifier | the scores; the file's word is the class |
| whether one score is above its boundary: `p > 0.5`, Round of a Sigmoid, `z > 0`, also as a float | that score; likewise |
| the largest score, beside the class that it is of | the scores that the class is chosen from |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

from onnxsub.errors import ModelError
from onnxsub.reading.graphs import attribute, constant_value, name_of, producers

__all__ = ["Choice", "Own", "choose"]

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_VIEWS = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
_HEADS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "Dropout"})
_ML = "ai.onnx.ml"
_NONE: tuple[str | int, ...] = ()


@dataclass(frozen=True)
class Own:
    """The tensor of a file that has the last word on a class.

    Attributes:
        tensor: its name.
        is_class: it holds a class and no scores.
        labels: the word or number that stands for each class; empty: the class's own number, counted from 0.
        axis: of the classes in the tensor that a class is chosen from; None where that cannot be another one.
    """

    tensor: str
    is_class: bool = False
    labels: tuple[str | int, ...] = ()
    axis: int | None = None


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        output: name of the file's output.
        scores: the tensor that the form to be analysed ends in.
        own: the file's own word.
        notes: one sentence each.
    """

    output: str
    scores: str
    own: Own
    notes: tuple[str, ...] = ()


def choose(graph: GraphProto, wanted: str | None, where: str) -> Choice:
    """The output that is meant.

    Args:
        wanted: name of an output; None: the only one, or the only one that can be meant.

    Raises:
        ModelError: there is no such output, there are several that can be meant, or none gives scores.
    """
    outputs = {v.name: v for v in graph.output}
    names = ", ".join(repr(n) for n in outputs) or "none"
    if wanted is not None:
        if wanted not in outputs:
            raise ModelError(f"{where} has no output {wanted!r}; choose one of {names} with --output (files are written with -o)")
        return _read(graph, outputs[wanted], where)
    if len(outputs) == 1:
        return _read(graph, next(iter(outputs.values())), where)
    if not outputs:
        raise ModelError(f"{where} has no output; export the model again")
    scores = [v for v in outputs.values() if _gives_scores(graph, v)]
    rest = [v for v in outputs.values() if v not in scores]
    scores = [v for v in scores if not _largest(graph, v.name, rest)]
    if not scores:
        scores, rest = [v for v in rest if _label_tail(graph, v.name) is not None], []
    roots = {_root(graph, v.name) for v in scores}
    if len(roots) != 1 or any(not _is_class(v) for v in rest):
        raise ModelError(
            f"{where} has {len(outputs)} outputs ({names}), of which more than one can be meant; choose one with --output NAME, "
            "or write that part with onnxsub info MODEL --output NAME -o FILE.onnx"
        )
    (root,) = roots
    value = next((v for v in scores if v.name == root), scores[0])
    found = _read(graph, value, where)
    others = ", ".join(repr(n) for n in outputs if n != value.name)
    note = f"output {value.name!r} is read (the scores of the classes); {others} left out"
    return Choice(found.output, found.scores, found.own, (note, *found.notes))


def _largest(graph: GraphProto, name: str, classes: list[ValueInfoProto]) -> bool:
    """Whether an output is the largest of the scores that another one chooses a class from: no scores of classes."""
    node = _written(graph, name)
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type != "ReduceMax":
        return False
    tails = (_label_tail(graph, v.name) for v in classes)
    return any(tail is not None and _root(graph, tail[0]) == _root(graph, node.input[0]) for tail in tails)


def _written(graph: GraphProto, name: str) -> NodeProto | None:
    """The node that writes a tensor, through views and casts."""
    writers = producers(graph)
    while (node := writers.get(name)) is not None and node.domain in ("", "ai.onnx") and node.op_type in _VIEWS:
        name = node.input[0]
    return node


def _gives_scores(graph: GraphProto, value: ValueInfoProto) -> bool:
    return _is_float(value) or _zipped(graph, value.name) is not None


def _is_float(value: ValueInfoProto) -> bool:
    return value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in _FLOATS


def _is_class(value: ValueInfoProto) -> bool:
    """Whether a value is of whole numbers or words, as a label is."""
    return value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in (
        TensorProto.INT64, TensorProto.INT32, TensorProto.STRING, TensorProto.BOOL,
    )  # fmt: skip


def _zipped(graph: GraphProto, name: str) -> NodeProto | None:
    """The ZipMap that writes an output, through an Identity at most."""
    writers = producers(graph)
    node = writers.get(name)
    while node is not None and node.op_type == "Identity":
        node = writers.get(node.input[0])
    return node if node is not None and node.domain == _ML and node.op_type == "ZipMap" else None


def _root(graph: GraphProto, name: str) -> str:
    """The tensor behind which only heads stand: outputs with one root decide alike."""
    writers = producers(graph)
    zipped = _zipped(graph, name)
    name = name if zipped is None else zipped.input[0]
    while (node := writers.get(name)) is not None:
        normalised = node.domain == _ML and node.op_type == "Normalizer"
        if node.domain == _ML and node.op_type == "LinearClassifier":
            return str(node.output[1])
        if not normalised and (node.domain not in ("", "ai.onnx") or node.op_type not in _VIEWS | _HEADS):
            break
        name = node.input[0]
    return str(name)


def _read(graph: GraphProto, value: ValueInfoProto, where: str) -> Choice:
    """What one output is read as."""
    name = value.name
    zipped = _zipped(graph, name)
    notes: tuple[str, ...] = ()
    if zipped is not None:
        scores, notes = zipped.input[0], (f"ZipMap (node {name_of(zipped)!r}) at the end left out: it puts names to the scores",)
    elif value.type.HasField("tensor_type") and not _is_float(value) and value.type.tensor_type.elem_type:
        tail = _label_tail(graph, name) or _decided(graph, name, where)
        if tail is None:
            return Choice(name, name, Own(name))  # refused by its type
        scores, own, node = tail
        inner, notes = _normalised(graph, scores)
        return Choice(name, inner, own, (_left_out(node), *notes))
    elif (tail := _decided(graph, name, where)) is not None:
        scores, own, node = tail
        return Choice(name, scores, own, (_left_out(node),))
    else:
        scores = name
    inner, more = _normalised(graph, scores)
    return Choice(name, inner, Own(scores), (*notes, *more))


def _left_out(node: NodeProto) -> str:
    return f"{node.op_type} (node {name_of(node)!r}) at the end left out: it makes a class of the scores, which are read"


def _decided(graph: GraphProto, name: str, where: str) -> tuple[str, Own, NodeProto] | None:
    """The one score whose side of the boundary an output is: class 1 above it. None where the output is made otherwise.

    Raises:
        ModelError: the score is compared with another number.
    """
    node = _written(graph, name)
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in ("Greater", "GreaterOrEqual", "Round"):
        return None
    score = str(node.input[0])
    writer = _written(graph, score)
    sigmoid = writer is not None and writer.op_type == "Sigmoid" and not writer.domain
    if node.op_type == "Round":
        return (score, Own(name, is_class=True), node) if sigmoid else None
    limit = constant_value(graph, node.input[1])
    if limit is None or limit.size != 1:
        return None
    number = float(np.asarray(limit).reshape(-1)[0])
    if number != (0.5 if sigmoid else 0.0):
        raise ModelError(
            f"{where}: output {name!r} says whether a score is above {number:g} ({node.op_type}, node {name_of(node)!r}), "
            "which is no boundary that is read (0.5 of a Sigmoid, 0 of others); export the score, less that number"
        )
    return score, Own(name, is_class=True), node


def _normalised(graph: GraphProto, scores: str) -> tuple[str, tuple[str, ...]]:
    """The scores before a trailing Normalizer: it divides all scores of a sample by one positive number."""
    node = producers(graph).get(scores)
    if node is None or node.domain != _ML or node.op_type != "Normalizer" or attribute(node, "norm", "MAX") not in ("L1", "L2"):
        return scores, ()
    note = f"Normalizer (node {name_of(node)!r}) at the end left out: it does not change the order of the classes"
    return str(node.input[0]), (note,)


def _label_tail(graph: GraphProto, name: str) -> tuple[str, Own, NodeProto] | None:
    """The scores that a label is made of, the labels, and the node that decides; None where it is made otherwise."""
    writers = producers(graph)
    tensor, labels = name, _NONE
    while (node := writers.get(tensor)) is not None:
        if (node.domain == _ML and node.op_type == "ArrayFeatureExtractor") or (node.op_type == "Gather" and node.domain != _ML):
            words = constant_value(graph, node.input[0])
            if words is None or labels or words.size != max(words.shape, default=0):
                return None
            labels = tuple(_plain(w) for w in words.reshape(-1))
            tensor = node.input[1]
        elif node.domain == _ML and node.op_type == "LinearClassifier":
            known = attribute(node, "classlabels_ints") or attribute(node, "classlabels_strings")
            if tensor != node.output[0] or not known or labels or len(node.output) < 2:
                return None
            return str(node.output[1]), Own(name, True, tuple(known)), node
        elif node.domain in ("", "ai.onnx") and node.op_type in _VIEWS:
            tensor = node.input[0]
        elif node.domain in ("", "ai.onnx") and node.op_type == "ArgMax":
            return str(node.input[0]), Own(name, True, labels, int(attribute(node, "axis", 0))), node
        else:
            return None
    return None


def _plain(word: object) -> str | int:
    if isinstance(word, bytes):
        return word.decode("utf-8", errors="replace")
    return word if isinstance(word, str) else int(np.asarray(word))
