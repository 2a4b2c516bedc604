"""The door to the file format: `load_model` reads and checks an ONNX classifier, `save_model` writes one."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from onnxsub.check_finite import check_finite
from onnxsub.errors import ModelError, OutputError, UnsupportedOperatorError
from onnxsub.files import one_line, write_atomic
from onnxsub.fold_constants import Prepared, prepare
from onnxsub.model_file import read_model_file, serialise
from onnxsub.ops.base import Shape
from onnxsub.ops.node import Node
from onnxsub.reading import Feed, Own, Reading, canonical
from onnxsub.reading.fused import unfused
from onnxsub.reading.masks import without_infinite_masks
from onnxsub.reading.ml import WHY
from onnxsub.shown import Shown
from onnxsub.signature import Signature, class_shape, read_signature
from onnxsub.strip_head import strip_head
from onnxsub.valid import check_valid

__all__ = ["Model", "Reading", "load_model", "save_model"]


@dataclass(frozen=True, eq=False, repr=False)
class Model(Shown):
    """A classifier as it was read.

    Attributes:
        path: the file, None for a model given as bytes or as a message.
        where: how messages call it.
        sha256: of the file's bytes (with external data: of these and of each data file's digest, by file name).
        source: the model exactly as read, external data loaded into it. Not to be changed.
        form: the model that is analysed, with one float input and the scores as its one output (`onnxsub.reading`); `source` itself
            where nothing had to be changed. Substitutes are written from it.
        nodes: what is left after preparation, in topological order: batch 1, constants folded, a trailing Softmax, LogSoftmax or
            (for one logit) Sigmoid left out, nothing that the logits do not depend on. An operator of another domain is named
            `domain.Operator`; shapes are missing behind operators that ONNX does not know.
        input, output: names of the input and of the logits, both tensors of `form`.
        input_shape, output_shape: per-sample shapes.
        input_dtype: of `form`: float32, float64 or float16.
        batch_fixed: the form has batch 1; False: any batch.
        raw_output: name of the output of `form`, which differs from `output` where a head was left out.
        own_output: name of the output of `source` that was read.
        own: the tensor of `source` that has the last word on a class.
        feed: how `source` is given its input.
        opset: version of the default operator set.
        notes: what a reader should know, one sentence each.
        metadata: the model's `metadata_props`.
    """

    path: Path | None
    where: str
    sha256: str
    source: ModelProto
    form: ModelProto
    nodes: tuple[Node, ...]
    input: str
    input_shape: Shape
    input_dtype: np.dtype[Any]
    batch_fixed: bool
    output: str
    output_shape: Shape
    raw_output: str
    own_output: str
    own: Own
    feed: Feed
    reading: Reading
    opset: int
    notes: tuple[str, ...]
    metadata: Mapping[str, str]

    @property
    def line(self) -> str:
        shape = "x".join(map(str, self.input_shape))
        return f"{self.where}: {shape} -> {max(2, self.outputs)} classes, {len(self.nodes)} nodes, sha256 {self.sha256[:12]}"

    @property
    def outputs(self) -> int:
        """Number of logits; 1 is read as two classes with the boundary at 0."""
        return math.prod(self.output_shape)

    @property
    def stripped(self) -> bool:
        """Whether the logits are not the file's own word: a head was left out, or the file is asked for a class."""
        return self.output != self.own.tensor

    def same_as(self, other: Model) -> bool:
        """Whether both are one function: one file, read in one way."""
        mine, theirs = ((m.sha256, m.own_output, m.output, m.input_shape) for m in (self, other))
        return mine == theirs

    @property
    def whole(self) -> bool:
        """Whether the file takes whole numbers only."""
        return self.feed.whole

    @property
    def half(self) -> bool:
        """Whether it computes in half precision, if only in part."""
        casts = (n.attributes.get("to") for n in self.nodes if n.op_type == "Cast")
        return np.float16 in (self.input_dtype, self.feed.dtype) or TensorProto.FLOAT16 in casts


