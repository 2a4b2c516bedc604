"""Quantisers and integer operators: the values of onnxruntime, bounds of every execution, rows, files, whole networks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import Tensor

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.layouts.emit import Writer
from onnxsub.lower import lower_nodes
from onnxsub.ops.base import Array
from onnxsub.ops.quantize import Quantise
from onnxsub.ops.stairs import Stairs
from tests.ops.jumping_checks import SHAPE, common, lines_hold, rows_are_the_relation, some_units
from tests.ops.tools import Case, nodes_of, normal, random, run

F32 = np.float32


def pair(step: Array, zero: Array | None, opset: int = 13, shape: tuple[int, ...] = SHAPE, **attributes: Any) -> ModelProto:
    """QuantizeLinear and DequantizeLinear."""
    constants = {"s": step} | ({} if zero is None else {"z": zero})
    nodes = [helper.make_node("QuantizeLinear", ["x", *constants], ["q"], name="q", **attributes),
             helper.make_node("DequantizeLinear", ["q", *constants], ["y"], name="dq", **attributes)]  # fmt: skip
    return graph(nodes, {"x": shape}, "y", constants, opset, after=shape)


def graph(
    nodes: list[Any], inputs: dict[str, tuple[int, ...]], output: str, constants: dict[str, Array], opset: int = 13,
    after: tuple[int | None, ...] = (None,),
) -> ModelProto:  # fmt: skip
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, *s]) for n, s in inputs.items()]
    last = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, *after])]
    made = helper.make_graph(nodes, "g", ends, last, [numpy_helper.from_array(v, k) for k, v in constants.items()])
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=imports, ir_version=10)


def quantiser(model: ModelProto, shape: tuple[int, ...] = SHAPE) -> Quantise:
    network = lower_nodes(nodes_of(model), "x", shape, "y")
    (op,) = network.ops
    assert isinstance(op, Quantise)
    return op


def scalar(value: float, kind: Any = F32) -> Array:
    return np.array(value, kind)


PAIRS = {
    "int8": (scalar(0.05), scalar(3, np.int8), (10, 13, 19, 21, 23)),
    "int8, odd steps": (scalar(1 / 3), scalar(-127, np.int8), (13,)),
    "uint8": (scalar(0.1), scalar(128, np.uint8), (10, 13, 19, 21, 23)),
    "a Relu": (scalar(0.02), scalar(0, np.uint8), (13,)),
    "without zero point": (scalar(0.03), None, (13,)),
    "int16": (scalar(1e-3), scalar(-100, np.int16), (21, 23)),
    "uint16": (scalar(1e-3), scalar(30000, np.uint16), (21,)),
    "per axis": (np.array([0.1, 0.02, 0.7], F32), np.array([0, 5, -128], np.int8), (13, 19, 21)),
    "coarse": (scalar(1.7), scalar(0, np.int8), (13,)),
}


def made(name: str) -> tuple[ModelProto, list[ModelProto]]:
    step, zero, opsets = PAIRS[name]
    attributes = {"axis": 2} if step.ndim else {}
    models = [pair(step, zero, opset, **attributes) for opset in opsets]
    return models[-1], models


OPS = {name: quantiser(made(name)[0]) for name in PAIRS}
OPS["Round"] = Case("Round", (SHAPE,), opsets=(11,)).op1()  # type: ignore[assignment]
OPS["stored"] = replace(OPS["per axis"], stored=True)
OPS["with room"] = replace(OPS["coarse"], room=np.array(0.1))
_steps = {"zero": np.zeros(()), "low": -math.inf, "high": math.inf, "stored": False, "room": np.zeros(())}
OPS["stairs"] = Stairs(**common(), **_steps, step=np.array([0.3, 1.0, 2.0, 0.7]))  # type: ignore[arg-type]
OPS["roomy stairs"] = replace(OPS["stairs"], room=np.array(0.1))
ALL = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())


@pytest.mark.parametrize("name", PAIRS)
def test_values_are_those_of_onnxruntime(name: str) -> None:
    step = PAIRS[name][0]
    x = np.concatenate([random((3, *SHAPE), 1, 2.0).ravel(), random((3, *SHAPE), 2, 60.0).ravel()]).reshape(6, *SHAPE)
    # exact middles between two steps: half to even
    middles = (np.arange(-12, 12) + 0.5).astype(F32).reshape(1, *SHAPE) * (step.reshape(-1, 1) if step.ndim else step)
    x = np.concatenate([x, middles.astype(F32)])
    for model in made(name)[1]:
        op = quantiser(model)
        with torch.no_grad():
            found = op.forward(torch.from_numpy(x)).numpy()
        for i, point in enumerate(x):
            np.testing.assert_array_equal(found[i], run(model, {"x": point[None]})[0][0])


def test_round_is_half_to_even() -> None:
    x = np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 1e30]], F32)
    case = Case("Round", ((8,),), opsets=(11, 22))
    for opset in case.opsets:
        np.testing.assert_array_equal(case.op1(opset).forward(torch.from_numpy(x)).numpy(), run(case.model(opset), {"x0": x})[0])


def intervals(op: Quantise, scale: float, count: int = 40) -> tuple[Tensor, Tensor]:
    """Of all kinds, some of which end at jumps: `(count, *SHAPE)`; scale in steps."""
    step = torch.as_tensor(np.array(op.step))
    a, b = normal((count, *SHAPE), 1) * scale, normal((count, *SHAPE), 2) * scale
    b[5:10] = a[5:10] + b[5:10].abs() * 1e-9
    b[10:14] = a[10:14]
    a[14:20] = torch.round(a[14:20]) + 0.5 + op.ahead
    b[20:24] = torch.round(b[20:24]) + 0.5 + op.ahead
    a[24:28], b[28:30] = -1e6, 1e6
    return torch.minimum(a, b) * step, torch.maximum(a, b) * step


def executions(op: Quantise, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Points of every interval, and values that executions may give there: their t is off by up to the room."""
    share = torch.linspace(0, 1, 41, dtype=lower.dtype).reshape(-1, *[1] * lower.dim())
    z = (lower + share * (upper - lower)).clamp(min=lower, max=upper)
    step, room = (torch.as_tensor(np.array(v)) for v in (op.step, op.room))
    jump = torch.round(z / step - 0.5 - op.ahead) + 0.5 + op.ahead  # jumps themselves, and either side of them
    z = torch.cat([z, *((step * (jump + d)).clamp(min=lower, max=upper) for d in (-1e-12, 0.0, 1e-12))])
    found = [op.forward(z + d * room * step) for d in (-0.999, 0.0, 0.999)]
    return torch.cat([z] * 3), torch.cat(found)


