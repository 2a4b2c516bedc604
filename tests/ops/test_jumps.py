"""What jumps, and Where with a condition that depends on the input: bounds of every execution, rows, spellings, whole graphs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from torch import Tensor

from onnxsub.errors import InputError
from onnxsub.lower import lower, lower_nodes
from onnxsub.model import load_model
from onnxsub.ops.either import Either
from onnxsub.ops.jump import Jump
from onnxsub.ops.relu import Relu
from onnxsub.passes.attack import AttackOptions
from onnxsub.passes.select import SelectOptions
from onnxsub.propagate import compute_bounds
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.quantised import with_room
from onnxsub.query import Query, make_query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from tests.ops.test_encode import encoded
from tests.ops.test_spelled import Graph
from tests.ops.tools import Case, nodes_of, normal, random, run

F32 = np.float32
SHAPE = (2, 3, 4)


def _jump(case: Case) -> Jump:
    (op,) = case.ops(case.opsets[-1])
    assert isinstance(op, Jump)
    return op


OPS = {
    "ThresholdedRelu": _jump(Case("ThresholdedRelu", (SHAPE,), {"alpha": 0.5})),
    "ThresholdedRelu -0.7": _jump(Case("ThresholdedRelu", (SHAPE,), {"alpha": -0.7})),
    "Sign": _jump(Case("Sign", (SHAPE,))),
    "Greater": _jump(Case("Greater", (SHAPE, random((3, 1))))),
    "LessOrEqual": _jump(Case("LessOrEqual", (SHAPE, random((4,))))),
    "Equal": _jump(Case("Equal", (SHAPE, np.array(0.3, F32)))),
}
_common = {"op_type": "Made", "node": "made", "inputs": ("x0",), "output": "y0", "in_shapes": (SHAPE,), "out_shape": SHAPE}
OPS["slopes"] = Jump(**_common, at=np.array(0.2), left=(-0.5, 1.0), right=(2.0, -1.0), on=-0.6, room=np.zeros(()))  # type: ignore[arg-type]
OPS |= {f"{name}, room": replace(op, room=np.array(0.05)) for name, op in OPS.items()}
ALL = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())
SCALES = (1e-6, 0.3, 3.0, 100.0)


def intervals(op: Jump, scale: float) -> tuple[Tensor, Tensor]:
    """Of all kinds `(60, *SHAPE)`: some end at the jump, or within the room beside it."""
    at, room = (torch.as_tensor(np.broadcast_to(v, SHAPE).copy()) for v in (op.at, op.room))
    a, b = (normal((60, *SHAPE), k) * scale + at for k in (1, 2))
    a[10:20], b[20:30] = at + (a[10:20] - at).abs(), at - (b[20:30] - at).abs()
    a[20:30] = at - (a[20:30] - at).abs()
    b[30:35] = a[30:35] + 1e-9
    b[35:40] = a[35:40]
    a[40:43], b[43:46] = at, at
    a[46:49], b[49:52] = at + room / 2, at - room / 2
    a[52], b[52] = at, at
    return torch.minimum(a, b), torch.maximum(a, b)


def executions(op: Jump, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Points of every interval, and what executions may give there: of either side, and at the threshold, within the room."""
    at, room = torch.as_tensor(op.at), torch.as_tensor(op.room)
    share = torch.linspace(0, 1, 31, dtype=lower.dtype).reshape(-1, *[1] * lower.dim())
    z = lower + share * (upper - lower)
    near = (-0.99999 * room, -1e-12, 0.0, 1e-12, 0.99999 * room)
    beside = [torch.minimum(torch.maximum(at + d + 0 * lower, lower), upper) for d in near]
    z = torch.cat([z, torch.stack(beside)]).clamp(min=lower, max=upper)
    found = [op.forward(z)]
    touched = (z - at).abs() <= room
    pieces = [slope * z + offset for slope, offset in (op.left, op.right)] + [torch.full_like(z, op.on)]
    found += [torch.where(touched, p, found[0]) for p in pieces]
    return torch.cat([z] * len(found)), torch.cat(found)


