"""Tensors whose batch axis is not in front, as attention and recurrent exports make them: read at batch 1, as one sample's values.

A file is evaluated one sample at a time, and every witness is replayed that way. With one sample, a tensor of full shape S holds
values of that sample only, wherever the batch axis has gone, whether it was moved (Transpose) or merged with another (Reshape).

    sample shape of S:   S without its first axis, where that has length 1;   S itself otherwise

Which of the two it is says how a tensor is stored, not what its values are, so nothing has to be known about where the batch axis
is. A node with a tensor of the second kind is read as the same node with one more axis of length 1 in front of all its tensors:
its axes are counted on by one (`axis`, `axes`, `perm`, `pads`), and views lead from and to the sample shapes. Operators that
treat the rows of a batch apart (Conv, pooling, BatchNormalization) are read as one sample with the rows as groups of channels.
What has no rule here is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxsub.ops import einsum
from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.broadcast import only_variable
from onnxsub.ops.elementwise import TRAINING
from onnxsub.ops.movement import Permute, Reshape
from onnxsub.ops.node import Node
from onnxsub.ops.split_products import as_matrices, gemm_parts

__all__ = ["moved", "read_moved", "sample_of", "view"]

Readers = Mapping[str, Callable[[Node], tuple[Operator, ...]]]

VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""They keep the order of the elements, and are views between sample shapes wherever the batch axis is."""
_ELEMENTWISE = frozenset({
    "Abs", "Cast", "Ceil", "Celu", "Clip", "Dropout", "DynamicQuantizeLinear", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign",
    "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "Trilu",
    "com.microsoft.QGemm", "com.microsoft.QLinearLeakyRelu", "com.microsoft.QLinearSigmoid",
})  # fmt: skip
_BROADCAST = frozenset({
    "Add", "And", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "MatMul", "Max", "Min", "Mod",
    "MatMulInteger", "Mul", "Or", "PRelu", "Pow", "QLinearMatMul", "Sub", "Sum", "Where", "Xor",
    "com.microsoft.QLinearAdd", "com.microsoft.QLinearMul",
})  # fmt: skip
_AXIS = {
    "Concat": 0, "DequantizeLinear": 1, "Gather": 0, "GatherElements": 0, "LayerNormalization": -1, "LpNormalization": -1,
    "QuantizeLinear": 1, "RMSNormalization": -1, "ScatterElements": 0, "Split": 0, "com.microsoft.DequantizeLinear": 1,
    "com.microsoft.QLinearConcat": 0, "com.microsoft.QLinearSoftmax": -1, "com.microsoft.QuantizeLinear": 1,
}  # fmt: skip
"""Operators with an `axis`, and its default."""
_CONCAT = frozenset({"Concat", "com.microsoft.QLinearConcat"})
_BLOCKS = frozenset({"DepthToSpace", "SpaceToDepth"})
"""Their last three axes are channels and places, whatever stands before."""
_SOFTMAX = frozenset({"LogSoftmax", "Softmax"})
_REDUCE = frozenset({
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare",
})  # fmt: skip
_ROWS = {
    "AveragePool": (), "BatchNormalization": (1, 2, 3, 4), "Conv": (1, 2), "ConvTranspose": (1, 2), "GlobalAveragePool": (),
    "GlobalLpPool": (), "GlobalMaxPool": (), "GroupNormalization": (1, 2), "InstanceNormalization": (1, 2), "LpPool": (),
    "MaxPool": (), "QLinearConv": (3, 4, 5, 8), "com.microsoft.QLinearAveragePool": (),
    "com.microsoft.QLinearGlobalAveragePool": (),
}  # fmt: skip
"""Operators that treat the rows of a batch and (groups of) channels apart, and their constants, which are repeated for each row."""
_GROUPED = frozenset({"Conv", "ConvTranspose", "QLinearConv"})


def sample_of(shape: Shape) -> Shape:
    """The sample shape of a tensor of full shape `shape` at batch 1."""
    return tuple(shape[1:]) if shape and shape[0] == 1 else tuple(shape)


