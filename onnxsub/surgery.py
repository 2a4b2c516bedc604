"""Changing an ONNX graph with onnx-graphsurgeon and losing nothing of what was not changed.

A round trip through graphsurgeon alone drops `metadata_props` everywhere, doc strings, the model's domain and version,
initializers that are listed as inputs, attribute types that it does not know, and the encoding of tensors. `edit` therefore
merges three ways: what graphsurgeon writes before and after the change is compared, and wherever the two agree the
original message is kept as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import onnx_graphsurgeon as gs
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto, helper
from onnx_graphsurgeon.logger import G_LOGGER

from onnxsub.errors import ModelError

__all__ = ["PREFIX", "annotate", "edit"]

PREFIX = "onnxsub."
"""How every metadata key of this package begins."""

_NODE_METADATA_IR = 10
"""The first IR version whose nodes have `metadata_props`."""

_FREE_INITIALIZERS_IR = 4
"""The first IR version whose initializers need not be listed as inputs too."""

M = TypeVar("M", NodeProto, TensorProto, ValueInfoProto, AttributeProto)


def edit(proto: ModelProto, change: Callable[[gs.Graph], None]) -> ModelProto:
    """`proto` after `change`, which alters the `gs.Graph` in place.

    Nodes are identified by their first output, other things by their name. A node whose operator or inputs are changed keeps its
    metadata and doc string as long as it writes the same tensor. Run `graph.cleanup().toposort()` inside `change` where
    nodes were disconnected or added out of order. `proto` itself is not altered.
    """
    scratch = ModelProto()
    scratch.CopyFrom(proto)  # graphsurgeon's tensors alias the message that they were read from
    with G_LOGGER.suppress():  # it logs to standard output, which belongs to results
        graph = gs.import_onnx(scratch)
        before = gs.export_onnx(graph)
        change(graph)
        after = gs.export_onnx(graph)
    result = ModelProto()
    result.CopyFrom(proto)
    old, base, new = proto.graph, before.graph, after.graph
    _replace(result.graph.node, _merged(old.node, base.node, new.node, _first_output, _merge_node))
    _replace(result.graph.initializer, _in_order(old.initializer, _merged(old.initializer, base.initializer, new.initializer)))
    _replace(result.graph.input, _inputs(proto, result, _merged(old.input, base.input, new.input)))
    _replace(result.graph.output, _merged(old.output, base.output, new.output))
    gone = _tensors(old) - _tensors(result.graph)
    infos = _in_order(old.value_info, _merged(old.value_info, base.value_info, new.value_info))
    _replace(result.graph.value_info, [v for v in infos if v.name not in gone])
    for owner, o, b, n in ((result.graph, old, base, new), (result, proto, before, after)):
        for field in ("name", "doc_string") if owner is result.graph else ("producer_name", "producer_version", "ir_version"):
            value = _either(getattr(o, field), getattr(b, field), getattr(n, field))
            if value != getattr(o, field):
                setattr(owner, field, value)
    for field in ("opset_import", "functions"):
        if list(getattr(before, field)) != list(getattr(after, field)):
            _replace(getattr(result, field), list(getattr(after, field)))
    return result


def annotate(proto: ModelProto, model_props: Mapping[str, str], node_props: Mapping[str, Mapping[str, str]]) -> ModelProto:
    """A copy of `proto` with metadata: `model_props` on the model, `node_props[t]` on the node that writes tensor `t`.

    A key that is there already gets the new value. The IR version becomes at least 10 where a node gets metadata, else it stays.

    Raises:
        ValueError: a key that does not begin with `onnxsub.`.
        ModelError: a tensor that no node of the graph writes.
    """
    for key in (*model_props, *(k for props in node_props.values() for k in props)):
        if not key.startswith(PREFIX):
            raise ValueError(f"metadata key {key!r} does not begin with {PREFIX!r}")
    result = ModelProto()
    result.CopyFrom(proto)
    _set_props(result.metadata_props, model_props)
    writers = {name: node for node in result.graph.node for name in node.output if name}
    for tensor, props in node_props.items():
        if tensor not in writers:
            raise ModelError(f"no node of the model writes tensor {tensor!r}, so it cannot be annotated; name an output of a node")
        _set_props(writers[tensor].metadata_props, props)
    if any(node_props.values()):
        result.ir_version = max(result.ir_version, _NODE_METADATA_IR)
    return result


def _set_props(props: Any, new: Mapping[str, str]) -> None:
    have = {p.key: p for p in props}
    for key, value in new.items():
        if key in have:
            have[key].value = value
        else:
            props.append(StringStringEntryProto(key=key, value=value))


def _replace(field: Any, items: Iterable[Any]) -> None:
    copies = list(items)
    del field[:]
    field.extend(copies)


def _either(old: Any, before: Any, after: Any) -> Any:
    return old if before == after else after


def _name(item: Any) -> str:
    return str(item.name)


def _first_output(node: NodeProto) -> str:
    return next((name for name in node.output if name), "")


def _keep_notes(old: M, before: M, after: M) -> M:
    """The changed message with the original's doc string and metadata, which graphsurgeon does not carry."""
    result = type(after)()
    result.CopyFrom(after)
    if old.doc_string and not after.doc_string:
        result.doc_string = old.doc_string
    if not isinstance(old, AttributeProto) and not isinstance(result, AttributeProto):
        _replace(result.metadata_props, old.metadata_props)
    return result