@ALL
@pytest.mark.parametrize("scale", SCALES)
def test_bounds_hold_for_every_execution(op: Jump, scale: float) -> None:
    lower, upper = intervals(op, scale)
    z, y = executions(op, lower, upper)
    low, high = op.interval((lower, upper))
    assert ((y >= low) & (y <= high)).all()
    size = 1e-12 * (1 + y.abs() + z.abs())
    alphas = (None, torch.zeros_like(lower), torch.ones_like(lower), torch.rand_like(lower))
    lines = [op.relax(lower, upper, "fastlin"), *(op.relax(lower, upper, "crown", a) for a in alphas)]
    assert lines[0].parallel
    stable = op.affine_on(lower, upper)
    for line in lines:
        room = size + 1e-15 * (line.lower_slope.abs() + line.upper_slope.abs()) * (1 + z.abs())
        assert (line.lower_slope * z + line.lower_offset <= y + room).all()
        assert (line.upper_slope * z + line.upper_offset >= y - room).all()
        assert (line.upper_offset == line.lower_offset)[stable].all()
        assert (line.upper_slope == line.lower_slope)[stable].all()
    slope, offset = normal(tuple(lower.shape), 5), normal(tuple(lower.shape), 6)
    slope[::3] = 0.0
    least, most = op.line_error(lower, upper, slope, offset)
    error = y - slope * z - offset
    assert ((error >= least - size) & (error <= most + size)).all()
    # and not by much more than what executions give
    torch.testing.assert_close(least, error.amin(0), rtol=1e-6, atol=0.15 * min(scale, 1.0) + 1e-9)
    torch.testing.assert_close(most, error.amax(0), rtol=1e-6, atol=0.15 * min(scale, 1.0) + 1e-9)


@ALL
def test_lines_are_edges_of_the_hull(op: Jump) -> None:
    """At the middle of an interval no line through two values of executions, one on either side, passes above the upper line by
    more than what corners that nearly meet are left out for."""
    lower, upper = intervals(op, 1.0)
    keep = ((upper - lower) > 0.1).flatten(1).all(1)
    lower, upper = lower[keep], upper[keep]
    z, y = executions(op, lower, upper)
    line, middle = op.relax(lower, upper, "crown"), (lower + upper) / 2
    top, bottom = (s * middle + o for s, o in ((line.upper_slope, line.upper_offset), (line.lower_slope, line.lower_offset)))
    chosen = torch.linspace(0, len(z) - 1, 60).long()
    best, least = torch.full_like(top, -math.inf), torch.full_like(top, math.inf)
    for i in chosen:
        for j in chosen:
            left, right = z[i] <= middle, z[j] >= middle
            gap = z[j] - z[i]
            over = left & right & (gap > 1e-3)
            height = y[i] + (y[j] - y[i]) / torch.where(over, gap, torch.ones_like(gap)) * (middle - z[i])
            best = torch.where(over, torch.maximum(best, height), best)
            least = torch.where(over, torch.minimum(least, height), least)
    assert (best <= top + 1e-9).all()
    assert (least >= bottom - 1e-9).all()
    gap = top - bottom
    assert (gap <= 1e-9)[op.affine_on(lower, upper)].all()


@ALL
def test_no_end_and_no_number_bound_nothing_wrongly(op: Jump) -> None:
    inf, one = math.inf, torch.ones((1, *SHAPE), dtype=torch.float64)
    for l, u in ((-inf, inf), (-inf, 0.1), (0.1, inf), (-1e300, 1e300), (0.0, 0.0), (-inf, -5.0), (5.0, inf)):
        lower, upper = l * one, u * one
        low, high = op.interval((lower, upper))
        z = one * min(max(0.1, l), u)
        y = op.forward(z)
        assert ((low <= y) & (y <= high)).all()
        for mode in ("fastlin", "crown"):
            line = op.relax(lower, upper, mode)
            assert line.lower_slope.isfinite().all()
            assert line.upper_slope.isfinite().all()
            assert (line.lower_slope * z + line.lower_offset <= y + 1e-12).all()
            assert (line.upper_slope * z + line.upper_offset >= y - 1e-12).all()
    assert not op.affine_on(math.nan * one, one).any()
    low, high = op.interval((math.nan * one, math.nan * one))
    for z in (-9.0, 9.0, torch.as_tensor(op.at)):
        y = op.forward(z * one)
        assert not ((low > y) | (high < y)).any()