SCALES = (0.05, 0.6, 3.0, 200.0)


@ALL
@pytest.mark.parametrize("scale", SCALES)
def test_bounds_hold_for_every_execution(op: Quantise, scale: float) -> None:
    lower, upper = intervals(op, scale)
    z, y = executions(op, lower, upper)
    least, most, error = lines_hold(op, lower, upper, z, y, 1e-12 * (1 + y.abs()))
    room = 1e-9 * (1 + error.abs())
    assert ((error >= least - room) & (error <= most + room)).all()
    assert (op.interval((lower, upper))[0] == op.interval((lower, upper))[1])[op.affine_on(lower, upper)].all()


@ALL
def test_lines_are_as_tight_as_steps_allow(op: Quantise) -> None:
    """Where no limit is near the lines are a step (and the room) apart at the middle, like the relation, and nowhere four."""
    lower, upper = intervals(op, 3.0, 14)
    inner = replace(op, low=-math.inf, high=math.inf)
    line = inner.relax(lower, upper, "crown")
    unit = torch.as_tensor(np.array(op.unit))
    width = 2 * torch.as_tensor(np.array(op.room)) + 1.0 + 1e-9
    for z, most in ((lower, 4 * width), ((lower + upper) / 2, width), (upper, 4 * width)):
        gap = (line.upper_slope - line.lower_slope) * z + line.upper_offset - line.lower_offset
        assert (gap <= unit * most).all()


