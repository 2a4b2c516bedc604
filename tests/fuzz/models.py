"""Malformed and odd models: a network with one or a few things changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from tests.fuzz.draws import FLOATS, NUMBERS, WORDS, Made, Random, flipped, pick, stored
from tests.random_models import ACTIVATIONS, random_model

__all__ = ["odd_model"]


def odd_model(rng: Random, folder: Path) -> Made:
    if rng.random() < 0.6:
        proto = onnx.load(stored(rng, ".onnx"))
    else:
        proto = random_model(int(rng.integers(10**6)), activations=tuple(rng.choice(ACTIVATIONS, 2)))
    shape = [max(d.dim_value, 1) for d in proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    np.save(folder / "x0.npy", np.full((1, *shape), 0.5, dtype=np.float32))
    for _ in range(int(pick(rng, (1, 1, 2, 3)))):
        pick(rng, _CHANGES)(proto, rng)
    try:
        data = proto.SerializeToString()
    except ValueError:  # a text that is none
        data = random_model(0).SerializeToString()
    if rng.random() < 0.15:
        data = flipped(data, rng)
    (folder / "m.onnx").write_bytes(data)
    asked = ["--x0", "x0.npy", "--timeout", "1"]
    more = pick(rng, (["verify", "m.onnx", *asked, "--eps", "0.05"], ["attack", "m.onnx", *asked], ["distance", "m.onnx", *asked]))
    return "m.onnx", [["info", "m.onnx", "--json"], more]


def _node(proto: ModelProto, rng: Random) -> NodeProto:
    return proto.graph.node[int(rng.integers(len(proto.graph.node)))] if len(proto.graph.node) else proto.graph.node.add()


def _operator(proto: ModelProto, rng: Random) -> None:
    _node(proto, rng).op_type = pick(rng, _SCHEMAS)


def _one_more(proto: ModelProto, rng: Random) -> None:
    """A node of any operator, between a node and those that read it."""
    node, schema = _node(proto, rng), defs.get_schema(pick(rng, _SCHEMAS))
    out = node.output[0] if node.output else "q"
    extra = [w.name for w in proto.graph.initializer]
    names = [out, *(pick(rng, extra) for _ in range(max(0, schema.min_input - 1)) if extra)]
    made = helper.make_node(schema.name, names, [f"{out}_more"])
    for key, attribute in schema.attributes.items():
        if rng.random() < 0.5:
            value = {1: 0.5, 2: int(pick(rng, NUMBERS)), 3: pick(rng, WORDS), 7: [int(rng.integers(-3, 4)) for _ in range(3)]}
            kind = attribute.type.value
            if kind in value:
                made.attribute.append(helper.make_attribute(key, value[kind]))
    for other in proto.graph.node:
        for i, name in enumerate(other.input):
            if name == out:
                other.input[i] = f"{out}_more"
    proto.graph.node.insert(int(rng.integers(len(proto.graph.node) + 1)), made)


def _attribute(proto: ModelProto, rng: Random) -> None:
    found = [a for node in proto.graph.node for a in node.attribute]
    if not found:
        return
    a = pick(rng, found)
    if a.ints:
        match rng.integers(3):
            case 0:
                a.ints[int(rng.integers(len(a.ints)))] = int(pick(rng, NUMBERS))
            case 1:
                a.ints.pop()
            case _:
                a.ints.extend([1, 2, 3])
    elif a.type == onnx.AttributeProto.FLOAT:
        a.f = float(pick(rng, FLOATS))
    elif a.type == onnx.AttributeProto.INT:
        a.i = int(pick(rng, NUMBERS))
    else:
        a.name = pick(rng, ("axis", "kernel_shape", "pads", "x"))


def _dropped(proto: ModelProto, rng: Random) -> None:
    if len(proto.graph.node) > 1:
        del proto.graph.node[int(rng.integers(len(proto.graph.node)))]


def _doubled(proto: ModelProto, rng: Random) -> None:
    proto.graph.node.insert(int(rng.integers(len(proto.graph.node) + 1)), _node(proto, rng))


def _wires(proto: ModelProto, rng: Random) -> None:
    names = [n for node in proto.graph.node for n in (*node.input, *node.output)] or ["x"]
    node = _node(proto, rng)
    side = node.input if rng.random() < 0.7 else node.output
    if len(side):
        side[int(rng.integers(len(side)))] = pick(rng, (*names, *WORDS[:3]))


def _weights(proto: ModelProto, rng: Random) -> None:
    if not proto.graph.initializer:
        return
    tensor = pick(rng, proto.graph.initializer)
    try:
        values = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError, onnx.checker.ValidationError):  # changed before
        return
    match rng.integers(7):
        case 0 if values.size and values.dtype.kind == "f":
            values.reshape(-1)[int(rng.integers(values.size))] = pick(rng, FLOATS)
        case 1:
            values = values.reshape(-1)[: max(0, values.size - 1)]
        case 2:
            values = values.astype(pick(rng, (np.float64, np.float16, np.int64, np.int8, np.uint8, np.bool_)))
        case 3:
            values = values.T
        case 4:
            tensor.dims[:] = [int(pick(rng, NUMBERS)) for _ in tensor.dims]
            return
        case 5:
            tensor.data_type = int(rng.integers(0, 24))
            return
        case _:
            tensor.data_location = TensorProto.EXTERNAL
            where = pick(rng, ("../good.npy", "/etc/passwd", "x0.npy", "", "a\x00b"))
            tensor.external_data.add(key="location", value=where)
            return
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _versions(proto: ModelProto, rng: Random) -> None:
    match rng.integers(4) if proto.opset_import else 1:
        case 0:
            proto.opset_import[0].version = int(pick(rng, (0, 1, 6, 7, 8, 9, 11, 12, 17, 18, 21, 24, 26, 27, 99, -1)))
        case 1:
            proto.ir_version = int(pick(rng, (0, 1, 3, 4, 8, 10, 13, 14, 99)))
        case 2:
            proto.opset_import[0].domain = pick(rng, ("ai.onnx.ml", "evil", ""))
        case _:
            del proto.opset_import[:]


def _signature(proto: ModelProto, rng: Random) -> None:
    value = pick(rng, [*proto.graph.input, *proto.graph.output])
    kind = value.type.tensor_type
    match rng.integers(6):
        case 0 if kind.shape.dim:
            pick(rng, kind.shape.dim).dim_value = int(pick(rng, NUMBERS))
        case 1 if kind.shape.dim:
            pick(rng, kind.shape.dim).dim_param = pick(rng, WORDS[:8])
        case 2:
            kind.elem_type = int(rng.integers(0, 24))
        case 3:
            value.name = pick(rng, ("x", "y", "t0", "t1", "zz"))
        case 4:
            del kind.shape.dim[:]
        case _:
            proto.graph.output.append(value)


def _names(proto: ModelProto, rng: Random) -> None:
    node, word = _node(proto, rng), pick(rng, WORDS)
    node.name = word
    node.domain = pick(rng, ("", "", "evil", "com.microsoft", "ai.onnx.ml"))
    key, value = pick(rng, ("onnxsub.zoo", "onnxsub.substitute", "x")), pick(rng, (*WORDS, "{", '{"budget": []}'))
    proto.metadata_props.add(key=key, value=value)


_CHANGES: tuple[Callable[[ModelProto, Random], None], ...] = (
    _operator, _one_more, _one_more, _attribute, _attribute, _dropped, _doubled, _wires, _weights, _weights, _versions, _signature,
    _names,
)  # fmt: skip
_SCHEMAS = sorted({s.name for s in defs.get_all_schemas() if s.domain == "" and not s.deprecated})