@ALL
def test_splits_make_progress(op: Jump) -> None:
    lower, upper = intervals(op, 3.0)
    open_ = ~op.affine_on(lower, upper) & (upper - lower > 1.0)
    at = op.middle(lower, upper)
    assert ((at > lower) & (at < upper))[open_].all()
    assert (op.affine_on(lower, at) | op.affine_on(at, upper))[open_].all()


@ALL
def test_some_units_of_it(op: Jump) -> None:
    index = np.array([3, 17, 4, 23, 0])
    part = op.take(index, node="part", inputs=("a",), output="b")
    z = normal((7, *SHAPE)) * 3
    assert torch.equal(part.forward(z.reshape(7, -1)[:, index]), op.forward(z).reshape(7, -1)[:, index])
    lower, upper = intervals(op, 1.0)
    found = part.relax(*(t.reshape(60, -1)[:, index] for t in (lower, upper)), "crown")
    assert torch.equal(found.upper_offset, op.relax(lower, upper, "crown").upper_offset.reshape(60, -1)[:, index])


@ALL
def test_an_attack_feels_the_other_side(op: Jump) -> None:
    z = (torch.as_tensor(op.at) + torch.full((1, *SHAPE), -0.3, dtype=torch.float64)).requires_grad_()
    y = op.forward(z)
    assert torch.equal(y.detach(), op.forward(z.detach()))
    (gradient,) = torch.autograd.grad(y.sum(), z)
    away = (op.right[0] * op.at + op.right[1]) - (op.left[0] * op.at + op.left[1])
    assert gradient.isfinite().all()
    assert op.left[0] or (torch.sign(gradient) == torch.sign(torch.as_tensor(np.broadcast_to(away, SHAPE).copy()))).all()


@ALL
def test_a_line_may_be_turned(op: Jump) -> None:
    lower, upper = intervals(op, 1.0)
    alpha = torch.full_like(lower, 0.5).requires_grad_()
    lines = op.relax(lower, upper, "crown", alpha)
    (gradient,) = torch.autograd.grad((lines.lower_slope + lines.lower_offset).sum(), alpha)
    assert gradient.isfinite().all()
    assert (gradient[op.affine_on(lower, upper)] == 0).all()


@ALL
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_are_the_relation(op: Jump, seed: int) -> None:
    op = op.take(np.array([0, 5, 9, 23]), node="n", inputs=("x0",), output="y0")
    at = torch.as_tensor(op.at)
    ends = torch.sort(normal((2, 1, 4), seed) * 1.5 + at, dim=0).values
    box = ends[0], ends[1]
    low, high = op.interval(box)
    recorder, result = encoded(op, box, None)
    lines = op.relax(*box, "crown")
    for i in range(4):
        row = result.take(np.array([i]))
        assert recorder.optimum(row, 1)[0] == pytest.approx(float(low[0, i]), abs=1e-6)
        assert recorder.optimum(row, -1)[0] == pytest.approx(float(high[0, i]), abs=1e-6)
    x = box[0] + 0.37 * (box[1] - box[0])
    clear = ((x - at).abs() > 0.06)[0]
    fixed, value = encoded(op, box, x)
    for i in np.flatnonzero(clear.numpy()):
        row = value.take(np.array([i]))
        for sense in (1, -1):
            assert fixed.optimum(row, sense)[0] == pytest.approx(float(op.forward(x)[0, i]), abs=1e-6)
    loose, free = encoded(op, box, x)
    total = float((lines.upper_slope * x + lines.upper_offset).sum())
    assert loose.optimum(free, -1, integer=False)[0] <= total + 1e-6
    total = float((lines.lower_slope * x + lines.lower_offset).sum())
    assert loose.optimum(free, 1, integer=False)[0] >= total - 1e-6