@ALL
def test_no_end_and_no_number_bound_nothing_wrongly(op: Quantise) -> None:
    inf, one = math.inf, torch.ones((1, *SHAPE), dtype=torch.float64)
    for l, u in ((-inf, inf), (-inf, 0.1), (0.1, inf), (-1e300, 1e300), (0.0, 0.0)):
        lower, upper = l * one, u * one
        low, high = op.interval((lower, upper))
        assert (low <= high).all()
        for mode in ("fastlin", "crown"):
            line = op.relax(lower, upper, mode)
            z = one * min(max(0.1, l), u)
            y = op.forward(z)
            assert (line.lower_slope * z + line.lower_offset <= y + 1e-12).all()
            assert (line.upper_slope * z + line.upper_offset >= y - 1e-12).all()
    assert not op.affine_on(math.nan * one, one).any()


@ALL
def test_the_gradient_passes_straight_through(op: Quantise) -> None:
    z = torch.tensor(np.tile(op.step, SHAPE) if op.step.ndim == 0 else np.broadcast_to(op.step, SHAPE).copy()) * 0.4
    z = z.reshape(1, *SHAPE).requires_grad_()
    y = op.forward(z)
    assert torch.equal(y.detach(), op.forward(z.detach()))
    (gradient,) = torch.autograd.grad(y.sum(), z)
    inside = (z.detach() / torch.as_tensor(np.array(op.step)) > torch.as_tensor(np.array(op.least))).double()
    torch.testing.assert_close(gradient, inside * torch.as_tensor(np.array(op.unit / op.step)).expand_as(z))


@ALL
def test_splits_make_progress(op: Quantise) -> None:
    lower, upper = intervals(op, 3.0, 14)
    open_ = ~op.affine_on(lower, upper) & (upper - lower > 1e-2 * torch.as_tensor(np.array(op.step)))
    at = op.middle(lower, upper)
    assert ((at > lower) & (at < upper))[open_].all()
    whole = op.interval((lower, upper))
    halves = [op.interval(h) for h in ((lower, at), (at, upper))]
    fewer = torch.stack([h[1] - h[0] < whole[1] - whole[0] for h in halves]).any(0)
    roomy = torch.as_tensor(np.array(op.room)).expand_as(lower) < 0.05
    assert fewer[open_ & roomy].all()


@ALL
def test_some_units_of_it(op: Quantise) -> None:
    some_units(op, *intervals(op, 2.0))


@pytest.mark.parametrize("name", ["int8", "a Relu", "per axis", "coarse", "with room", "stored", "Round", "stairs", "roomy stairs"])
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_are_the_relation(name: str, seed: int) -> None:
    op = OPS[name].take(np.array([0, 5, 9, 23]), node="n", inputs=("x0",), output="y0")
    step = torch.as_tensor(np.array(op.step))
    limit = 40.0 if name == "a Relu" else 4.0
    ends = torch.sort(normal((2, 1, 4), seed) * limit * step, dim=0).values

    def clear(x: Tensor) -> Tensor:
        t = x / step - op.ahead
        return (t - torch.floor(t) - 0.5).abs() > 0.11

    rows_are_the_relation(op, (ends[0], ends[1]), clear)


@ALL
@pytest.mark.parametrize("dtype", [F32, np.float64])
def test_the_file_computes_it_and_is_read_back(op: Quantise, dtype: type) -> None:
    writer = Writer(np.dtype(dtype), ("x", "y"))
    writer.add(op, ("x",), "y")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [helper.make_tensor_value_info(n, kind, ["N", *SHAPE]) for n in ("x", "y")]
    file = helper.make_graph(writer.nodes, "g", ends[:1], ends[1:], initializer=writer.weights)
    model = helper.make_model(file, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    x = (random((5, *SHAPE), 3) * 40 * np.asarray(op.step)).astype(dtype)
    with torch.no_grad():
        np.testing.assert_allclose(run(model, {"x": x})[0], op.forward(torch.from_numpy(x)).numpy(), rtol=1e-6, atol=1e-6)
        if dtype is F32:
            for value in (*model.graph.input, *model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = 1
            network = lower_nodes(nodes_of(model), "x", SHAPE, "y")
            found = network.values(torch.from_numpy(x.astype(np.float64)))["y"].numpy()
            np.testing.assert_allclose(found, op.forward(torch.from_numpy(x.astype(np.float64))).numpy(), rtol=1e-6, atol=1e-6)


def test_slopes_are_declared_missing() -> None:
    with pytest.raises(UnsupportedOperatorError, match="slopes: it jumps"):
        OPS["int8"].slopes(torch.zeros((1, *SHAPE)), torch.ones((1, *SHAPE)))