def moved(node: Node) -> bool:
    """Whether `node` is to be read by `read_moved`: it moves the batch axis, or reads a tensor that has none in front.

    A node that makes rows of one sample in another way (a constant with many rows, a Gather along axis 0) is left to its own
    reader, which refuses it.
    """
    if node.op_type in VIEWS or any(n not in node.shapes for n in node.variables):
        return False
    if node.op_type == "Transpose" and int((node.attributes.get("perm") or [-1])[0]) != 0:
        return True
    tensors = node.variables
    if node.op_type in ("Expand", "Tile") and node.shapes.get(node.outputs[0], (1,))[:1] != (1,):
        return True
    if (node.op_type == "Gemm" and tensors != node.inputs[:1]) or (node.op_type == "Einsum" and not einsum.in_front(node)):
        return True
    if node.op_type in _CONCAT and int(node.attributes.get("axis", 0)) in (0, -len(node.shapes[tensors[0]])):
        return True
    if node.op_type == "Gather" and _of_the_only_row(node):
        return True
    ranks = {len(node.shapes[n]) for n in tensors}
    if node.op_type in _BROADCAST and (len(ranks) > 1 or any(v.ndim > max(ranks) for v in node.constants.values())):
        return True  # first axes do not meet each other
    if node.op_type in _BROADCAST and ranks == {1} and any(v.shape not in ((), (1,)) for v in node.constants.values()):
        return True  # one number, and a list in its place
    return any(node.shapes[n][:1] != (1,) for n in tensors)


def _of_the_only_row(node: Node) -> bool:
    """Whether a Gather takes the one element of a first axis of length 1: the last step of a stack of one, for instance."""
    index, shape = node.constant(1), node.shapes[node.variables[0]]
    along = int(node.attributes.get("axis", 0)) in (0, -len(shape))
    return along and len(shape) > 2 and shape[0] == 1 and index is not None and index.ndim == 0


def read_moved(node: Node, readers: Readers) -> tuple[Operator, ...]:
    """The operators of a node for which `moved` holds.

    Raises:
        UnsupportedOperatorError: its meaning where the batch axis is not in front is not known.
    """
    if any(n not in node.shapes for n in (*node.variables, *node.outputs) if n):
        raise node.refuse("the shapes of its tensors are not known")
    if node.op_type == "Gemm":
        return _split(gemm_parts(node), readers)
    if node.op_type == "LRN":
        return _neighbours(node, readers)
    if node.op_type == "MatMul" and (found := _of_vectors(node, readers)) is not None:
        return found
    if node.op_type in _ROWS:
        return _rows(node, readers)
    rank = 0
    if node.op_type in _BROADCAST:
        rank = max(len(node.shapes[n]) for n in (*node.inputs, *node.outputs) if n)
    lift = _Lift.of(node, rank)
    return lift.around(readers[node.op_type](lift.node))


def view(node: Node, source: str, output: str, before: Shape, after: Shape) -> Reshape:
    """The same elements in another sample shape."""
    return Reshape(op_type=node.op_type, node=node.name, inputs=(source,), output=output, in_shapes=(before,), out_shape=after)


@dataclass(frozen=True, eq=False)
class _Lift:
    """`node` with an axis of length 1 in front of every tensor, and the views between its tensors and those of the network."""

    before: tuple[Reshape, ...]
    node: Node
    after: tuple[Reshape, ...]

    @staticmethod
    def of(node: Node, rank: int) -> _Lift:
        """Tensors that are broadcast against each other get up to `rank` axes behind the new one."""
        attributes, changed = _shifted(node)
        names, constants, shapes, before = {}, dict(node.constants), {}, []
        for i, name in enumerate(node.inputs):
            if i in changed:
                names[i] = f"{name}:shifted"
                constants[names[i]] = changed[i]
                shapes[names[i]] = changed[i].shape
            elif name in node.constants or not name:
                names[i] = name
                if name:
                    shapes[name] = node.shapes[name]
            else:
                full = (1,) * max(0, rank - len(node.shapes[name])) + tuple(node.shapes[name])
                names[i] = name
                if full != sample_of(node.shapes[name]):
                    names[i] = f"{_first(node)}:whole{i}"
                    before.append(view(node, name, names[i], sample_of(node.shapes[name]), full))
                shapes[names[i]] = (1, *full)
        outputs, after = [], []
        for name in node.outputs:
            full = tuple(node.shapes[name]) if name else ()
            inner = name
            if name and full != sample_of(full):
                inner = f"{name}:whole"
                after.append(view(node, inner, name, full, sample_of(full)))
            if name:
                shapes[inner] = (1, *full)
            outputs.append(inner)
        inputs = tuple(names[i] for i in range(len(node.inputs)))
        lifted = replace(
            node, attributes=attributes, inputs=inputs, outputs=tuple(outputs), shapes=shapes,
            constants={n: constants[n] for n in inputs if n in constants},
        )  # fmt: skip
        return _Lift(tuple(before), lifted, tuple(after))

    def around(self, ops: tuple[Operator, ...]) -> tuple[Operator, ...]:
        return (*self.before, *ops, *self.after)