def test_a_unit_without_ends_has_rows_too() -> None:
    op = OPS["Sign"].take(np.array([0, 1]), node="n", inputs=("x0",), output="y0")
    box = torch.tensor([[-math.inf, -1.0]]).double(), torch.tensor([[math.inf, 1.0]]).double()
    recorder, result = encoded(op, box, torch.tensor([[0.4, 0.4]]).double())
    assert recorder.optimum(result.take(np.array([1])), 1)[0] == pytest.approx(1.0)
    assert recorder.optimum(result.take(np.array([0])), 1)[0] == pytest.approx(-1.0)


def test_a_value_of_its_own_needs_constants() -> None:
    with pytest.raises(ValueError, match="constant pieces"):
        replace(OPS["slopes"], on=0.3)


# -- Where

EITHER = {
    "whole": Case("Where", (SHAPE, SHAPE, SHAPE), {}, (16,), truths=(0,)),
    "broadcast": Case("Where", ((2, 3, 1), (1, 3, 4), SHAPE), {}, (16,), truths=(0,)),
    "a constant": Case("Where", (SHAPE, random((3, 4)), SHAPE), {}, (16,), truths=(0,)),
}


def either(name: str) -> Either:
    op = EITHER[name].ops(16)[-1]
    assert isinstance(op, Either)
    return op


def boxes_of(op: Either, scale: float) -> tuple[Tensor, Tensor]:
    """Four boxes, of which truths are 0, 1 and either."""
    shape = (4, *op.in_shapes[0])
    centre, radius = normal(shape, 1) * 2, normal(shape, 2).abs() * scale
    radius[3].reshape(-1)[::3] = 0.0
    lower, upper = centre - radius, centre + radius
    size = math.prod(op.parts[0][1])
    kind = torch.arange(size) % 3
    lower[:, :size], upper[:, :size] = (kind == 1).double(), (kind != 0).double()
    return lower, upper


def within(op: Either, box: tuple[Tensor, Tensor], seed: int) -> Tensor:
    share = torch.rand(box[0].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = (box[0] + (share * 1.5 - 0.25).clamp(0, 1) * (box[1] - box[0])).clamp(min=box[0], max=box[1])
    size = math.prod(op.parts[0][1])
    x[:, :size] = torch.round(x[:, :size])
    return x


@pytest.mark.parametrize("name", EITHER)
@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 30.0])
def test_bounds_of_either_hold(name: str, scale: float) -> None:
    op = either(name)
    box = boxes_of(op, scale)
    low, high = op.interval(box)
    a = normal((4, 5, *op.out_shape), 9)
    relaxation = op.relax(*box, "crown")
    (below, least), (above, most) = relaxation.lower(a), relaxation.lower(-a)
    for k in range(60):
        x = within(op, box, k)
        y = op.forward(x)
        assert ((y >= low) & (y <= high)).all()
        value = (a * y.unsqueeze(1)).flatten(2).sum(-1)
        size = 1e-13 * (1 + (a * y.unsqueeze(1)).abs().flatten(2).sum(-1) + (below * x.unsqueeze(1)).abs().sum(-1))
        assert ((below * x.unsqueeze(1)).sum(-1) + least <= value + size).all()
        assert (-(above * x.unsqueeze(1)).sum(-1) - most >= value - size).all()
    if scale < 1e-5:  # where both branches are numbers the planes are exact
        gap = -(below + above).abs().max() - (least + most)
        assert (gap <= 1e-6).all()


