"""The steps in order: the output that is meant, ai.onnx.ml, the lengths of the input, its type, the batch axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from onnxsub.errors import ModelError
from onnxsub.fold_constants import prepare
from onnxsub.ops.base import Shape
from onnxsub.reading.batch import Feed, bare_layout, one_of_many, with_batch_axis
from onnxsub.reading.choice import Choice, Own, choose
from onnxsub.reading.graphs import keep_only, only_input, replace_nodes
from onnxsub.reading.integers import INTEGERS, with_float_input
from onnxsub.reading.ml import DOMAIN, without_ml
from onnxsub.reading.pair import is_pair, unpaired

__all__ = ["Canonical", "Reading", "canonical"]

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_IR = 8


@dataclass(frozen=True)
class Reading:
    """How a file is read where it leaves a choice.

    Attributes:
        output: name of the output that holds the scores, or the class made of them; None: the only one that can be meant.
        input_shape: lengths of the input, with or without the batch axis, where the file leaves them open; None: as the file says.
        sigmoids: keep Sigmoids over several scores at the end: for properties, which may speak of their values.
    """

    output: str | None = None
    input_shape: Shape | None = None
    sigmoids: bool = False


@dataclass(frozen=True, eq=False)
class Canonical:
    """The form that is analysed.

    Attributes:
        proto: one float input, the batch axis in front, one output: the scores; `source` itself where nothing had to be changed.
        output: name of the file's own output that was chosen.
        own: which tensor of the file has the last word.
        feed: how the file is given its input.
        notes: what was changed, one sentence each.
    """

    proto: ModelProto
    output: str
    own: Own
    feed: Feed
    notes: tuple[str, ...]


def canonical(source: ModelProto, reading: Reading, opset: int, where: str) -> Canonical:
    """The form of `source` that is analysed.

    Raises:
        ModelError: no output or several can be meant, lengths that are open or do not fit, an input that is not read.
    """
    value = only_input(source.graph, where)  # before the outputs: no choice of one makes up for a second input
    choice = choose(source.graph, reading.output, where)
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"{where}: input {value.name!r} is no tensor; export a model with a float tensor there")
    dims = _lengths(value, reading.input_shape, where)
    element = value.type.tensor_type.elem_type
    batch = dims[0] if dims and isinstance(dims[0], int) else None
    odd = len(dims) == 1 or (batch is not None and (batch > 1 or _is_list(source.graph, choice.output)))
    ml = any(node.domain == DOMAIN for node in source.graph.node)
    branches = any(node.op_type == "If" for node in source.graph.node)
    feed = Feed(helper.tensor_dtype_to_np_dtype(element) if element in INTEGERS or element in _FLOATS else _no_type(value, where))
    changed = (
        choice.scores != choice.output or len(source.graph.output) > 1 or ml or element in INTEGERS
        or reading.input_shape is not None or odd or branches or is_pair(source.graph, choice.scores)
    )  # fmt: skip
    if not changed:
        return Canonical(source, choice.output, choice.own, feed, choice.notes)
    proto = ModelProto()
    proto.CopyFrom(source)
    del proto.functions[:]  # calls of them are refused; inference would go through functions of functions of functions
    graph = proto.graph
    notes = choice.notes
    _end_in(graph, choice)
    without_ml(graph, where, opset)
    _imports(proto, opset)
    value = _input(graph, value)
    if element in INTEGERS:
        kind = str(feed.dtype)
        with_float_input(graph, value, where)
        notes += (f"input {value.name!r} is {kind}: bounds are over the box, witnesses are whole numbers",)
    _set_lengths(value, dims)
    if branches:
        notes += _without_branches(proto, value, dims, opset, odd, where)
        value = _input(graph, value)
    pair = unpaired(graph)
    notes += () if pair is None else (pair,)
    if odd:
        feed, more = _one_sample(proto, value, [d for d in dims if isinstance(d, int)], opset, feed, where)
        notes += more
    elif reading.input_shape is not None:
        del graph.value_info[:]  # they were inferred for open lengths
    _type_output(proto)
    return Canonical(proto, choice.output, choice.own, feed, notes)


def _is_list(graph: GraphProto, name: str) -> bool:
    """Whether an output is stated as one axis of several numbers: scores of one sample, and an input without a batch axis."""
    kind = next(v.type for v in graph.output if v.name == name).tensor_type
    return kind.HasField("shape") and len(kind.shape.dim) == 1 and kind.shape.dim[0].dim_value > 1


def _input(graph: GraphProto, value: ValueInfoProto) -> ValueInfoProto:
    """The input of that name, which a change of the graph may have copied."""
    found: ValueInfoProto = next(v for v in graph.input if v.name == value.name)
    return found


def _no_type(value: ValueInfoProto, where: str) -> np.dtype[Any]:
    kinds = TensorProto.DataType
    element = value.type.tensor_type.elem_type
    name = kinds.Name(element).lower() if element in kinds.values() else f"number {element}"
    raise ModelError(
        f"{where}: input {value.name!r} is of type {name}, onnxsub reads floats and whole numbers; "
        "export the model with a float input"
    )


def _lengths(value: ValueInfoProto, given: Shape | None, where: str) -> list[int | str]:
    """Lengths of the input, `given` put in where the file leaves them open; text where they stay open, "" for no name."""
    kind = value.type.tensor_type
    # 0 and -1 are how older exporters leave a length open
    dims: list[int | str] = [d.dim_value if d.dim_value > 0 else d.dim_param for d in kind.shape.dim]
    if given is None:
        return dims
    shown = "x".join(str(d or "?") for d in dims)
    if not kind.HasField("shape"):
        return list(given) if given[:1] == (1,) else ["", *given]
    full: list[int | str]
    if len(given) == len(dims):
        full = [dims[0] if isinstance(dims[0], str) and given[0] == 1 and len(dims) > 1 else given[0], *given[1:]]
    elif len(given) == len(dims) - 1:
        full = [dims[0], *given]
    else:
        raise ModelError(
            f"{where}: --input-shape {_text(given)} does not fit input {value.name!r} of shape {shown}; give one length per axis"
        )
    for have, new in zip(dims, full, strict=True):
        if isinstance(have, int) and have != new:
            raise ModelError(
                f"{where}: --input-shape {_text(given)} contradicts input {value.name!r} of shape {shown}; "
                "only open lengths can be stated"
            )
    return full


def _text(shape: Shape) -> str:
    return ",".join(map(str, shape))


def _set_lengths(value: ValueInfoProto, dims: list[int | str]) -> None:
    """Writes lengths into the type of an input; the batch axis gets a name of its own where it shares one."""
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for i, d in enumerate(dims):
        if isinstance(d, int):
            shape.dim.add(dim_value=d)
        elif isinstance(d, str) and d and d not in dims[:i]:  # a name that is no text comes as bytes
            shape.dim.add(dim_param=d)
        else:
            shape.dim.add()


def _state_lengths(graph: GraphProto, shape: Shape) -> None:
    """Writes the lengths of one sample's output, where its type is known; else both are found together (`_type_output`)."""
    (output,) = graph.output
    if output.type.tensor_type.elem_type:
        _set_lengths(output, list(shape))


