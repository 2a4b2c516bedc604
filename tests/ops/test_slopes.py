"""The range of an operator's difference quotients on an interval: nothing lies outside, nothing smaller would do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from onnxsub.ops.base import Activation, Affine
from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.substituted import Substituted
from tests.ops.cases import CASES
from tests.ops.made import MADE
from tests.ops.test_activations import OPS, SCALES, SHAPE, intervals, samples
from tests.ops.tools import Case, boxes, inside, normal

UNITS = OPS | {name: op for name, op in MADE.items() if isinstance(op, Activation)}
ALL = pytest.mark.parametrize("op", UNITS.values(), ids=UNITS.keys())


def quotients(op: Activation, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(s(a) - s(b)) / (a - b)` for neighbours of `(S, B, *shape)` sorted points, what it may round by, and where a != b."""
    y = op.forward(z.flatten(0, 1)).reshape(z.shape)
    gap = z[1:] - z[:-1]
    apart = gap > 1e-7 * (1 + z[1:].abs())
    size = 1 + torch.maximum(y[1:].abs(), y[:-1].abs()) + torch.maximum(z[1:].abs(), z[:-1].abs())
    safe = torch.where(apart, gap, torch.ones_like(gap))
    return (y[1:] - y[:-1]) / safe, 1e-14 * size / safe, apart


@ALL
@pytest.mark.parametrize("scale", SCALES)
def test_no_quotient_lies_outside(op: Activation, scale: float) -> None:
    lower, upper = intervals(scale)
    low, high = op.slopes(lower, upper)
    assert low.shape == high.shape == lower.shape
    assert (low <= high).all()
    found, rounding, apart = quotients(op, samples(lower, upper).sort(0).values)
    assert (found >= low - rounding)[apart].all()
    assert (found <= high + rounding)[apart].all()