@pytest.mark.parametrize("name", EITHER)
def test_rows_of_either(name: str) -> None:
    op = either(name)
    box = tuple(t[:1] for t in boxes_of(op, 1.0))
    x = within(op, (box[0], box[1]), 3)
    recorder, result = encoded(op, (box[0], box[1]), x)
    y = op.forward(x).reshape(-1).numpy()
    for sense in (1, -1):
        value, point = recorder.optimum(result, sense)
        np.testing.assert_allclose(result.widened(len(point)).matrix @ point + result.constant, y, atol=1e-6)
        assert value == pytest.approx(y.sum(), abs=1e-5)


@pytest.mark.parametrize("name", EITHER)
def test_what_splits_of_either_are_worth(name: str) -> None:
    op = either(name)
    lower, upper = boxes_of(op, 1.0)
    settled = op.affine_on(lower, upper)
    losses = op.losses(normal((4, *op.out_shape)), lower, upper)
    size = math.prod(op.parts[0][1])
    assert settled[:, :size].all()
    assert (losses[settled] == 0).all()
    assert (~settled).any()
    assert (losses >= 0).all()
    known = lower.clone()
    known[:, :size] = 1.0
    assert op.affine_on(torch.minimum(known, lower.where(torch.arange(lower.shape[1]) >= size, known)), upper.where(
        torch.arange(lower.shape[1]) >= size, known)).all()  # fmt: skip


@pytest.mark.parametrize("name", EITHER)
def test_slopes_of_either(name: str) -> None:
    op = either(name)
    box = tuple(t[:1] for t in boxes_of(op, 1.0))
    rows = normal((3, *op.out_shape), 1), torch.zeros((3, *op.out_shape), dtype=torch.float64)
    ((centre, radius),) = op.transpose_slopes(rows, (box[0], box[1]))
    for seed in range(50):
        x, other = (within(op, (box[0], box[1]), s) for s in (seed, seed + 1000))
        step = (x - other).expand_as(centre)
        moved = (rows[0] * (op.forward(x) - op.forward(other))).flatten(1).sum(1)
        middle, reach = (centre * step).sum(1), (radius * step.abs()).sum(1)
        assert ((moved - middle).abs() <= reach + 1e-12 * (1 + moved.abs())).all()


def test_an_end_that_is_missing_bounds_nothing() -> None:
    op = either("whole")
    lower, upper = (t[:1].clone() for t in boxes_of(op, 1.0))
    lower[0, 24:48] = -math.inf
    rows = torch.eye(24, dtype=torch.float64).reshape(1, 24, *SHAPE)
    low = op.relax(lower, upper, "crown").lower(rows)[1][0]
    either_side = lower[0, :24] < upper[0, :24]
    assert (low[either_side] == -math.inf).all()
    assert low[~either_side].isfinite().all()
    least = op.interval((lower, upper))[0].reshape(-1)
    assert (least[upper[0, :24] == 1] == -math.inf).all()


# -- spellings


def relu(g: Graph) -> str:
    return g("Where", g("Greater", "x", 0.0), "x", 0.0)


def relu_of_a_product(g: Graph) -> str:
    return g("Mul", "x", g("Cast", g("GreaterOrEqual", "x", 0.0), to=TensorProto.FLOAT))


def leaky(g: Graph) -> str:
    return g("Where", g("Less", "x", 0.0), g("Mul", "x", 0.1), "x")


def magnitude(g: Graph) -> str:
    return g("Where", g("LessOrEqual", 0.0, "x"), "x", g("Neg", "x"))


def above_half(g: Graph) -> str:
    return g("Where", g("Less", "x", 0.5), 0.5, "x")


def below_six(g: Graph) -> str:
    return g("Where", g("Greater", g("Sub", "x", 0.6), 0.0), 0.6, "x")


def thresholded(g: Graph) -> str:
    return g("Mul", g("Cast", g("Greater", "x", 0.4), to=TensorProto.FLOAT), "x")


def thresholded_where(g: Graph) -> str:
    return g("Where", g("LessOrEqual", "x", 0.4), 0.0, "x")