def load_model(source: str | os.PathLike[str] | bytes | ModelProto, reading: Reading | None = None) -> Model:
    """Read a classifier.

    Args:
        source: path of an `.onnx` file, its bytes, or the message (which is copied).
        reading: which of several outputs is meant, and lengths that the file leaves open.

    Raises:
        ModelError: the file is missing, corrupt, of an opset outside 7 to 26, not a classifier with one input and an output of
            scores, or holds NaN or infinite weights. Operators are not judged here but when the model is lowered.
    """
    file = read_model_file(source)
    where = file.where
    reading = reading or Reading()
    form = canonical(file.proto, reading, file.opset, where)
    graph = form.proto.graph
    signature = read_signature(graph, where)
    try:
        prepared = prepare(
            graph, file.opset, form.proto.opset_import, form.proto.ir_version, signature.input_shape, signature.input, where
        )
    except ModelError as error:
        if form.feed.copies == 1:
            raise
        raise ModelError(f"{error} (of its fixed batch of {form.feed.copies} one sample is read); export it with 1") from error
    if 0 in prepared.shapes.get(signature.output, ()):
        raise ModelError(
            f"{where}: output {signature.output!r} of shape {list(prepared.shapes[signature.output])} is empty; "
            "export the part of the model that ends in the logits"
        )
    output, heads = strip_head(prepared.nodes, signature.output, prepared.shapes, where, sigmoids=reading.sigmoids)
    notes = (*form.notes, *heads)
    nodes = without_infinite_masks(unfused(_alive(prepared.nodes, output)))
    if not any(signature.input in node.inputs for node in nodes):
        raise ModelError(
            f"{where}: no operator leads from input {signature.input!r} to output {signature.output!r}; check the model"
        )
    check_finite(nodes, where)
    try:
        shape = class_shape(_output_shape(prepared, signature, nodes, output, where), output, where)
    except ModelError:
        for node in nodes:
            if node.op_type in WHY:  # the shape is a consequence of what is in the way
                raise node.refuse(WHY[node.op_type]) from None
        raise
    _check_class(form.own, prepared.shapes.get(signature.output, ()), math.prod(shape), where)
    if math.prod(shape) == 1:
        notes += (f"a single logit {output!r}: read as two classes, class 1 where it is above 0 and class 0 where it is below",)
    return Model(
        path=file.path,
        where=where,
        sha256=file.sha256,
        source=file.proto,
        form=form.proto,
        nodes=nodes,
        input=signature.input,
        input_shape=signature.input_shape,
        input_dtype=signature.dtype,
        batch_fixed=signature.batch_fixed,
        output=output,
        output_shape=shape,
        raw_output=signature.output,
        own_output=form.output,
        own=form.own,
        feed=form.feed,
        reading=reading,
        opset=file.opset,
        notes=notes,
        metadata={p.key: p.value for p in file.proto.metadata_props},
    )


def save_model(proto: ModelProto, path: str | os.PathLike[str]) -> None:
    """Check `proto` and write it, all of it or nothing.

    Raises:
        ModelError: it is not valid ONNX (an error of the program that built it).
        OutputError: it is larger than 2 GB, or the file cannot be written.
    """
    data = serialise(proto, f"model {os.fspath(path)!r}", OutputError)
    try:
        check_valid(proto, data)
    except onnx.checker.ValidationError as error:
        why = one_line(error)
        raise ModelError(f"model {os.fspath(path)!r} was not written, it is not valid ONNX: {why}; please report this") from error
    write_atomic(path, data)


def _check_class(own: Own, scores: Shape, classes: int, where: str) -> None:
    """Raises ModelError where the class that a file gives is not that of all its scores."""
    if not own.is_class:
        return
    if own.axis is not None and scores and scores[own.axis] != classes:
        length = scores[own.axis]
        raise ModelError(f"{where}: the class is chosen along an axis of {length} of the {classes} scores; export the scores")
    if own.labels and (len(own.labels) != classes or len(set(own.labels)) != classes):
        raise ModelError(f"{where}: {len(set(own.labels))} labels stand for {classes} classes; export the scores")
    if classes == 1 and own.axis is not None:
        raise ModelError(f"{where}: the class is chosen among one score and always the same; export the score")


def _alive(nodes: tuple[Node, ...], output: str) -> tuple[Node, ...]:
    """The nodes that `output` depends on."""
    needed, kept = {output}, []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(n for n in node.inputs if n)
            needed.update(_captured(node))
    return tuple(reversed(kept))


def _captured(node: Node) -> set[str]:
    """Names that the subgraphs of `node` read, which may lie outside of them."""
    values = [v for value in node.attributes.values() for v in (value if isinstance(value, list) else [value])]
    graphs = [v for v in values if isinstance(v, onnx.GraphProto)]
    names: set[str] = set()
    while graphs:
        graph = graphs.pop()
        names.update(v.name for v in graph.output)
        for inner in graph.node:
            names.update(n for n in inner.input if n)
            graphs.extend(a.g for a in inner.attribute if a.HasField("g"))
    return names


def _output_shape(prepared: Prepared, signature: Signature, nodes: tuple[Node, ...], output: str, where: str) -> Shape:
    """Shape of the logits; behind operators that ONNX does not know, the one that the file declares."""
    if output in prepared.shapes:
        return prepared.shapes[output]
    declared = signature.declared_output
    if declared and all(d is not None for d in declared[1:]):
        return (1, *(d for d in declared[1:] if d is not None))
    unknown = next(n for n in nodes if any(o and o not in prepared.shapes for o in n.outputs))
    if unknown.op_type in WHY:
        raise unknown.refuse(WHY[unknown.op_type])
    written = {o for n in nodes for o in n.outputs}
    label = next((n for n in unknown.inputs if n and n not in prepared.shapes and n not in written), None)
    if label is not None:
        raise unknown.refuse(f"it reads {label!r}, the class that a classifier inside the model gives; votes are no scores")
    raise UnsupportedOperatorError(
        f"{where}: operator {unknown.op_type} (node {unknown.name!r}, opset {unknown.opset}) is not known, "
        "and the file does not state the shape of its output; replace the operator by standard ones"
    )