def _merge_node(old: NodeProto, before: NodeProto, after: NodeProto) -> NodeProto:
    result = _keep_notes(old, before, after)
    if old.op_type == after.op_type and old.domain == after.domain:
        result.overload = old.overload
        _replace(result.attribute, _merged(old.attribute, before.attribute, after.attribute))
    return result


def _merged(
    old: Iterable[M],
    before: Iterable[M],
    after: Iterable[M],
    key: Callable[[M], str] = _name,
    changed: Callable[[M, M, M], M] = _keep_notes,
) -> list[M]:
    """The messages of `after`, each as in `old` where the change left it alone; then those of `old` that graphsurgeon never saw."""
    originals = {key(m): m for m in old}
    bases = {key(m): m for m in before}
    result = []
    names = set()
    for message in after:
        name = key(message)
        names.add(name)
        if name not in originals:
            result.append(message)
        elif name in bases and bases[name] == message:
            result.append(originals[name])
        else:
            result.append(changed(originals[name], bases.get(name, message), message))
    return result + [m for name, m in originals.items() if name not in bases and name not in names]


def _in_order(old: Iterable[M], merged: list[M]) -> list[M]:
    """`merged` in the order of the original file, new messages behind (graphsurgeon orders tensors by first use)."""
    place = {_name(m): i for i, m in enumerate(old)}
    return sorted(merged, key=lambda m: place.get(_name(m), len(place)))


def _tensors(graph: GraphProto) -> set[str]:
    return {v.name for v in (*graph.input, *graph.initializer)} | {name for node in graph.node for name in node.output}


def _inputs(old: ModelProto, result: ModelProto, merged: list[ValueInfoProto]) -> list[ValueInfoProto]:
    """The true inputs, and of the initializers those that were listed as inputs, or all of them up to IR 3, which wants that."""
    before = {t.name: t for t in old.graph.initializer}
    after = {t.name: t for t in result.graph.initializer}
    inputs = []
    for value in _in_order(old.graph.input, merged):
        tensor = after.get(value.name)
        if tensor is None and value.name in before:
            continue  # the initializer is gone; without it this would be an input to be given
        changed = tensor is not None and before.get(value.name) != tensor
        inputs.append(helper.make_tensor_value_info(value.name, tensor.data_type, tensor.dims) if tensor and changed else value)
    if old.ir_version < _FREE_INITIALIZERS_IR:
        listed = {v.name for v in inputs}
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in after.values() if t.name not in listed]
    return inputs
