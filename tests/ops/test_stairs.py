"""Floor, Ceil, Round and Mod: the values of onnxruntime at their jumps, far from zero and beside it, and behind a moved batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.layouts.emit import Writer
from onnxsub.lower import lower, lower_nodes
from onnxsub.model import load_model
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.stairs import Stairs
from onnxsub.propagate import compute_bounds
from onnxsub.quantised import with_room
from tests.ops.tools import Case, ints, nodes_of, random, run

F32 = np.float32
KINDS = pytest.mark.parametrize("kind", ["Floor", "Ceil", "Round", "Mod"])


def case(kind: str, size: int, divisor: float = 1.0) -> Case:
    constant = (np.array(divisor, F32),) if kind == "Mod" else ()
    return Case(kind, ((size,), *constant), {"fmod": 1} if kind == "Mod" else {}, opsets=(13,))


def beside(at: np.ndarray) -> list[np.ndarray]:
    """Numbers, and the float32 numbers on either side of them."""
    return [at, np.nextafter(at, F32(np.inf)), np.nextafter(at, F32(-np.inf))]


@KINDS
@pytest.mark.parametrize("scale", [1.0, 0.1, 2.0**20, 2.0**24, 2.0**40, 1e-40])
def test_whole_numbers_and_their_neighbours_are_those_of_onnxruntime(kind: str, scale: float) -> None:
    """Of multiples of `scale`: where the value jumps (a Mod: by steps of `scale`), far beyond the last fraction and beside 0."""
    steps = np.arange(-12, 12) + (0.5 if kind == "Round" else 0.0)
    made = case(kind, 24, F32(scale) if kind == "Mod" and scale > 1e-30 else 1.0)
    network = lower_nodes(nodes_of(made.model(13)), "x0", (24,), "y0")
    for x in beside((steps * scale).astype(F32)):
        with torch.no_grad():
            found = network.forward(torch.from_numpy(x[None]).double()).numpy()
        np.testing.assert_array_equal(found.astype(F32), run(made.model(13), {"x0": x[None]})[0])


@pytest.mark.parametrize("kind", ["Floor", "Ceil"])
def test_nothing_is_added_before_the_jump(kind: str) -> None:
    """So an input that float32 states exactly has no room, at any size, and a box between two integers one value."""
    nodes = [helper.make_node(kind, ["x"], ["y"])]
    network = with_room(lower(load_model(model(nodes, (3,), (3,), {}))), 0.0, 2.0**23)
    (stairs,) = [op for op in network.ops if isinstance(op, Stairs)]
    assert [type(op) for op in network.ops if op is not stairs] == [Scale] * (0 if kind == "Floor" else 2)
    assert (stairs.room == 0).all()
    low = np.array([[7.25, 4194303.25, 0.5]])
    least, most = compute_bounds(network, low, low + 0.25, "ibp").output
    whole = np.floor(low[0]) if kind == "Floor" else np.ceil(low[0])
    # bounds are widened by what float32 rounds between their own operators
    np.testing.assert_allclose(least.numpy()[0], whole, rtol=2e-9)
    np.testing.assert_allclose(most.numpy()[0], whole, rtol=2e-9)


@pytest.mark.parametrize("step", [1.0, 0.25, np.array([0.5, 2.0, 3.0])])
def test_the_file_holds_a_plain_floor(step: Any) -> None:
    op = Stairs(
        op_type="Made", node="made", inputs=("x",), output="y", in_shapes=((2, 3),), out_shape=(2, 3), step=np.asarray(step),
        zero=np.zeros(()), low=-np.inf, high=np.inf, stored=False, room=np.zeros(()),
    )  # fmt: skip
    writer = Writer(np.dtype(F32), ("x", "y"))
    writer.add(op, ("x",), "y")
    assert [n.op_type for n in writer.nodes] == (["Floor"] if np.all(op.step == 1) else ["Div", "Floor", "Mul"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2, 3]) for n in ("x", "y")]
    file = helper.make_model(
        helper.make_graph(writer.nodes, "g", ends[:1], ends[1:], writer.weights), opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )  # fmt: skip
    x = (np.arange(-12, 12).reshape(4, 2, 3) * np.asarray(step) * 0.5).astype(F32)
    np.testing.assert_array_equal(run(file, {"x": x})[0], op.forward(torch.from_numpy(x)).numpy())


def model(
    nodes: list[Any], shape: tuple[int, ...], after: tuple[int, ...], weights: dict[str, np.ndarray], opset: int = 13
) -> ModelProto:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, *s]) for n, s in (("x", shape), ("y", after))]
    tensors = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors), opset_imports=imports, ir_version=8)


QUANTISED = {"per tensor": ({}, np.array(0.125, F32), np.array(3, np.int8)),
             "along the rows": ({"axis": 0}, np.array([0.5, 0.25], F32), np.array([0, 1], np.int8)),
             "along the columns": ({"axis": -1}, np.array([1, 0.5, 0.25, 2], F32), np.array([0, 1, 2, 3], np.int8))}  # fmt: skip


@pytest.mark.parametrize("kind", ["Floor", "Ceil", "Round", "Mod", "Mod, rows", *QUANTISED])
def test_behind_a_moved_batch_axis(kind: str) -> None:
    """A Transpose to (rows, batch, columns) and back: as onnxruntime has it, with every execution within the bounds."""
    make = helper.make_node
    weights: dict[str, np.ndarray] = {"flat": ints(1, 8), "w": np.eye(8, dtype=F32)}
    if kind in QUANTISED:
        attributes, step, zero = QUANTISED[kind]
        weights |= {"step": step, "zero": zero}
        middle = [make("QuantizeLinear", ["a", "step", "zero"], ["q"], **attributes),
                  make("DequantizeLinear", ["q", "step", "zero"], ["b"], **attributes)]  # fmt: skip
    elif kind.startswith("Mod"):
        weights["step"] = np.array([[[0.5]], [[0.75]]], F32) if "rows" in kind else np.array(0.75, F32)
        middle = [make("Mod", ["a", "step"], ["b"], fmod=1)]
    else:
        middle = [make(kind, ["a"], ["b"])]
    nodes = [make("Transpose", ["x"], ["a"], perm=[1, 0, 2]), *middle, make("Transpose", ["b"], ["c"], perm=[1, 0, 2]),
             make("Reshape", ["c", "flat"], ["d"]), make("MatMul", ["d", "w"], ["y"])]  # fmt: skip
    file = model(nodes, (2, 4), (8,), weights)
    network = with_room(lower(load_model(file)), -4.0, 4.0)
    x = np.concatenate([random((12, 2, 4), scale=2.0).clip(-4, 4), np.arange(-16, 16).reshape(4, 2, 4).astype(F32) / 4])
    with torch.no_grad():
        found = network.forward(torch.from_numpy(x).double()).numpy()
    want = np.concatenate([run(file, {"x": one[None]})[0] for one in x])
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-6)
    for method in ("ibp", "crown"):
        low, high = (t.numpy() for t in compute_bounds(network, x.min(0).astype(float), x.max(0).astype(float), method).output)
        assert ((want >= low - 1e-6) & (want <= high + 1e-6)).all()