def _first(node: Node) -> str:
    return next(n for n in node.outputs if n)


def _on(axis: int) -> int:
    """Number of an axis behind a new first one; negative ones count from the end."""
    return int(axis) + 1 if axis >= 0 else int(axis)


def _shifted(node: Node) -> tuple[Mapping[str, Any], dict[int, Array]]:
    """Attributes, and constant inputs by number, of the node with one more axis in front of its tensors."""
    kind, given = node.op_type, dict(node.attributes)
    rank = len(node.shapes[node.variables[0]])
    if kind in _ELEMENTWISE or kind in _BROADCAST or kind in _BLOCKS:
        return given, {}
    if kind in _AXIS or kind in _SOFTMAX:
        default = _AXIS.get(kind, 1 if node.opset < 13 else -1)
        # these constants have the axes of the tensor
        every = {"Concat": range(len(node.inputs)), "com.microsoft.QLinearConcat": range(2, len(node.inputs), 3)}
        also = (every | {"GatherElements": (1,), "ScatterElements": (0, 1, 2)}).get(kind, ())
        raised = {i: value[None] for i in also if (value := node.constant(i)) is not None}
        return given | {"axis": _on(int(given.get("axis", default)))}, raised
    if kind == "Einsum":
        return {"equation": einsum.behind(node)}, {}
    if kind == "Transpose":
        perm = given.get("perm") or reversed(range(rank))
        return given | {"perm": [0, *(int(p) + 1 for p in perm)]}, {}
    if kind in _REDUCE:
        return _axes(node, 1, list(range(rank)) if not given.get("noop_with_empty_axes", 0) else None)
    if kind == "Slice":
        starts = node.constant(1) if node.has(1) else given.get("starts")
        return _axes(node, 3, None if starts is None else list(range(len(starts))))
    if kind == "GatherND" and (index := node.constant(1)) is not None:
        return given | {"batch_dims": int(given.get("batch_dims", 0)) + 1}, {1: index[None]}
    if kind == "ScatterND" and (index := node.constant(1)) is not None:
        whole = node.constant(0)
        places = np.concatenate([np.zeros_like(index[..., :1]), index], axis=-1)
        return given, {1: places} if whole is None else {0: whole[None], 1: places}
    if kind == "Tile":
        return given, _in_front(node, 1, 1)
    if kind in ("Resize", "Upsample") and "axes" not in given:
        if "scales" in given:
            return given | {"scales": [1.0, *given["scales"]]}, {}
        numbers = (1,) if kind == "Upsample" or node.opset == 10 else (2, 3)
        roi = node.constant(1) if numbers == (2, 3) else None
        region = {} if roi is None or not roi.size else {1: np.concatenate([[0], roi[:rank], [1], roi[rank:]]).astype(roi.dtype)}
        return given, region | {k: v for i in numbers for k, v in _in_front(node, i, 1).items()}
    if kind == "Pad" and not node.has(3):
        if not node.has(1):
            pads = [int(p) for p in given["pads"]]
            return given | {"pads": [0, *pads[:rank], 0, *pads[rank:]]}, {}
        value = node.constant(1)
        return given, {} if value is None else {1: np.concatenate([[0], value[:rank], [0], value[rank:]]).astype(np.int64)}
    if kind == "Pad":
        return _axes(node, 3, None)
    raise node.refuse("it stands behind a Reshape or a Transpose that moves the batch axis, and its meaning there is not known")


