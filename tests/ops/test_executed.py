"""Products and steps of normalisations that stand for every execution: numbers that are off, and networks by onnxruntime."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.bilinear import Bilinear, MatrixProduct, Product
from onnxsub.ops.normalised import Normalised
from onnxsub.ops.steps import Executed, InversePower, Probability
from onnxsub.propagate.bounds import compute_bounds
from onnxsub.quantised import off_by, with_room
from onnxsub.query import make_query
from onnxsub.runtime import Runtime, squares_deviations
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.handmade import Net
from tests.ops.test_dynamic import executions_stay_within_bounds, integers, layer, quantised

_UNIT = 2.0**-24
_NAMES = {"op_type": "D", "node": "n", "output": "y", "inputs": ("x",)}


def step(kind: type[Executed], width: int, **more: float) -> Executed:
    return kind(**_NAMES, in_shapes=((width,),), out_shape=(width,), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [InversePower, Probability])
@pytest.mark.parametrize("room", [0.0, 1e-6, 0.01, 5.0])
@pytest.mark.parametrize("width", [0.0, 1e-4, 0.3, 4.0])
def test_steps_that_are_off(kind: type[Executed], room: float, width: float) -> None:
    rng = np.random.default_rng(0)
    op = step(kind, 60, **({"shift": 1e-5, "power": 0.5} if kind is InversePower else {})).roomier(np.full(60, room))
    centre = np.concatenate([np.zeros(20), np.full(20, room), rng.normal(size=20)])
    low = torch.as_tensor(centre - width * rng.random(60))[None]
    high = torch.as_tensor(centre + width * rng.random(60))[None]
    z = low + (high - low) * torch.as_tensor(rng.choice([0.0, 0.1, 0.5, 1.0], (600, 60)))
    z = torch.cat([z, torch.zeros(1, 60).double().clamp(low, high), torch.full((1, 60), room).double().clamp(low, high)])
    off = z + room * torch.as_tensor(rng.choice([-1.0, 0.3, 1.0], tuple(z.shape)))
    y = op.forward(off) * (1 + 64 * _UNIT * torch.as_tensor(rng.choice([-1.0, 1.0], tuple(z.shape))))
    check(op, (low, high), z, y)


@pytest.mark.parametrize("shift", [1e-12, 1e-5, 0.1])
@pytest.mark.parametrize("error", [0.0, 1e-6, 1e-3, 0.5])
@pytest.mark.parametrize("width", [0.0, 1e-4, 2.0])
def test_inverse_root_of_a_mean_of_squares(shift: float, error: float, width: float) -> None:
    rng, terms = np.random.default_rng(1), 5
    op = step(InversePower, 40, shift=shift, power=0.5)
    assert isinstance(op, InversePower)
    op = op.of_squares(np.full(3, error), terms)
    d = rng.normal(size=(400, 40, terms)) * rng.choice([0.0, 1e-3, 1.0], (400, 1, 1)) * 10.0 ** rng.uniform(-2, 0, (1, 40, 1))
    d = torch.as_tensor(width * d + 10.0 ** rng.uniform(-3, 0, (1, 40, 1)))
    off = d + error * torch.as_tensor(rng.uniform(-1, 1, d.shape).round(decimals=0))
    z, executed = (t.square().mean(-1) for t in (d, off))
    executed = executed * (1 + (terms + 8) * _UNIT * torch.as_tensor(rng.choice([-1.0, 1.0], tuple(z.shape))))
    check(op, (z.amin(0)[None], z.amax(0)[None]), z, op.forward(executed))


@pytest.mark.parametrize("kind", [Normalised, MatrixProduct])
@pytest.mark.parametrize("rooms", [(0.0, 0.0), (1e-5, 0.0), (1e-3, 1e-2)])
@pytest.mark.parametrize("width", [0.0, 1e-3, 1.0])
def test_products_that_are_off(kind: type[Bilinear], rooms: tuple[float, float], width: float) -> None:
    rng = np.random.default_rng(2)
    shapes = ((3, 4), (4, 2)) if kind is MatrixProduct else ((4, 3), (4, 1))
    out, first = ((3, 2) if kind is MatrixProduct else (4, 3)), 12
    size = first + int(np.prod(shapes[1]))
    more = {} if kind is MatrixProduct else {"limit": 50.0}
    op = kind(**_NAMES, in_shapes=((size,),), out_shape=out, first=shapes[0], second=shapes[1], **more)  # type: ignore[arg-type]
    room = np.repeat(rooms, (first, size - first))
    op = op.roomier(room)
    centre = rng.normal(size=size)
    low, high = (torch.as_tensor(centre + s * width * rng.random(size))[None] for s in (-1, 1))
    x = low + (high - low) * torch.as_tensor(rng.choice([0.0, 0.4, 1.0], (800, size)))
    off = x + torch.as_tensor(room * rng.choice([-1.0, 1.0], (800, size)))
    y = op.forward(off)
    y = torch.cat([y, op.forward(off.float()).double()])
    x = torch.cat([x, x])
    check(op, (low, high), x, y)


def check(op: Executed | Bilinear, box: tuple[torch.Tensor, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> None:
    """Interval and lines hold for what was executed, at the real inputs."""
    l, u = op.interval(box)
    assert bool((y >= l).all())
    assert bool((y <= u).all())
    for mode in ("fastlin", "crown"):
        lines = op.relax(*box, mode)
        for sign in (1.0, -1.0):
            a = sign * torch.eye(y[0].numel(), dtype=torch.float64).reshape(1, -1, *y.shape[1:])
            slope, offset = lines.lower(a)
            below = (x.flatten(1) @ slope[0].flatten(1).T) + offset[0]
            assert bool((sign * y.flatten(1) >= below - 1e-12 * (1 + below.abs())).all())


def perceptron(seed: int = 0, spread: float = 1.0, far: float = 0.0) -> onnx.ModelProto:
    """Two layers, a LayerNormalization between them."""
    n = Net(6, seed=seed)
    y = layer(n, quantised(n, "x"), integers(n, 6, 12), spread * n.rng.uniform(0.002, 0.01, 12))
    y = n.node("Add", [y, n.weight(spread * 0.3 * n.rng.normal(size=12) + far)])
    y = n.node("LayerNormalization", [y, n.weight(n.rng.uniform(0.5, 1.5, 12)), n.weight(n.rng.normal(size=12))], epsilon=1e-5)
    y = layer(n, quantised(n, n.node("Relu", [y])), integers(n, 12, 3), np.asarray(0.003))
    return n.model(n.node("Add", [y, n.weight(n.rng.normal(size=3) * 0.1)]), 3)


def encoder(seed: int = 0) -> onnx.ModelProto:
    """One block of attention over three tokens of four numbers, normalised before it and behind it."""
    n, width = Net(3, 4, seed=seed), 4

    def product(given: list[str], size: int) -> str:
        return layer(n, given, integers(n, width, size), n.rng.uniform(0.002, 0.01, size))

    def normal(x: str) -> str:
        return n.node("LayerNormalization", [x, n.weight(n.rng.uniform(0.5, 1.5, width)), n.weight(np.zeros(width))], epsilon=1e-5)

    given = quantised(n, normal("x"))
    q, k, v = (product(given, width) for _ in range(3))
    scores = n.node("MatMul", [q, n.node("Transpose", [k], perm=[0, 2, 1])])
    read = n.node("MatMul", [n.node("Softmax", [scores], axis=-1), v])
    x = n.node("Add", ["x", product(quantised(n, read), width)])
    x = n.node("Add", [x, product(quantised(n, normal(x)), width)])
    return n.model(product(quantised(n, n.node("ReduceMean", [normal(x)], axes=[1], keepdims=0)), 3), 3)


MODELS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "perceptron": perceptron,
    "nearly equal": lambda seed: perceptron(seed, 1e-3),
    "far from 0": lambda seed: perceptron(seed, 1.0, 100.0),
    "encoder": encoder,
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("eps", [0.0, 1e-4, 1e-3, 0.05])
def test_bounds_hold_for_executions(kind: str, eps: float) -> None:
    for seed in range(3):
        model = load_model(MODELS[kind](seed))
        rng = np.random.default_rng(seed)
        network = with_room(lower(model), 0.0, 1.0)
        x0 = rng.random(model.input_shape).astype(np.float32).astype(np.float64)
        if seed == 2:  # tokens of equal numbers, without a variance
            x0 = np.full_like(x0, 0.25)
        executions_stay_within_bounds(model, network, x0, eps, rng)


@pytest.mark.parametrize(("version", "expected"), [("1.26.0", False), ("1.28.0", True), ("1.31.1", True), ("2.0.0rc1", True)])
def test_variances_of_older_kernels_may_be_negative(version: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    assert squares_deviations() == expected
    network = with_room(lower(load_model(perceptron(far=1.0))), 0.0, 1.0)
    (inverse,) = (op for op in network.ops if isinstance(op, InversePower))
    (product,) = (op for op in network.ops if isinstance(op, Normalised))
    assert (inverse.raw, inverse.terms, np.isfinite(product.limit)) == (not expected, 12 * expected, expected)


def grouped(seed: int, far: float, spread: float = 1.0) -> onnx.ModelProto:
    """Two layers, a GroupNormalization between them."""
    n = Net(4, 6, seed=seed)
    y = layer(n, quantised(n, "x"), integers(n, 6, 6), spread * n.rng.uniform(0.002, 0.01, 6))
    y = n.node("Add", [y, n.weight(spread * 0.3 * n.rng.normal(size=(4, 6)) + far)])
    parts = [n.weight(n.rng.uniform(0.5, 1.5, 4)), n.weight(n.rng.normal(size=4))]
    y = n.node("Relu", [n.node("GroupNormalization", [y, *parts], epsilon=1e-5, num_groups=2)])
    y = layer(n, quantised(n, n.node("Flatten", [y])), integers(n, 24, 3), np.asarray(0.003))
    return n.model(y, 3, opset=21, ir=10)


@pytest.mark.parametrize(("far", "spread", "known"), [(300.0, 1.0, False), (0.0, 1e-3, True), (0.02, 1e-2, True)])
def test_a_variance_that_cancels(far: float, spread: float, known: bool) -> None:
    """onnxruntime takes the mean square less the squared mean, which at 300 is off by a tenth."""
    model = load_model(grouped(0, far, spread))
    network = with_room(lower(model), 0.0, 1.0)
    rng = np.random.default_rng(0)
    finite = []
    for eps in (0.0, 1e-4, 1e-2):
        x0 = rng.random(model.input_shape).astype(np.float32).astype(np.float64)
        x = rng.uniform(x0 - eps, x0 + eps, (100, *x0.shape)).clip(0, 1).astype(np.float32)
        y = Runtime(model).logits(x)
        low, high = (np.minimum(x0 - eps, x.min(0)), np.maximum(x0 + eps, x.max(0)))
        for method in ("ibp", "crown"):
            l, u = (t[0].numpy() for t in compute_bounds(network, low.clip(0, 1), high.clip(0, 1), method).output)
            finite.append(bool(np.isfinite([l, u]).all()))
            assert (l - 1e-5 <= y).all()
            assert (y <= u + 1e-5).all()
    assert all(finite) if known else not any(finite)


@pytest.mark.parametrize("error", [0.0, 1e-7, 4e-6, 1e-5])
def test_inverse_root_of_a_variance_that_may_be_negative(error: float) -> None:
    rng = np.random.default_rng(3)
    op = step(InversePower, 40, shift=1e-5, power=0.5)
    assert isinstance(op, InversePower)
    op = op.roomier(np.full(40, error)).of_raw_moments()
    low = torch.as_tensor(rng.choice([0.0, 1e-7, 1e-5, 0.1, 3.0], 40))[None]
    high = low + torch.as_tensor(rng.choice([0.0, 1e-6, 1.0], 40))
    z = low + (high - low) * torch.as_tensor(rng.choice([0.0, 0.01, 0.5, 1.0], (500, 40)))
    off = z + error * torch.as_tensor(rng.choice([-1.0, 0.2, 1.0], (500, 40)))
    y = (off + 1e-5).clamp(min=0) ** -0.5 * (1 + 64 * _UNIT * torch.as_tensor(rng.choice([-1.0, 1.0], (500, 40))))
    if error >= 1e-5:
        assert bool(torch.isinf(op.interval((low, high))[1][low == 0]).all())
        y = torch.where(torch.isfinite(y), y, torch.full_like(y, 1e300))
    check(op, (low, high), z, y)


def test_a_factor_without_bound_by_one_that_may_be_off_from_zero() -> None:
    op = Product(**_NAMES, in_shapes=((2,),), out_shape=(1,), first=(1,), second=(1,))  # type: ignore[arg-type]
    box = torch.tensor([[-np.inf, 0.0]], dtype=torch.float64), torch.tensor([[np.inf, 0.0]], dtype=torch.float64)
    assert float(op.interval(box)[1]) == 0
    op = op.roomier(np.array([0.0, 1e-7]))
    assert float(op.interval(box)[1]) == float(op.relax(*box, "crown").spread) == np.inf


def test_squares_that_overflow_have_no_bound() -> None:
    """Of deviations of 1e20 float32 makes a variance of infinity, and 0 of what it normalises."""
    network = with_room(lower(load_model(perceptron(0, 1e20))), 0.0, 1.0)
    (inverse,) = (op for op in network.ops if isinstance(op, InversePower))
    assert inverse.room == np.inf


@pytest.mark.parametrize("kind", ["perceptron", "encoder"])
def test_small_balls_are_proved(kind: str) -> None:
    proved = 0
    for seed in range(2):
        model = load_model(MODELS[kind](seed))
        query = make_query(model, np.random.default_rng(seed + 5).random(model.input_shape), threads=1)
        answer = verify(query, 2e-4, VerifyOptions(limits=Limits(timeout=10)))
        proved += answer.status == "proved"
        rng = np.random.default_rng(0)
        rows = (query.x0 + 2e-4 * rng.choice([-1, -0.5, 0.9, 1], (500, *query.x0.shape))).clip(0, 1).astype(np.float32)
        rows = rows[query.radius(rows) <= 2e-4]
        other = bool((query.logits(rows).argmax(1) != query.label).any())
        assert not (other and answer.status == "proved")
    assert proved == 2


_FUNCTIONS = (
    "Gelu", "Elu", "Selu", "Celu", "Softplus", "Mish", "HardSwish", "HardSigmoid", "Sigmoid", "Swish", "Tanh", "Erf", "Softsign",
)  # fmt: skip


@pytest.mark.parametrize("kind", _FUNCTIONS)
def test_room_of_functions_that_cancel(kind: str) -> None:
    """Where the value is small and what it is computed of is not: `1 + erf(x)`, `exp(x) - 1`, `log(1 + exp(x))`."""
    n = Net(6)
    y = n.node("Mul", ["x", n.node("Sigmoid", ["x"])]) if kind == "Swish" else n.node(kind, ["x"])
    model = load_model(n.model(n.node("Neg", [y]), 6, opset=22, ir=10))
    network, runtime, rng = lower(model), Runtime(model), np.random.default_rng(0)
    for scale, far in ((1e-4, 0.0), (1e-2, 0.0), (1.0, -2.0), (1.0, -5.0), (1.0, -12.0), (2.0, 0.0), (1.0, 8.0)):
        for _ in range(8):
            x = (far + scale * rng.normal(size=6)).astype(np.float32).astype(np.float64)
            real = network.forward(torch.from_numpy(x[None])).numpy()[0]
            bound = off_by(network, x)
            assert (np.abs(runtime.logits(x[None])[0] - real) <= bound).all()
            assert bound.max() <= 2e-4
