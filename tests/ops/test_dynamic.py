"""Layers that are quantised as they run: values by onnxruntime, intervals and lines against random points, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.network import Network
from onnxsub.ops.dynamic import DynamicSteps
from onnxsub.passes.select import SelectOptions
from onnxsub.propagate.bounds import compute_bounds
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.quantised import jumps, off_by, with_room
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.handmade import Net

I8, U8 = np.int8, np.uint8


def quantised(n: Net, x: str) -> list[str]:
    q = n.node("DynamicQuantizeLinear", [x])
    n.nodes[-1].output.extend([f"{q}s", f"{q}z"])
    return [q, f"{q}s", f"{q}z"]


def layer(
    n: Net, given: list[str], weight: Any, scale: Any, zero: Any = None, kind: str = "MatMulInteger", **attributes: Any
) -> str:
    """What onnxruntime's `quantize_dynamic` writes for a product with constants."""
    stored, step, offset = given
    more = [] if zero is None else [n.weight(zero, weight.dtype)]
    y = n.node(kind, [stored, n.weight(weight, weight.dtype), offset, *more], **attributes)
    y = n.node("Cast", [y], to=onnx.TensorProto.FLOAT)
    return n.node("Mul", [y, n.node("Mul", [step, n.weight(scale)])])


def integers(n: Net, *shape: int, dtype: Any = I8) -> Any:
    info = np.iinfo(dtype)
    return n.rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def perceptron(seed: int = 0) -> onnx.ModelProto:
    """Two layers on one quantiser, whose products are added; one with a scale per column, one of uint8 with a zero point."""
    n = Net(6, seed=seed)
    given = quantised(n, "x")
    a = layer(n, given, integers(n, 6, 12), n.rng.uniform(0.002, 0.01, 12), np.zeros(12))
    b = layer(n, given, integers(n, 6, 12, dtype=U8), np.asarray(0.004), np.asarray(120))
    h = n.node("Relu", [n.node("Add", [n.node("Sub", [a, b]), n.weight(0.3 * n.rng.normal(size=12))])])
    y = layer(n, quantised(n, h), integers(n, 12, 3), np.asarray(0.003))
    y = n.node("Add", [y, n.weight(n.rng.normal(size=3) * 0.1)])
    return n.model(y, 3)


def convolution(seed: int = 0) -> onnx.ModelProto:
    n = Net(2, 6, 6, seed=seed)
    y = layer(n, quantised(n, "x"), integers(n, 4, 2, 3, 3), np.asarray(0.004), np.asarray(0), "ConvInteger", pads=[1, 1, 1, 1])
    y = n.node("Relu", [n.node("Add", [y, n.weight(0.3 * n.rng.normal(size=(1, 4, 1, 1)))])])
    y = n.node("Flatten", [n.node("GlobalAveragePool", [y])])
    return n.model(layer(n, quantised(n, y), integers(n, 4, 3), np.asarray(0.003)), 3)


MODELS = {"perceptron": perceptron, "convolution": convolution}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 50.0])
def test_values_are_those_of_onnxruntime(kind: str, scale: float) -> None:
    model = load_model(MODELS[kind]())
    x = (np.random.default_rng(1).normal(size=(20, *model.input_shape)) * scale).astype(np.float32)
    with torch.no_grad():
        found = lower(model).forward(torch.as_tensor(x)).numpy()
    want = Runtime(model).logits(x)
    near = np.abs(found - want) <= 1e-5 * (1 + np.abs(want).max())
    # a row may be off by a step where float32 rounds an element beside the middle of two steps
    assert near.all(axis=1).sum() >= 19


def executions_stay_within_bounds(model: Model, network: Network, x0: np.ndarray, eps: float, rng: np.random.Generator) -> None:
    """What onnxruntime computes at points of a ball and at its corners lies within the bounds over it."""
    low, high = np.maximum(x0 - eps, 0), np.minimum(x0 + eps, 1)
    x = rng.uniform(low, high, (200, *x0.shape))
    corners = np.where(rng.random((100, *x0.shape)) < 0.5, low, high)
    x = np.concatenate([x, corners]).astype(np.float32)
    x = np.clip(x, np.float32(low), np.float32(high))
    y = Runtime(model).logits(x)
    # a float32 that the corners were rounded to
    for method in ("ibp", "crown"):
        l, u = (t[0].numpy() for t in compute_bounds(network, low - 1e-7, high + 1e-7, method).output)
        assert (l - 1e-5 <= y).all()
        assert (y <= u + 1e-5).all()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("eps", [1e-4, 0.01, 0.2])
