"""What is not finite proves nothing: values beyond float64 give no bound, never a wrong one, and no NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.passes.certify import certified_radius, keeps_its_pieces, margin_rows, worst_margin_bound
from onnxsub.propagate import METHODS, Bounds, compute_bounds, linear_range, margin_bounds
from onnxsub.propagate.balance import InexactError, groups, scaled
from onnxsub.propagate.halfspace import cut_minimum
from onnxsub.propagate.rounding import settled
from onnxsub.region import InputSpace
from tests.handmade import Net
from tests.random_dags import random_dag
from tests.random_models import ACTIVATIONS, random_model

INF = float("inf")
SPACE = InputSpace()


def assert_sound(network: Network, bounds: Bounds, values: dict[str, torch.Tensor]) -> None:
    """No end is NaN, and every value that is a number lies inside."""
    for op in network.nonlinear:
        assert_inside(bounds.pre[op.output], values[op.inputs[0]])
    assert_inside(bounds.output, values[network.output].flatten(1))
    rows = np.concatenate([margin_rows(network.classes, y) for y in range(network.classes)])
    assert_inside(margin_bounds(network, bounds, rows), values[network.output].flatten(1) @ torch.as_tensor(rows).T)


def assert_inside(box: tuple[torch.Tensor, torch.Tensor], values: torch.Tensor) -> None:
    low, high = box
    assert not torch.isnan(low).any()
    assert not torch.isnan(high).any()
    assert not (low == INF).any()
    assert not (high == -INF).any()
    assert ((values >= low) | torch.isnan(values)).all()
    assert ((values <= high) | torch.isnan(values)).all()


def sampled(network: Network, low: np.ndarray, high: np.ndarray) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    shape = (200, *low.shape)
    x = np.concatenate([rng.uniform(low, high, shape), np.where(rng.random(shape) < 0.5, low, high)])
    with torch.no_grad():
        return network.values(torch.as_tensor(x))


def gained(times: int, factor: float, kind: str = "Relu") -> Network:
    """Logits `(x / 2 + 1 / 4, clip(factor^times kind(x - 1 / 2), 0, 1))`."""
    n = Net(1, dtype=np.float64)
    h = n.node(kind, [n.node("Gemm", ["x", n.weight([[1.0, 0.0]]), n.weight([-0.5, 0.0])])])
    for _ in range(times):
        h = n.node("Mul", [h, n.weight(np.array(factor))])
    a = n.node("Slice", [n.node("Clip", [h, n.weight(np.array(0.0)), n.weight(np.array(1.0))]), *ends_of(n)])
    y = n.node("Gemm", ["x", n.weight([[0.5]]), n.weight([0.25])])
    return lower(load_model(n.model(n.node("Concat", [y, a], axis=1), 2)))


def ends_of(n: Net) -> list[str]:
    return [n.weight(np.array([v]), np.int64) for v in (0, 1, 1)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("times", "factor"), [(9, 1e38), (2, 1e300), (40, 1e38), (1, 1e308)])
@pytest.mark.parametrize("kind", ["Relu", "Abs", "LeakyRelu"])
def test_a_gain_beyond_float64_behind_a_clip(kind: str, times: int, factor: float, method: str) -> None:
    network = gained(times, factor, kind)
    low, high = np.array([0.3]), np.array([0.7])
    bounds = compute_bounds(network, low, high, method, steps=3)
    if method != "fastlin":  # what Clip gives is known whatever it is given
        assert (bounds.output[0] >= -1e-6).all()
        assert (bounds.output[1] <= 1 + 1e-6).all()
    for y in range(2):  # both classes are reached: at 0.3 the first, at 0.6 the second
        assert margin_bounds(network, bounds, margin_rows(2, y))[0].min() <= 0
    x = torch.tensor([[0.3], [0.5], [0.55], [0.7]], dtype=torch.float64)
    y0, a = x[:, 0] / 2 + 0.25, torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    if kind == "Relu":
        assert_inside(bounds.output, torch.stack([y0, a], 1))
        assert_inside(margin_bounds(network, bounds, np.array([[1.0, -1.0]])), (y0 - a)[:, None])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1e38, 1e200])
def test_a_loss_and_a_gain_that_cancel(method: str, factor: float) -> None:
    """Values pass through 1e342 (1e-342) and come back: float64 has no coefficient for them, so nothing is proved of them."""
    for first, then in ((factor, 1 / factor), (1 / factor, factor)):
        n = Net(1, dtype=np.float64)
        h = n.node("Gemm", ["x", n.weight([[1.0, -1.0]]), n.weight([0.0, 0.5])])
        for value in (first, then):
            for _ in range(9):
                h = n.node("Mul", [h, n.weight(np.array(value))])
            h = n.node("Relu", [h])
        network = lower(load_model(n.model(h, 2)))
        bounds = compute_bounds(network, np.array([0.2]), np.array([0.4]), method, steps=2)
        x = torch.linspace(0.2, 0.4, 9, dtype=torch.float64)
        truth = torch.stack([x, 0.5 - x], 1)
        assert_inside(bounds.output, truth)
        assert_inside(margin_bounds(network, bounds, np.array([[1.0, -1.0]])), (truth[:, 0] - truth[:, 1])[:, None])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS))
def test_layers_near_the_ends_of_float64(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    make = random_dag if seed % 2 else random_model
    network = lower(load_model(make(seed, activations=ACTIVATIONS)))
    exponents: dict[str, int] = {}
    for group in groups(network):
        exponents |= dict.fromkeys(group, int(rng.choice([-1070, -1000, -500, 0, 500, 1000, 1023])))
    x0 = rng.random(network.input_shape)
    low, high = np.maximum(x0 - 0.1, 0), np.minimum(x0 + 0.1, 1)
    ordinary = sampled(network, low, high)
    while True:
        try:
            far = scaled(network, exponents)
            break
        except InexactError:  # a weight would be lost: not as far, then
            exponents = {name: int(e / 2) for name, e in exponents.items()}
    finite = all(np.isfinite(v).all() for op in far.ops for v in vars(op).values() if isinstance(v, np.ndarray))
    lossless = all(abs(e) < 1000 for e in exponents.values())
    bounds = compute_bounds(far, low, high, method, steps=2)
    if finite and lossless:
        values = {name: torch.ldexp(v, torch.tensor(exponents.get(name, 0))) for name, v in ordinary.items()}
        assert_sound(far, bounds, values)
    else:
        nothing = {name: torch.full_like(v, torch.nan) for name, v in ordinary.items()}
        assert_sound(far, bounds, nothing)


def broken(network: Network, rng: np.random.Generator) -> Network:
    """A network of which one weight is inf or NaN: overflow of whoever made it."""
    ops = [op for op in network.ops if getattr(op, "weight", None) is not None]
    op = ops[int(rng.integers(len(ops)))]
    weight = np.array(op.weight, dtype=np.float64)  # type: ignore[attr-defined]
    weight.reshape(-1)[int(rng.integers(weight.size))] = rng.choice([np.inf, -np.inf, np.nan, 1e300, -1e300])
    return network.replace({op.output: replace(op, weight=weight)})  # type: ignore[call-arg]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(METHODS))
@example(seed=1198, method="ibp")  # a logit at the anchor is no number
@example(seed=261, method="ibp")  # and one that is at the centre of the box
def test_a_weight_that_is_not_finite(seed: int, method: str) -> None:
    rng = np.random.default_rng(seed)
    network = broken(lower(load_model(random_model(seed, activations=ACTIVATIONS))), rng)
    x0 = rng.random(network.input_shape)
    low, high = np.maximum(x0 - 0.1, 0), np.minimum(x0 + 0.1, 1)
    assert_sound(network, compute_bounds(network, low, high, method, steps=2), sampled(network, low, high))
    logits = network.forward(torch.as_tensor(x0)[None])[0]
    label = int(logits.nan_to_num(0.0).argmax())
    assert not np.isnan(worst_margin_bound(network, (low, high), label, method))
    assert certified_radius(network, lambda r: SPACE.ball(x0, r), label, 1.0) >= 0.0
    if not torch.isfinite(logits).all():
        assert not keeps_its_pieces(network, network, (low, high), anchor=x0)


ENDS = [
    *[(-INF, INF), (-INF, 2.0), (-2.0, INF), (-1.0, INF), (1.0, INF), (-INF, -1.0)],
    *[(-1e308, 1e308), (-1e308, 1.0), (-1e-320, 1e308)],
]


@pytest.mark.parametrize("mode", ["fastlin", "crown", "alpha"])
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("kind", ["Relu", "LeakyRelu", "Abs", "Clip", "Low", "High", "Sigmoid", "Tanh"])
def test_lines_on_infinite_intervals(kind: str, ends: tuple[float, float], mode: str) -> None:
    n = Net(1)
    inputs = ["x"]
    if kind in ("Clip", "Low", "High"):
        inputs += ["" if kind == "Low" else n.weight(np.array(-0.5)), "" if kind == "High" else n.weight(np.array(0.6))]
    while not inputs[-1]:
        inputs.pop()
    y = n.node("Clip" if kind in ("Low", "High") else kind, inputs)
    (op,) = lower(load_model(n.model(n.gemm(y, 1, 2), 2))).activations
    l, u = (torch.tensor([[end]], dtype=torch.float64) for end in ends)
    alpha = torch.tensor([[0.4]], dtype=torch.float64) if mode == "alpha" and op.takes_alpha else None
    r = op.relax(l, u, "crown" if mode == "alpha" else mode, alpha)
    z = torch.tensor([-1e308, -1e200, -10.0, -1.0, -0.3, 0.0, 0.3, 1.0, 1.9, 50.0, 1e200, 1e308], dtype=torch.float64)
    z = z[(z >= l[0, 0]) & (z <= u[0, 0])]
    largest = max(abs(end) for end in ends if abs(end) < INF) if min(map(abs, ends)) < INF else 0.0
    y, room = op.forward(z), 1e-9 * z.abs() + 1e-9 + 1e-12 * largest
    for slope in (r.lower_slope, r.upper_slope):
        assert torch.isfinite(slope).all()
    for offset in (r.lower_offset, r.upper_offset):
        assert not torch.isnan(offset).any()
    assert (r.lower_slope[0] * z + r.lower_offset[0] <= y + room).all()
    assert (r.upper_slope[0] * z + r.upper_offset[0] >= y - room).all()
    a = torch.tensor([[[0.0], [1.0], [-1.0]]], dtype=torch.float64)
    for bias in (r.lower(a)[1], r.sized(a, (), torch.ones_like(l), both=False)[1]):
        assert bias[0, 0] == 0  # 0 inf is 0
        assert not torch.isnan(bias).any()


@pytest.mark.parametrize("pads", [0, 1])
def test_a_pool_over_infinite_intervals(pads: int) -> None:
    n = Net(1, 4, 4)
    pooled = n.node("MaxPool", ["x"], kernel_shape=[2, 2], strides=[2, 2], pads=[pads] * 4)
    network = lower(load_model(n.model(n.node("Flatten", [pooled]), 9 if pads else 4)))
    op = network.nonlinear[0]
    rng = np.random.default_rng(0)
    for _ in range(50):
        centre = torch.as_tensor(rng.normal(size=(1, 1, 4, 4)))
        l, u = centre - 0.5, centre + 0.5
        l[torch.as_tensor(rng.random(l.shape) < 0.3)] = -INF
        u[torch.as_tensor(rng.random(u.shape) < 0.2)] = INF
        r = op.relax(l, u, "crown")
        x = torch.minimum(torch.maximum(centre + 30 * torch.as_tensor(rng.normal(size=(20, 1, 4, 4))), l), u)
        y = op.forward(x).flatten(1)
        for sign in (1.0, -1.0):
            start = sign * torch.eye(y.shape[1], dtype=torch.float64).reshape(1, y.shape[1], *op.out_shape)
            a, bias = r.lower(start)
            assert a is not None
            assert torch.isfinite(a).all()
            assert not torch.isnan(bias).any()
            assert (sign * y >= x.flatten(1) @ a[0].flatten(1).T + bias[0] - 1e-9).all()


def test_settled_ends() -> None:
    nan = torch.nan
    low, high = settled(torch.tensor([nan, INF, -INF, 1.0]), torch.tensor([nan, -INF, INF, 2.0]))
    assert low.tolist() == [-INF, -INF, -INF, 1.0]
    assert high.tolist() == [INF, INF, INF, 2.0]


def test_a_finite_interval_survives_a_lost_line() -> None:
    # plain intervals are finite; the coefficients of the row overflow on the way back
    n = Net(1, dtype=np.float64)
    z = n.node("Gemm", ["x", n.weight([[1e-160, -1e-160]]), n.weight([0.0, 0.0])])
    h = n.node("Mul", [n.node("Relu", [z]), n.weight(1e-160)])
    h = n.node("Relu", [n.node("Mul", [n.node("Mul", [h, n.weight(1e160)]), n.weight(1e160)])])
    network = lower(load_model(n.model(h, 2)))
    low, high = np.array([-1.0]), np.array([1.0])
    for method in METHODS:
        bounds = compute_bounds(network, low, high, method, steps=2)
        assert_inside(bounds.output, torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    name = network.nonlinear[1].inputs[0]
    ends = [torch.as_tensor(end)[None] for end in (low, high)]
    found = linear_range(network, name, torch.arange(2), compute_bounds(network, low, high).relaxations, *ends)
    assert not torch.isnan(torch.stack(found)).any()


def test_half_spaces_that_are_not_finite_prove_nothing() -> None:
    a = torch.tensor([[[1.0, 2.0]]], dtype=torch.float64)
    b, k = torch.zeros((1, 1), dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    low, high = -torch.ones((1, 2), dtype=torch.float64), torch.ones((1, 2), dtype=torch.float64)
    for c in (torch.nan, INF, 0.0, 1e-320, 1e308):
        found = cut_minimum(a, b, torch.full((1, 2), c, dtype=torch.float64), k, low, high)
        assert found.item() <= 0.0  # the true minimum over x + y >= 0
        assert found.item() >= -3.0 - 1e-9
    assert cut_minimum(a * torch.nan, b, torch.ones((1, 2), dtype=torch.float64), k, low, high).item() == -INF