SPELLED = {
    relu: "Relu", relu_of_a_product: "Relu", leaky: "Leaky", magnitude: "Leaky", above_half: "Clip", below_six: "Clip",
    thresholded: "Jump", thresholded_where: "Jump",
}  # fmt: skip


def relu_of_a_view(g: Graph) -> str:
    return g("Where", g("Less", g("Neg", g("Identity", "x")), 0.0), "x", 0.0)


def above_six_mirrored(g: Graph) -> str:
    return g("Where", g("Greater", 0.0, g("Sub", 0.6, "x")), "x", 0.6)


SPELLED |= {relu_of_a_view: "Relu", above_six_mirrored: "Clip"}


def points(count: int = 40) -> np.ndarray:
    """One sample each, thresholds among the numbers."""
    x = np.random.default_rng(5).normal(size=(count, 1, 3, 5)).astype(F32)
    x[:3, 0, 0, :4] = [0.0, 0.4, 0.5, 0.6]
    return x


@pytest.mark.parametrize("spell", SPELLED, ids=lambda f: f.__name__)
def test_functions_of_two_pieces_are_recognised(spell: Callable[[Graph], str]) -> None:
    g = Graph()
    model = g.model(spell(g))
    network = lower_nodes(nodes_of(model), "x", (3, 5), "y")
    assert [type(op).__name__ for op in network.activations] == [SPELLED[spell]]
    assert not network.activations[0].inner
    for x in points(5):
        (want,) = run(model, {"x": x})
        np.testing.assert_array_equal(network.values(torch.from_numpy(x).double())["y"].numpy().astype(F32), want)


def shifted(g: Graph) -> str:
    """At 0.025 the sum is 1e6 in float32."""
    return g("Where", g("Greater", g("Add", "x", 1e6), 1e6), "x", 0.0)


def shifted_mirrored(g: Graph) -> str:
    return g("Where", g("LessOrEqual", 1e6, g("Sub", 1e6, "x")), 0.0, "x")


def shifted_gate(g: Graph) -> str:
    return g("Mul", "x", g("Cast", g("Less", 1e6, g("Add", 1e6, "x")), to=TensorProto.FLOAT))


def shifted_and_back(g: Graph) -> str:
    """In real numbers x is tested."""
    return g("Where", g("Greater", g("Sub", g("Add", "x", 1e6), 1e6), 0.0), "x", 0.0)


def shifted_both(g: Graph) -> str:
    return g("Where", g("Greater", g("Add", "x", 1e6), g("Add", g("Mul", "x", 0.0), 1e6)), "x", 0.0)


def shifted_scaled(g: Graph) -> str:
    return g("Where", g("Greater", g("Mul", g("Add", "x", 1e6), 2.0), 2e6), "x", 0.0)


def scaled_to_nothing(g: Graph) -> str:
    """The product is less than float32 has numbers for, and 0."""
    return g("Where", g("Greater", g("Mul", g("Mul", "x", 1e-30), 1e-30), 0.0), "x", 0.0)


def scaled(g: Graph) -> str:
    return g("Where", g("Greater", g("Mul", "x", 2.0), 0.0), "x", 0.0)


ROUNDED = (shifted, shifted_mirrored, shifted_gate, shifted_and_back, shifted_both, shifted_scaled, scaled_to_nothing)


@pytest.mark.parametrize("spell", [*ROUNDED, scaled], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("centre", "eps"), [(0.025, 0.005), (-0.01, 0.005), (0.04, 0.02), (0.0, 0.1)])
def test_bounds_have_room_for_a_test_that_float32_rounds(spell: Callable[[Graph], str], centre: float, eps: float) -> None:
    """All are `max(x, 0)` in real numbers, and only `scaled` is in float32."""
    g = Graph()
    model = g.model(spell(g), last="Flatten")
    network = with_room(lower(load_model(model)), -1.0, 1.0)
    assert not [op for op in network.ops if isinstance(op, Relu)]
    low, high = np.full((3, 5), centre - eps, F32), np.full((3, 5), centre + eps, F32)
    x = np.linspace(low, high, 21, dtype=F32).clip(low, high)
    outputs = np.concatenate([run(model, {"x": sample[None]})[0].reshape(1, -1) for sample in x])
    if spell is not scaled and centre == 0.025:
        assert (outputs == 0).all()
    for method in ("ibp", "fastlin", "crown"):
        least, most = (t.numpy() for t in compute_bounds(network, low.astype(np.float64), high.astype(np.float64), method).output)
        assert ((outputs >= least - 1e-9) & (outputs <= most + 1e-9)).all(), method


