"""What becomes of a removed unit on its way through a graph: which entries of which tensors, along which axis, with which value.

A unit is masked: behind the node that is scored it is 0. On the way to the next weights that 0 may become another constant (a
BatchNorm behind the activation), which goes into the next bias. Where entries do not stay together along one axis, or meet those
of another layer (a residual sum), they cannot be removed, and the reason says where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnxsub.ops.base import Array, Shape

__all__ = ["Fixed", "Removal", "plan_removal"]


class Fixed(Exception):  # noqa: N818 - it is an answer: these units stay
    """The units of a layer cannot be removed; the message says why."""


@dataclass(frozen=True, eq=False)
class _State:
    """Entries of a tensor: `keep` along `axis` (batch axis counted); `value` of those that go, None before the scored node."""

    axis: int
    keep: Array
    value: Array | None


@dataclass(eq=False)
class Removal:
    """New constants: `(node, input position) -> array`, and the tensors whose shape changes."""

    constants: dict[tuple[int, int], Array] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)

    def set(self, node: gs.Node, position: int, values: Array) -> None:
        self.constants[id(node), position] = values


_SAME = ("Identity", "Dropout", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Elu", "Selu", "Softplus", "HardSwish", "Gelu", "Mish")
_ARITHMETIC: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide,
}  # fmt: skip
_WEIGHTS = ("Gemm", "MatMul", "Conv")


def plan_removal(graph: gs.Graph, shapes: Mapping[str, Shape], scored: str, keep: Array) -> Removal:
    """How the units `keep == False` of the tensor `scored` are taken out of the graph.

    Args:
        shapes: of all tensors at batch 1.

    Raises:
        Fixed: they cannot be.
    """
    removal = Removal()
    before = _source(graph, scored)
    states = {before.outputs[0].name: _State(1, keep, None)}
    _cut_rows(removal, before, keep, len(shapes[before.outputs[0].name]))
    outputs = {t.name for t in graph.outputs}
    for node in graph.nodes:  # in topological order
        read = [t.name for t in node.inputs if isinstance(t, gs.Variable) and t.name in states]
        if not read:
            continue
        if len(read) > 1 or node.op in ("Concat",):
            raise Fixed(f"it meets itself or another layer in {_called(node)}")
        state = states[read[0]]
        out = _step(removal, node, read[0], state, shapes)
        if out is not None:
            name = node.outputs[0].name
            if name == scored:
                out = _State(out.axis, out.keep, np.zeros(len(out.keep)))
            states[name] = out
    for name in states:
        if name in outputs:
            raise Fixed("it leads to the output of the model without weights in between")
    removal.touched = set(states)
    return removal


def _called(node: gs.Node) -> str:
    return f"{node.op} {node.name or node.outputs[0].name!r}"


def _constant(tensor: gs.Tensor) -> Array | None:
    if isinstance(tensor, gs.Constant):
        return np.asarray(tensor.values)
    if tensor.inputs and tensor.inputs[0].op == "Constant":
        value = tensor.inputs[0].attrs.get("value")
        return np.asarray(value.values) if isinstance(value, gs.Constant) else None
    return None


def _source(graph: gs.Graph, scored: str) -> gs.Node:
    """The weights that write the units, at most elementwise nodes before the scored one."""
    tensor = graph.tensors()[scored]
    while tensor.inputs:
        node = tensor.inputs[0]
        if node.op in _WEIGHTS and (_constant(node.inputs[1]) is not None):
            return node
        variables = [t for t in node.inputs if t.name and _constant(t) is None]
        if node.op not in (*_SAME, *_ARITHMETIC, "BatchNormalization", "Clip") or len(variables) != 1:
            raise Fixed(f"it is not made by weights alone, but by {_called(node)}")
        tensor = variables[0]
    raise Fixed("no weights come before it")


def _cut_rows(removal: Removal, node: gs.Node, keep: Array, rank: int) -> None:
    weight = _constant(node.inputs[1])
    assert weight is not None  # `_source` has looked
    if node.op == "Conv":
        if node.attrs.get("group", 1) != 1:
            raise Fixed(f"{_called(node)} has groups of channels")
        axis = 0
    elif node.op == "Gemm":
        axis = 0 if node.attrs.get("transB", 0) else 1
    else:
        axis = weight.ndim - 1
    if node.op == "MatMul" and rank != 2:
        raise Fixed(f"{_called(node)} writes its units along another axis than the scored one")
    if weight.shape[axis] != len(keep):
        raise Fixed(f"{_called(node)} writes {weight.shape[axis]} units, scored were {len(keep)}")
    if node.op == "MatMul" and weight.ndim != 2:
        raise Fixed(f"{_called(node)} has a weight of {weight.ndim} axes")
    removal.set(node, 1, np.compress(keep, weight, axis))
    if node.op != "MatMul" and len(node.inputs) > 2:
        bias = _constant(node.inputs[2])
        if bias is None:
            raise Fixed(f"the bias of {_called(node)} is computed")
        if bias.size > 1:
            removal.set(node, 2, np.compress(keep, bias, bias.ndim - 1))


def _step(removal: Removal, node: gs.Node, name: str, state: _State, shapes: Mapping[str, Shape]) -> _State | None:
    """What the node makes of the entries; None where its weights take them in."""
    op = node.op
    if op in _WEIGHTS:
        if node.inputs[0].name != name:
            raise Fixed(f"it is a factor of {_called(node)}")
        _take_in(removal, node, state, len(shapes[name]))
        return None
    if op in _SAME or op == "Clip":
        return _State(state.axis, state.keep, _unary(node, state.value))
    if op in _ARITHMETIC:
        return _arithmetic(removal, node, name, state, len(shapes[name]))
    if op == "BatchNormalization" and state.axis == 1:
        return _normalised(removal, node, state)
    if op in ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool") and state.axis == 1:
        if op == "AveragePool" and node.attrs.get("count_include_pad", 0) and _padded(node) and _far(state):
            raise Fixed(f"{_called(node)} mixes a constant with its padding")
        return state
    if op == "Transpose":
        return _State(list(node.attrs["perm"]).index(state.axis), state.keep, state.value)
    if op in ("Flatten", "Reshape", "Squeeze", "Unsqueeze"):
        return _reshaped(removal, node, name, state, shapes)
    raise Fixed(f"{_called(node)} is not an operator that units are followed through")


def _padded(node: gs.Node) -> bool:
    return any(node.attrs.get("pads", [0])) or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def _far(state: _State) -> bool:
    return state.value is None or bool((state.value[~state.keep] != 0).any())


def _unary(node: gs.Node, value: Array | None) -> Array | None:
    if value is None or node.op in ("Identity", "Dropout"):
        return value
    if node.op == "Relu":
        return np.maximum(value, 0.0)
    if node.op == "Tanh":
        return np.asarray(np.tanh(value))
    if node.op == "Sigmoid":
        return 1.0 / (1.0 + np.exp(-value))
    if node.op == "Clip" or (value != 0).any():
        raise Fixed(f"{_called(node)} stands behind it")
    if node.op == "Softplus":
        return np.full_like(value, np.log(2.0))
    return value  # the others leave 0 as it is


def _arithmetic(removal: Removal, node: gs.Node, name: str, state: _State, rank: int) -> _State:
    position = 0 if node.inputs[0].name == name else 1
    other = _constant(node.inputs[1 - position])
    if other is None:
        what = "a residual sum" if node.op == "Add" else f"the {node.op} with another tensor"
        raise Fixed(f"it goes into {what}, {_called(node)}")
    along = other.ndim - (rank - state.axis)
    value = state.value
    varies = other.ndim > 0 and along >= 0 and other.shape[along] > 1
    row = other
    if varies:
        if other.size != other.shape[along]:
            raise Fixed(f"the constant of {_called(node)} differs within a unit")
        row = other.reshape(-1)
        removal.set(node, 1 - position, np.compress(state.keep, other, along))
    elif other.size != 1:
        raise Fixed(f"the constant of {_called(node)} differs within a unit")
    else:
        row = other.reshape(-1)
    if value is not None:
        a, b = (value, row) if position == 0 else (row, value)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.broadcast_to(_ARITHMETIC[node.op](a, b).astype(np.float64), value.shape)
    return _State(state.axis, state.keep, value)


def _normalised(removal: Removal, node: gs.Node, state: _State) -> _State:
    parts = [_constant(t) for t in node.inputs[1:5]]
    if any(p is None for p in parts) or node.attrs.get("training_mode", 0):
        raise Fixed(f"the numbers of {_called(node)} are computed")
    scale, shift, mean, variance = (np.asarray(p, dtype=np.float64) for p in parts)
    for i, part in enumerate(parts):
        assert part is not None
        removal.set(node, 1 + i, part[state.keep])
    value = state.value
    if value is not None:
        value = (value - mean) / np.sqrt(variance + node.attrs.get("epsilon", 1e-5)) * scale + shift
    return _State(state.axis, state.keep, value)


def _reshaped(removal: Removal, node: gs.Node, name: str, state: _State, shapes: Mapping[str, Shape]) -> _State:
    before, after = shapes[name], shapes[node.outputs[0].name]
    spread = [1] * len(before)
    spread[state.axis] = before[state.axis]
    place = np.broadcast_to(np.arange(before[state.axis]).reshape(spread), before).reshape(after)
    axes = [i for i in range(1, len(after)) if (place == _along(place, i)).all()]
    if not axes or after[0] != 1:
        raise Fixed(f"{_called(node)} takes its entries apart")
    axis = axes[0]
    row = _along(place, axis).reshape(-1)
    if node.op == "Reshape":
        target = _constant(node.inputs[1])
        if target is not None:
            at = axis - len(after) + len(target)
            if at < 0 or int(target[at]) not in (-1, 0, after[axis]):
                raise Fixed(f"{_called(node)} has another shape than was found")
            if int(target[at]) > 0:
                target = target.copy()
                target[at] = int(state.keep[row].sum())
                removal.set(node, 1, target)
    return _State(axis, state.keep[row], None if state.value is None else state.value[row])


def _along(place: Array, axis: int) -> Array:
    """`place` on the line through the origin along `axis`, with all axes."""
    index = tuple(slice(None) if i == axis else slice(0, 1) for i in range(place.ndim))
    return np.asarray(place[index])


def _take_in(removal: Removal, node: gs.Node, state: _State, rank: int) -> None:
    weight = _constant(node.inputs[1])
    if weight is None:
        raise Fixed(f"the weight of {_called(node)} is computed")
    if state.value is None:
        raise Fixed(f"{_called(node)} reads it before the activation")
    value, gone = state.value, ~state.keep
    if node.op == "Conv":
        if state.axis != 1 or node.attrs.get("group", 1) != 1:
            raise Fixed(f"{_called(node)} has groups of channels")
        if _padded(node) and _far(state):
            raise Fixed(f"{_called(node)} mixes a constant with its padding")
        axis, extra = 1, weight.astype(np.float64)[:, gone].reshape(len(weight), int(gone.sum()), -1).sum(axis=2) @ value[gone]
    else:
        if state.axis != rank - 1 or weight.ndim != 2 or node.attrs.get("transA", 0):
            raise Fixed(f"{_called(node)} reads it along another axis")
        axis = 1 if node.op == "Gemm" and node.attrs.get("transB", 0) else 0
        rows = np.compress(gone, weight.astype(np.float64), axis)
        extra = (rows @ value[gone] if axis == 1 else value[gone] @ rows) * float(node.attrs.get("alpha", 1.0))
    removal.set(node, 1, np.compress(state.keep, weight, axis))
    if not (extra != 0).any():
        return
    if node.op == "MatMul":
        raise Fixed(f"{_called(node)} has no bias for the constant that it leaves")
    bias = _constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(extra), dtype=weight.dtype)
    if bias is None:
        raise Fixed(f"the bias of {_called(node)} is computed")
    removal.set(node, 2, (bias + extra / float(node.attrs.get("beta", 1.0))).astype(weight.dtype))