def _in_front(node: Node, i: int, number: int) -> dict[int, Array]:
    value = node.constant(i)
    return {} if value is None or not value.size else {i: np.concatenate([[number], value]).astype(value.dtype)}


def _axes(node: Node, i: int, default: Sequence[int] | None) -> tuple[Mapping[str, Any], dict[int, Array]]:
    """`axes` counted on, which are input i or an attribute."""
    given = dict(node.attributes)
    if node.has(i):
        value = node.constant(i)
        if value is None:
            return given, {}
        listed = value.reshape(-1) if value.size else default
        if listed is not None:
            return given, {i: np.array([_on(a) for a in listed], dtype=np.int64)}
    axes = given.get("axes") or default
    return (given if axes is None else given | {"axes": [_on(a) for a in axes]}), {}


def _split(parts: tuple[Node, ...], readers: Readers) -> tuple[Operator, ...]:
    return tuple(op for part in parts for op in (read_moved(part, readers) if moved(part) else readers[part.op_type](part)))


def _of_vectors(node: Node, readers: Readers) -> tuple[Operator, ...] | None:
    """A MatMul of vectors between views; None where it has none."""
    found = as_matrices(node)
    if found is None:
        return None
    views, part, written = found
    before = [view(node, name, made, sample_of(node.shapes[name]), sample_of(full)) for made, (name, full) in views.items()]
    output = node.outputs[0]
    after = view(node, part.outputs[0], output, sample_of(written), sample_of(node.shapes[output]))
    return *before, *_split((part,), readers), after


def _neighbours(node: Node, readers: Readers) -> tuple[Operator, ...]:
    """LRN of rows `(T, C, *spatial)`: as `(C, T, *spatial)`, places of one sample, and back."""
    x, output, perm = only_variable(node), _first(node), (1, 0, *range(2, len(node.shapes[node.inputs[0]])))
    shape = node.shapes[x]
    turned = tuple(shape[i] for i in perm)
    inner, written = f"{output}:channels", f"{output}:normalised"
    part = replace(node, inputs=(inner,), outputs=(written,), shapes={inner: (1, *turned), written: (1, *turned)})
    common: dict[str, Any] = {"op_type": node.op_type, "node": node.name, "order": perm}
    before = Permute(**common, inputs=(x,), output=inner, in_shapes=(shape,), out_shape=turned)
    after = Permute(**common, inputs=(written,), output=output, in_shapes=(turned,), out_shape=shape)
    return before, *readers[node.op_type](part), after


def _rows(node: Node, readers: Readers) -> tuple[Operator, ...]:
    """Rows `(T, C, *spatial)` as one sample of T C channels, in T times the groups."""
    x, output = only_variable(node), _first(node)
    if any(n not in ("", output) for n in node.outputs):
        raise node.refuse(TRAINING if node.op_type == "BatchNormalization" else "only its first output may be read")
    if len(node.shapes[x]) < 2:
        raise node.refuse("its tensor has no axis of channels")
    (rows, channels, *spatial), (_, filters, *places) = node.shapes[x], node.shapes[output]
    attributes = dict(node.attributes)
    for name in ("group", "num_groups"):
        if name in attributes or (name == "group" and node.op_type in _GROUPED):
            attributes[name] = int(attributes.get(name, 1)) * rows
    constants = dict(node.constants)
    for i in _ROWS[node.op_type]:
        value = node.constant(i)
        if value is not None:
            one = node.op_type == "QLinearConv" and i in (4, 5) and value.size == 1  # a scale of all channels
            constants[node.inputs[i]] = value if one else np.concatenate([value] * rows)
    source, target = f"{output}:rows", f"{output}:channels"
    before, after = (rows * channels, *spatial), (rows * filters, *places)
    shapes = {source: (1, *before), target: (1, *after)} | {n: v.shape for n, v in constants.items()}
    inputs = (source, *node.inputs[1:])
    part = replace(node, attributes=attributes, inputs=inputs, outputs=(target,), constants=constants, shapes=shapes)
    first = view(node, x, source, sample_of(node.shapes[x]), before)
    return first, *readers[node.op_type](part), view(node, target, output, after, sample_of(node.shapes[output]))