def jumps_elsewhere(g: Graph) -> str:
    return g("Where", g("Greater", "x", 0.5), "x", 0.1)


def jumps_behind_a_sum(g: Graph) -> str:
    """Float32 rounds the sum that is asked about: the jump is not where x passes 0.4."""
    return g("Where", g("Greater", g("Add", "x", 0.1), 0.5), "x", 0.0)


def has_its_threshold(g: Graph) -> str:
    return g("Where", g("GreaterOrEqual", "x", 0.4), "x", 0.0)


def of_two_tensors(g: Graph) -> str:
    return g("Where", g("Greater", "x", g("Sigmoid", "x")), g("Tanh", "x"), g("Mul", "x", "x"))


def both_tests(g: Graph) -> str:
    inside = g("And", g("Greater", "x", -0.4), g("Not", g("Greater", "x", 0.6)))
    return g("Where", inside, g("Mul", "x", 3.0), g("Sub", "x", 1.0))


def either_test(g: Graph) -> str:
    outside = g("Or", g("Less", "x", -0.4), g("Xor", g("LessOrEqual", "x", 0.6), g("Equal", "x", 0.5)))
    return g("Add", g("Cast", outside, to=TensorProto.FLOAT), g("Sign", "x"))


def counted(g: Graph) -> str:
    """How many elements of a row are above a number, as a feature."""
    return g("Mul", "x", g("ReduceMean", g("Cast", g("Greater", "x", 0.3), to=TensorProto.FLOAT), g.integers(2)))


GENERAL = [jumps_elsewhere, jumps_behind_a_sum, has_its_threshold, of_two_tensors, both_tests, either_test, counted]