def test_bounds_hold_for_executions(kind: str, eps: float) -> None:
    for seed in range(3):
        model = load_model(MODELS[kind](seed))
        rng = np.random.default_rng(seed)
        network = with_room(lower(model), 0.0, 1.0)
        x0 = rng.random(model.input_shape).astype(np.float32).astype(np.float64)
        executions_stay_within_bounds(model, network, x0, eps, rng)


@pytest.mark.parametrize("width", [0.0, 1e-5, 1e-3, 0.1, 3.0])
@pytest.mark.parametrize("room", [0.0, 1e-4])
def test_intervals_and_lines_hold(width: float, room: float) -> None:
    rng = np.random.default_rng(int(1e6 * width))
    for shift in (-2.0, -0.3, 0.0, 0.3, 2.0):
        common = {"op_type": "D", "node": "n", "inputs": ("x",), "output": "y", "in_shapes": ((7,),), "out_shape": (7,)}
        op = DynamicSteps(**common, room=np.asarray(room))
        centre = rng.normal(size=7) + shift
        low = torch.as_tensor(centre - width * rng.random(7))[None]
        high = torch.as_tensor(centre + width * rng.random(7))[None]
        x = low + (high - low) * torch.as_tensor(rng.choice([0.0, 0.5, 1.0, np.pi / 4], (400, 7)))
        off = x + room * torch.as_tensor(rng.uniform(-1, 1, (400, 7)))
        y = torch.cat([op.forward(off), op.forward(off.float()).double()])
        l, u = op.interval((low, high))
        tolerance = 1e-6 * (1 + float(y.abs().max()))
        assert bool((y >= l - tolerance).all())
        assert bool((y <= u + tolerance).all())
        lines = op.relax(low, high, "crown")
        real = torch.cat([x, x])
        assert bool((y >= lines.lower_slope * real + lines.lower_offset - tolerance).all())
        assert bool((y <= lines.upper_slope * real + lines.upper_offset + tolerance).all())
        if width >= 3:  # half a largest step, and no more
            step = float(high.max().clamp(min=0) - low.min().clamp(max=0)) / 255
            assert float((lines.upper_offset - lines.lower_offset).max()) <= 1.01 * step + 4 * room


def test_no_interval_without_ends() -> None:
    common = {"op_type": "D", "node": "n", "inputs": ("x",), "output": "y", "in_shapes": ((2,),), "out_shape": (2,)}
    op = DynamicSteps(**common, room=np.zeros(()))
    low, high = torch.tensor([[-np.inf, 0.0]]), torch.tensor([[1.0, 0.5]])
    l, u = op.interval((low.double(), high.double()))
    assert bool(torch.isinf(l).all())
    assert bool(torch.isinf(u).all())
    assert bool((op.relax(low.double(), high.double(), "crown").lower_slope == 0).all())