def _end_in(graph: GraphProto, choice: Choice) -> None:
    """Leaves one output, the scores, and what they depend on. Its type is written later."""
    value = next((v for v in graph.output if v.name == choice.scores), None)
    result = ValueInfoProto(name=choice.scores)
    if value is not None:
        result.CopyFrom(value)
    del graph.output[:]
    graph.output.append(result)
    keep_only(graph, choice.scores)


def _imports(proto: ModelProto, opset: int) -> None:
    """The operator sets that the nodes are of, once each, and an IR version that they all may have."""
    domains = {node.domain for node in proto.graph.node}
    kept = {i.domain: i.version for i in proto.opset_import if i.domain in domains and i.domain not in ("", "ai.onnx")}
    del proto.opset_import[:]
    proto.opset_import.append(helper.make_opsetid("", opset))
    proto.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in kept.items())
    proto.ir_version = max(proto.ir_version, _IR)


def _without_branches(
    proto: ModelProto, value: ValueInfoProto, dims: list[int | str], opset: int, odd: bool, where: str
) -> tuple[str, ...]:
    """Puts the branch that is taken in the place of every If whose condition is known at batch 1, in place."""
    sample = [d for d in (dims if odd else dims[1:]) if isinstance(d, int)]
    if len(sample) != len(dims) - (not odd):
        return ()  # an open length, refused with the signature
    graph = proto.graph
    found = prepare(graph, opset, proto.opset_import, proto.ir_version, tuple(sample), value.name, where, bare=odd).inside
    if found is None:
        return ()
    count = sum(node.op_type == "If" for node in graph.node)
    replace_nodes(graph, found)
    keep_only(graph, graph.output[0].name)
    del graph.value_info[:]
    return (f"{count} If left out: with one sample it is known which of the branches is taken",)


def _type_output(proto: ModelProto) -> None:
    """Writes the type of the output where the file does not state it."""
    graph = proto.graph
    (output,) = graph.output
    if output.type.tensor_type.elem_type:
        return
    known = next((v for v in graph.value_info if v.name == output.name), None)
    if known is None:
        inferred = onnx.shape_inference.infer_shapes(proto).graph
        known = next((v for v in (*inferred.output, *inferred.value_info) if v.name == output.name), None)
    if known is not None and known.type.HasField("tensor_type"):
        output.type.CopyFrom(known.type)
    else:
        output.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, None))


def _one_sample(
    proto: ModelProto, value: ValueInfoProto, dims: list[int], opset: int, feed: Feed, where: str
) -> tuple[Feed, tuple[str, ...]]:
    """Gives a graph without a batch axis, or with a fixed one of several samples, one of a single sample."""
    graph = proto.graph
    if not dims:
        return feed, ()  # an open length, refused with the signature
    (output,) = graph.output
    prepared = prepare(graph, opset, proto.opset_import, proto.ir_version, tuple(dims), value.name, where, bare=True)
    shapes = prepared.shapes
    out = shapes.get(output.name)
    batch = dims[0] if len(dims) > 1 else None
    if out is None:
        raise ModelError(f"{where}: the shape of output {output.name!r} is not known, nor the batch axis; export it with batch 1")
    declared = "x".join(map(str, dims))
    if batch is not None and out == (batch,):
        raise ModelError(
            f"{where}: input of shape {declared} and output of shape {batch}: scores of {batch} samples, or of {batch} classes; "
            "export the model with batch 1"
        )
    del graph.value_info[:]
    if bare_layout(out, batch):
        _state_lengths(graph, with_batch_axis(graph, value.name, shapes, opset, where))
        _set_lengths(_input(graph, value), [1, *dims])
        return Feed(feed.dtype, bare=True), (f"the model has no batch axis: one is put in front of its input of shape {declared}",)
    assert batch is not None
    one_of_many(graph, batch, prepared.constants)
    _state_lengths(graph, (1, *out[1:]))
    _set_lengths(_input(graph, value), [1, *dims[1:]])
    note = f"the model has a fixed batch of {batch}: it is run on {batch} copies of a sample, and the first row is read"
    return Feed(feed.dtype, copies=batch), (note,)