@ALL
def test_both_ends_are_attained(op: Activation) -> None:
    lower, upper = intervals(1.0)
    low, high = op.slopes(lower, upper)
    dense = lower + torch.linspace(0, 1, 801, dtype=lower.dtype).reshape(-1, *[1] * lower.dim()) * (upper - lower)
    kinks = [k.clamp(min=lower, max=upper) for k in op.kinks(lower)]
    found, _, apart = quotients(op, torch.cat([dense, torch.stack(kinks)]).sort(0).values if kinks else dense)
    wide = upper - lower > 1e-3
    for kink in op.kinks(lower):  # pieces too thin for a quotient
        wide &= ~((kink - lower).abs() < 1e-6) & ~((upper - kink).abs() < 1e-6) | (kink == lower) | (kink == upper)
    least = found.masked_fill(~apart, math.inf).amin(0)[wide]
    most = found.masked_fill(~apart, -math.inf).amax(0)[wide]
    # 800 steps of an interval of up to six units, slopes of slopes up to 2: attained to 1e-2
    torch.testing.assert_close(low[wide], least, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(high[wide], most, rtol=1e-2, atol=1e-2)
    if op.piecewise_linear:
        torch.testing.assert_close(low[wide], least, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(high[wide], most, rtol=1e-6, atol=1e-6)


@ALL
def test_units_that_are_affine_have_one_slope(op: Activation) -> None:
    lower, upper = intervals(3.0)
    low, high = op.slopes(lower, upper)
    if op.piecewise_linear:
        assert ((low == high) == op.affine_on(lower, upper))[lower < upper].all()
    else:
        stable = op.affine_on(lower, upper)
        assert (high - low)[stable].max() <= 1e-12 * (1 + high[stable].abs().max())
    point, slope = lower, op.tangent(lower)[0]
    low, high = op.slopes(point, point)
    off_kinks = torch.stack([torch.ones_like(point, dtype=torch.bool), *(k != point for k in op.kinks(point))]).all(0)
    torch.testing.assert_close(low[off_kinks], slope[off_kinks], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(high[off_kinks], slope[off_kinks], rtol=1e-12, atol=1e-12)


@ALL
def test_what_is_no_interval_narrows_nothing(op: Activation) -> None:
    """An end that is no number, or ends in the wrong order: all slopes, or no numbers. Neither proves anything."""
    one, nan = torch.ones((1, *SHAPE), dtype=torch.float64), torch.full((1, *SHAPE), math.nan, dtype=torch.float64)
    wide = op.slopes(-1e3 * one, 1e3 * one)
    for lower, upper in ((nan, nan), (nan, -one), (one, nan), (one, -one), (2 * one, one)):
        low, high = op.slopes(lower, upper)
        assert (low.isnan() | (low <= wide[0])).all()
        assert (high.isnan() | (high >= wide[1])).all()


@ALL
def test_an_unbounded_interval_has_all_slopes(op: Activation) -> None:
    far = torch.full((1, *SHAPE), math.inf, dtype=torch.float64)
    near = op.slopes(-torch.full_like(far, 1e6), torch.full_like(far, 1e6))
    low, high = op.slopes(-far, far)
    assert (low <= near[0]).all()
    assert (high >= near[1]).all()


def test_a_substituted_unit_has_the_slope_of_its_line() -> None:
    op = OPS["Tanh, substituted"]
    assert isinstance(op, Substituted)
    low, high = op.slopes(*intervals(1.0))
    lines = torch.as_tensor(op.slope)[~torch.as_tensor(op.kept)]
    assert torch.equal(low[:, ~op.kept], lines.expand(60, -1))
    assert torch.equal(high[:, ~op.kept], lines.expand(60, -1))


def contains(rows: tuple[Tensor, Tensor], value: Tensor) -> bool:
    centre, radius = rows
    return bool(((value - centre).abs() <= radius + 1e-12 * (1 + value.abs())).all())


AFFINE = [(str(case), op) for case in CASES for op in case.ops(case.opsets[-1]) if isinstance(op, Affine)]


@pytest.mark.parametrize("op", [op for _, op in AFFINE], ids=[name for name, _ in AFFINE])
def test_rows_through_an_affine_operator(op: Affine) -> None:
    centre, radius = normal((4, *op.out_shape), 1), normal((4, *op.out_shape), 2).abs()
    found = op.transpose_slopes((centre, radius))
    assert len(found) == len(op.inputs)
    for seed in range(5):
        share = torch.rand(centre.shape, generator=torch.Generator().manual_seed(seed), dtype=centre.dtype) * 2 - 1
        for rows, value in zip(found, op.transpose(centre + share.sign() * radius), strict=True):
            assert contains(rows, value)


POOLS = [(str(case), op) for case in CASES for op in case.ops(case.opsets[-1]) if isinstance(op, MaxPool)]


@pytest.mark.parametrize("op", [op for _, op in POOLS], ids=[name for name, _ in POOLS])
def test_rows_through_a_maximum(op: MaxPool) -> None:
    """`a . (y - y')` lies in what the rows allow for `x - x'`, for pairs of points of the box."""
    (box,) = boxes(op, batch=1, seed=4)
    rows = normal((3, *op.out_shape), 1), torch.zeros((3, *op.out_shape), dtype=torch.float64)
    ((centre, radius),) = op.transpose_slopes(rows, box)
    decided = 0
    for seed in range(50):
        x, other = inside(box, seed), inside(box, seed + 1000)
        step = (x - other).expand_as(centre)
        moved = (rows[0] * (op.forward(x) - op.forward(other))).flatten(1).sum(1)
        middle, reach = (centre * step).flatten(1).sum(1), (radius * step.abs()).flatten(1).sum(1)
        assert ((moved - middle).abs() <= reach + 1e-12 * (1 + moved.abs())).all()
    decided += int((radius < 1e-9).sum())
    assert decided > 0


def test_a_maximum_of_what_is_no_number_has_all_slopes() -> None:
    op = Case("MaxPool", ((1, 2, 2),), {"kernel_shape": [2, 2]}).op1()
    assert isinstance(op, MaxPool)
    low, high = (torch.tensor([v], dtype=torch.float64).reshape(1, 1, 2, 2) for v in ([0.0, 0, 0, math.nan], [0.5, 9, 1, math.nan]))
    one = torch.ones((1, *op.out_shape), dtype=torch.float64)
    ((centre, radius),) = op.transpose_slopes((one, torch.zeros_like(one)), (low, high))
    assert ((centre - radius).isnan() | (centre - radius <= 0)).all()
    assert ((centre + radius).isnan() | (centre + radius >= 1)).all()


@pytest.mark.parametrize(("op", "opset"), [
    ("Gelu", 20), ("Mish", 18), ("HardSwish", 14), ("Swish", 24), ("Elu", 7), ("Selu", 7), ("Celu", 12), ("Softplus", 7),
    ("Softsign", 7), ("Sigmoid", 7), ("Tanh", 7), ("Erf", 13),
])  # fmt: skip
def test_an_interval_without_an_end_has_the_slopes_of_its_limit(op: str, opset: int) -> None:
    """From a number far out to infinity the slope is what it is there, to 1e-5; Softsign gets there slowly."""
    function = Case(op, ((1,),), opsets=(opset,)).op1()
    assert isinstance(function, Activation)
    inf, far = torch.full((1, 1), math.inf, dtype=torch.float64), torch.full((1, 1), 1e4, dtype=torch.float64)
    for ends, near in (((far, inf), far), ((-inf, -far), -far)):
        low, high = function.slopes(*ends)
        at_low, at_high = function.slopes(near, near)
        assert low.isfinite().all()
        assert high.isfinite().all()
        assert (high - low <= 1e-5).all()
        assert ((low <= at_low + 1e-12) & (high >= at_high - 1e-12)).all()
    low, high = function.slopes(-inf, inf)
    assert (high - low <= 2.01).all()  # of HardSwish, whose slopes are the farthest apart