@pytest.mark.parametrize("layout", ["compact", "inplace"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_substitute_keeps_anchor_and_adversarial_point(kind: str, layout: str) -> None:
    model = load_model(MODELS[kind](1))
    query = make_query(model, np.random.default_rng(2).random(model.input_shape), threads=1)
    result = prune(query, PruneOptions("con", SelectOptions(gamma=0.9, bounds="ibp"), layout, 0.05))
    limit = 1e-4 * (1 + float(np.abs(query.logits(query.x0[None])).max()))
    assert result.preserves["x0"] <= limit


def test_a_small_ball_is_proved_and_nothing_wrong_is() -> None:
    model = load_model(perceptron(4))
    query = make_query(model, np.random.default_rng(2).random(6), threads=1)
    assert verify(query, 1e-3, VerifyOptions(limits=Limits(timeout=20))).status == "proved"
    wide = verify(query, 1.0, VerifyOptions(limits=Limits(timeout=20)))
    rows = np.random.default_rng(0).random((500, 6)).astype(np.float32)
    if (query.logits(rows).argmax(1) != query.label).any():
        assert wide.status == "violated"


def _changed(change: str) -> onnx.ModelProto:
    proto = perceptron()
    nodes = proto.graph.node
    if change == "read by another":
        nodes.append(helper.make_node("Cast", [nodes[0].output[0]], ["other"], to=1))
    elif change == "its scale alone":
        nodes.append(helper.make_node("Neg", [nodes[0].output[1]], ["other"]))
    elif change == "another zero point":
        next(n for n in nodes if n.op_type == "MatMulInteger").input[2] = ""
    else:
        nodes.append(helper.make_node("Neg", [next(n for n in nodes if n.op_type == "Cast").output[0]], ["other"]))
    if nodes[-1].output[0] == "other":  # something that the output reads
        y = proto.graph.output[0].name
        nodes.append(helper.make_node("ReduceMax", ["other"], ["most"], keepdims=0))
        nodes.append(helper.make_node("Add", [y, "most"], ["sum"]))
        proto.graph.output[0].name = "sum"
    return proto


@pytest.mark.parametrize("change", ["read by another", "its scale alone", "another zero point", "integers"])
def test_what_is_read_otherwise_is_refused(change: str) -> None:
    with pytest.raises(UnsupportedOperatorError) as raised:
        lower(load_model(_changed(change)))
    assert "\n" not in str(raised.value)


def test_its_steps_are_jumps() -> None:
    """What float32 rounds may lead to another step, so onnxruntime's scores at one point are not compared with the real ones."""
    assert jumps(lower(load_model(perceptron())))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_room_of_a_softmax(scale: float) -> None:
    """What an execution in float32 is off by lies within the bound behind a Softmax, and the bound is of the size of roundings."""
    for seed in range(5):
        n = Net(8, seed=seed)
        y = n.node("Softmax", [n.node("Mul", [n.gemm("x", 8, 12), n.weight(np.asarray(scale))])], axis=-1)
        model = load_model(n.model(n.gemm(y, 12, 3), 3))
        network, runtime = lower(model), Runtime(model)
        for x in np.random.default_rng(seed).random((10, 8)).astype(np.float32):
            with torch.no_grad():
                real = network.forward(torch.as_tensor(x.astype(np.float64))[None]).numpy()[0]
            bound = off_by(network, x)
            assert (np.abs(runtime.logits(x[None])[0] - real) <= bound).all()
            assert bound.max() < 1e-3 * (1 + scale)


@pytest.mark.parametrize("width", [0.0, 1e-3, 0.5, 40.0])
def test_ties_and_other_extremes_against_onnxruntime(width: float) -> None:
    """Elements in the middle of two steps, limits that another element takes over, tensors of one sign and of zeros."""
    n = Net(7)
    q, s, z = quantised(n, "x")
    whole = n.node("Sub", [n.node("Cast", [q], to=1), n.node("Cast", [z], to=1)])
    file = n.model(n.node("Mul", [whole, s]), 7).SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    common = {"op_type": "D", "node": "n", "inputs": ("x",), "output": "y", "in_shapes": ((7,),), "out_shape": (7,)}
    op = DynamicSteps(**common, room=np.zeros(()))
    rng = np.random.default_rng(int(100 * width))
    for k in range(60):
        step = np.float32(2.0 ** rng.integers(-8, 3))
        ends = [(-255.0, 0.0), (0.0, 255.0), (-100.0, 155.0), (-127.5, 127.5), (0.0, 0.0)][k % 5]
        x0 = (rng.integers(ends[0], ends[1] + 1, 7) + rng.choice([0.0, 0.5], 7)).clip(*ends) * step
        x0[:2] = np.array(ends) * step
        low, high = (np.float32(x0 + sign * width * step * rng.random(7)) for sign in (-1, 1))
        x = rng.uniform(low, high, (40, 7))
        x = np.concatenate([x, np.where(rng.random((40, 7)) < 0.5, low, high), x0[None]]).astype(np.float32).clip(low, high)
        y = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
        l, u = (t[0].numpy() for t in op.interval((torch.as_tensor(low[None]).double(), torch.as_tensor(high[None]).double())))
        tolerance = 1e-6 * (1 + np.abs(y).max())
        assert (y >= l - tolerance).all()
        assert (y <= u + tolerance).all()
        lines = op.relax(torch.as_tensor(low[None]).double(), torch.as_tensor(high[None]).double(), "crown")
        below = lines.lower_slope[0].numpy() * x + lines.lower_offset[0].numpy()
        above = lines.upper_slope[0].numpy() * x + lines.upper_offset[0].numpy()
        assert (y >= below - tolerance).all()
        assert (y <= above + tolerance).all()