def classifier(spell: Callable[[Graph], str]) -> ModelProto:
    """The spelling behind a dense layer, and another one behind it."""
    g = Graph()
    g.tensor("w", random((5, 5), 1, 0.6))
    g.tensor("v", random((15, 3), 2))
    before = g("MatMul", "x", "w")
    rename = {"x": before}
    first = len(g.nodes)
    out = spell(g)
    for node in g.nodes[first:]:
        node.input[:] = [rename.get(n, n) for n in node.input]
    out = g("MatMul", g("Flatten", rename.get(out, out)), "v")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *s]) for n, s in (("x", (3, 5)), (out, (3,)))]
    graph = helper.make_graph(g.nodes, "g", ends[:1], ends[1:], g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("spell", [*GENERAL, *SPELLED], ids=lambda f: f.__name__)
@pytest.mark.parametrize("eps", [1e-3, 0.1, 1.0])
def test_graphs_with_jumps(spell: Callable[[Graph], str], eps: float) -> None:
    """Values are onnxruntime's, also with numbers on both sides; every bound holds at every execution."""
    model = classifier(spell)
    network = with_room(lower(load_model(model)), -1.0, 1.0)
    rng = np.random.default_rng(3)
    x0 = rng.uniform(-1, 1, (3, 5)).astype(F32)
    low, high = np.clip(x0 - eps, -1, 1), np.clip(x0 + eps, -1, 1)
    x = np.clip((low + (high - low) * rng.uniform(-0.5, 1.5, (200, 3, 5))).astype(F32), low, high)
    (want,) = run(model, {"x": x})
    values = network.values(torch.from_numpy(x.astype(np.float64)))
    got = values[network.output].numpy()
    near = np.isclose(got, want, rtol=1e-4, atol=1e-4).all(1)
    assert near.mean() > 0.95  # float32 may take the other side of a jump now and then
    for method in ("ibp", "fastlin", "crown"):
        bounds = compute_bounds(network, low.astype(np.float64), high.astype(np.float64), method)
        for op in network.nonlinear:
            least, most = bounds.pre[op.output]
            z = values[op.inputs[0]]
            assert ((z >= least - 1e-12) & (z <= most + 1e-12)).all(), (method, op.op_type)
        least, most = (t.numpy() for t in bounds.output)
        for f in (got, want):
            assert ((f >= least - 1e-5) & (f <= most + 1e-5)).all(), method


def test_the_room_of_a_jump_is_what_float32_rounds() -> None:
    network = with_room(lower(load_model(classifier(has_its_threshold))), -1.0, 1.0)
    (jump,) = [op for op in network.ops if isinstance(op, Jump)]
    assert jump.room.shape == (3, 5)
    assert (jump.room > 0).all()
    assert (jump.room < 1e-5).all()


def two_queried(kind: str, seed: int) -> Query:
    """Two features, six units that jump, five Relus, two classes, and an anchor."""
    rng = np.random.default_rng(seed)
    g = Graph()
    for name, shape in (("A", (2, 6)), ("a", (6,)), ("B", (6, 5)), ("b", (5,)), ("C", (5, 2)), ("c", (2,))):
        g.tensor(name, rng.normal(size=shape).astype(F32))
    h = g("Gemm", "x", "A", "a")
    jumps = g(kind, h, alpha=0.3) if kind == "ThresholdedRelu" else g(kind, h)
    out = g("Gemm", g("Relu", g("Gemm", jumps, "B", "b")), "C", "c")
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2]) for n in ("x", out)]
    graph = helper.make_graph(g.nodes, "g", ends[:1], ends[1:], g.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    return make_query(load_model(model), rng.random(2).astype(F32))


@pytest.mark.parametrize(("kind", "seed"), [("ThresholdedRelu", 8), ("Sign", 9)])
@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_brackets_hold_the_distance(kind: str, seed: int, verifier: str) -> None:
    """Against a grid of onnxruntime's own answers, 1/500 apart."""
    query = two_queried(kind, seed)
    found = distance(query, DistanceOptions(verifier=verifier, limits=Limits(timeout=2)))
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 501)] * 2), -1).reshape(-1, 2).astype(F32)
    other = run(query.model.source, {"x": grid})[0].argmax(1) != query.label
    nearest = float(np.abs(grid - query.x0).max(1)[other].min())
    assert 0 < found.lower <= nearest + 1e-6
    assert found.upper >= nearest - 1 / 500 - 1e-6
    assert kind == "Sign" or found.status == "exact"


@pytest.mark.parametrize("layout", ["inplace", "compact"])
@pytest.mark.parametrize("method", ["lin", "con"])
@pytest.mark.parametrize("kind", ["ThresholdedRelu", "Sign"])
def test_layouts_of_units_that_jump(kind: str, method: str, layout: str) -> None:
    query = two_queried(kind, 8 if kind == "ThresholdedRelu" else 9)
    attack = AttackOptions(steps=20, restarts=4, rounds=1, threads=1)
    found = prune(query, PruneOptions(method, SelectOptions(gamma=0.6), layout, attack=attack))
    assert found.preserves["x0"] <= 1e-4
    pruned = found.substitute.network
    points = np.random.default_rng(0).random((20, 2)).astype(F32)
    with torch.no_grad():
        want = pruned.forward(torch.from_numpy(points.astype(np.float64))).numpy()
    np.testing.assert_allclose(run(found.proto, {found.proto.graph.input[0].name: points})[0], want, rtol=1e-4, atol=1e-4)


def test_the_tangent_of_a_jump_is_not_offered() -> None:
    with pytest.raises(InputError, match=r"Sign .* is not: use lin or con"):
        prune(two_queried("Sign", 9), PruneOptions("act", SelectOptions(gamma=0.6), "compact"))
