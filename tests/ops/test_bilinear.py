"""Products, sums of exponentials and functions with a domain: planes and intervals against samples, also without ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onnxsub.ops.base import Nonlinear
from onnxsub.ops.bilinear import Bilinear
from onnxsub.ops.logsumexp import LogSumExp
from onnxsub.ops.normalised import Normalised
from onnxsub.ops.partial import Log, Partial, Power, Reciprocal
from onnxsub.ops.steps import InversePower, Root
from tests.ops.cases import CASES
from tests.ops.tools import inside, normal

OPS = [
    pytest.param(op, id=f"{case}#{i}")
    for case in CASES for i, op in enumerate(case.ops(case.opsets[-1]))
    if isinstance(op, Bilinear | LogSumExp) and not isinstance(op, Normalised)  # whose factors are not free: test_normalised.py
]  # fmt: skip
ALL = pytest.mark.parametrize("op", OPS)
SCALES = pytest.mark.parametrize("scale", [1e-9, 1e-3, 1.0, 30.0])


def boxes_of(op: Nonlinear, scale: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Four boxes: around random centres, around 0, one-sided, and with every third element a point."""
    shape = (4, *op.in_shapes[0])
    centre, radius = normal(shape, seed) * 2, normal(shape, seed + 1).abs() * scale
    centre[1] = 0.0
    centre[2] = centre[2].abs() + radius[2]
    flat = radius[3].reshape(-1)
    flat[::3] = 0.0
    return centre - radius, centre + radius


@ALL
@SCALES
def test_intervals_hold_and_are_attained(op: Nonlinear, scale: float) -> None:
    lower, upper = boxes_of(op, scale)
    low, high = op.interval((lower, upper))
    assert low.shape == high.shape == (4, *op.out_shape)
    found = torch.stack([op.forward(inside((lower, upper), k)) for k in range(60)])
    assert (found >= low).all()
    assert (found <= high).all()
    if isinstance(op, LogSumExp):
        ends = torch.stack([op.forward(lower), op.forward(upper)])
        torch.testing.assert_close(low, ends[0], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(high, ends[1], rtol=1e-11, atol=1e-11)


@ALL
@SCALES
def test_planes_hold(op: Nonlinear, scale: float) -> None:
    lower, upper = boxes_of(op, scale)
    a = normal((4, 5, *op.out_shape), 9)
    for mode in ("fastlin", "crown"):
        relaxation = op.relax(lower, upper, mode)
        below, low = relaxation.lower(a)
        above, high = relaxation.lower(-a)
        assert below.shape == (4, 5, *op.in_shapes[0])
        for k in range(60):
            x = inside((lower, upper), k)
            value = (a * op.forward(x).unsqueeze(1)).flatten(2).sum(-1)
            sizes = ((a * op.forward(x).unsqueeze(1)), below * x.unsqueeze(1))
            size = 1e-13 * (1 + sum(s.abs().flatten(2).sum(-1) for s in sizes))
            assert ((below * x.unsqueeze(1)).flatten(2).sum(-1) + low <= value + size).all()
            assert (-(above * x.unsqueeze(1)).flatten(2).sum(-1) - high >= value - size).all()


@ALL
def test_the_gap_shrinks_with_the_square_of_the_width(op: Nonlinear) -> None:
    centre = normal((1, *op.in_shapes[0]), 3)
    a = normal((1, 4, *op.out_shape), 9)
    gaps = []
    for width in (1e-1, 1e-2, 1e-3):
        relaxation = op.relax(centre - width, centre + width, "crown")
        (below, low), (above, high) = relaxation.lower(a), relaxation.lower(-a)
        at = [((c * centre.unsqueeze(1)).flatten(2).sum(-1) + b) for c, b in ((below, low), (above, high))]
        gaps.append(float(-(at[0] + at[1]).min()))
    terms = a.numel()
    for width, gap in zip((1e-1, 1e-2, 1e-3), gaps, strict=True):
        assert -1e-9 <= gap <= 10 * terms * width**2 + 1e-10


@ALL
def test_one_relaxation_serves_many_domains(op: Nonlinear) -> None:
    lower, upper = (t[:1] for t in boxes_of(op, 1.0))
    a = normal((3, 2, *op.out_shape))
    many = op.relax(lower, upper, "crown").lower(a)
    each = [op.relax(lower, upper, "crown").lower(part[None]) for part in a]
    torch.testing.assert_close(many[0], torch.cat([e[0] for e in each]))
    torch.testing.assert_close(many[1], torch.cat([e[1] for e in each]))


@ALL
@pytest.mark.parametrize("which", ["upper", "lower", "both", "nan"])
def test_an_element_without_an_end_bounds_nothing_that_reads_it(op: Nonlinear, which: str) -> None:
    lower, upper = (t[:1].clone() for t in boxes_of(op, 1.0))
    end = math.nan if which == "nan" else math.inf
    if which in ("upper", "both", "nan"):
        upper.reshape(-1)[0] = end
    if which in ("lower", "both"):
        lower.reshape(-1)[0] = -end
    low, high = op.interval((lower, upper))
    rows = torch.eye(op.out_size, dtype=torch.float64).reshape(1, op.out_size, *op.out_shape)
    relaxation = op.relax(lower, upper, "crown")
    (below, bias), (above, other) = relaxation.lower(rows), relaxation.lower(-rows)
    for value in (0.0, 1e3, 1e9):
        x = (lower.nan_to_num(0, 0, 0) + upper.nan_to_num(0, 0, 0)) / 2
        x.reshape(-1)[0] = value if which in ("upper", "nan") else -value
        at = float(x.reshape(-1)[0])
        if at < float(lower.reshape(-1)[0]) or at > float(upper.reshape(-1)[0]):
            continue
        y = op.forward(x)
        # NaN claims nothing
        assert not (y < low - 1e-9 * (1 + y.abs())).any()
        assert not (y > high + 1e-9 * (1 + y.abs())).any()
        flat = y.flatten(1)
        under = torch.where(below == 0, torch.zeros_like(below), below * x.unsqueeze(1)).flatten(2).sum(-1) + bias
        over = -torch.where(above == 0, torch.zeros_like(above), above * x.unsqueeze(1)).flatten(2).sum(-1) - other
        assert not (flat < under - 1e-9 * (1 + flat.abs())).any()
        assert not (flat > over + 1e-9 * (1 + flat.abs())).any()


@ALL
@SCALES
def test_rows_of_slopes(op: Nonlinear, scale: float) -> None:
    """`a . (y - y')` lies in what the rows allow for `x - x'`, for pairs of points of the box."""
    lower, upper = (t[:1] for t in boxes_of(op, scale))
    rows = normal((3, *op.out_shape), 1), normal((3, *op.out_shape), 2).abs() * 0.1
    ((centre, radius),) = op.transpose_slopes(rows, (lower, upper))
    for seed in range(40):
        x, other = inside((lower, upper), seed), inside((lower, upper), seed + 1000)
        share = torch.rand(rows[0].shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
        step = (x - other).expand_as(centre)
        moved = ((rows[0] + share * rows[1]) * (op.forward(x) - op.forward(other))).flatten(1).sum(1)
        middle, reach = (centre * step).flatten(1).sum(1), (radius * step.abs()).flatten(1).sum(1)
        assert ((moved - middle).abs() <= reach + 1e-12 * (1 + moved.abs())).all()


SHAPE = {"op_type": "T", "node": "t", "inputs": ("z",), "output": "y", "in_shapes": ((7,),), "out_shape": (7,)}
PARTIAL: list[Partial | Root | InversePower] = [
    Log(**SHAPE), Power(**SHAPE), Power(**SHAPE, exponent=1.5), Power(**SHAPE, exponent=0.3), Reciprocal(**SHAPE), Root(**SHAPE),
    InversePower(**SHAPE, power=0.5, shift=1e-5), InversePower(**SHAPE, power=1.0, shift=2.0**-126),
]  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("op", PARTIAL, ids=lambda op: f"{type(op).__name__}")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_within_their_domain(op: Partial, dtype: torch.dtype) -> None:
    low = torch.tensor([[1e-6, 1e-3, 0.1, 0.5, 1.0, 5.0, 100.0]], dtype=dtype)
    for factor in (1 + 1e-6, 1.1, 3.0, 1e3):
        for lower, upper in ((low, low * factor), *(((-low * factor, -low),) if isinstance(op, Reciprocal) else ())):
            share = torch.linspace(0, 1, 201, dtype=dtype).reshape(-1, 1)
            z = (lower + share * (upper - lower)).clamp(min=lower, max=upper)
            y = op.forward(z.double())
            least, most = op.interval((lower, upper))
            assert (y >= least).all()
            assert (y <= most).all()
            eps = torch.finfo(dtype).eps
            room = float(100 * eps * y.abs().max())
            torch.testing.assert_close(least, y.amin(0, keepdim=True).to(dtype), rtol=100 * eps, atol=room)
            for mode in ("fastlin", "crown"):
                lines = op.relax(lower, upper, mode)
                pairs = ((lines.lower_slope, lines.lower_offset), (lines.upper_slope, lines.upper_offset))
                for (slope, offset), sign in zip(pairs, (1, -1), strict=True):
                    line = slope.double() * z.double() + offset.double()
                    assert (sign * (y - line) >= -1e-13 * (1 + y.abs() + (slope * z).abs())).all()
                gap = (lines.upper_slope - lines.lower_slope) * z + lines.upper_offset - lines.lower_offset
                assert (gap <= 2 * (most - least) + 100 * eps * (1 + y.abs().amax(0))).all()


@pytest.mark.parametrize("op", [p for p in PARTIAL if isinstance(p, Partial)], ids=lambda op: f"{type(op).__name__}")
def test_nothing_is_claimed_outside_the_domain(op: Partial) -> None:
    lower = torch.tensor([[-1.0, -1e-30, -math.inf, math.nan, 2.0, -5.0, -0.5]], dtype=torch.float64)
    upper = torch.tensor([[1.0, 5.0, math.inf, 3.0, math.nan, math.inf, 0.0]], dtype=torch.float64)
    low, high = op.interval((lower, upper))
    assert (low == -math.inf).all()
    assert (high == math.inf).all()
    for mode in ("fastlin", "crown"):
        lines = op.relax(lower, upper, mode)
        assert ((lines.lower_slope == 0) & (lines.lower_offset == -math.inf)).all()
        assert ((lines.upper_slope == 0) & (lines.upper_offset == math.inf)).all()
        assert lines.parallel == (mode == "fastlin")
    assert not op.affine_on(lower, upper).any()
    assert all(s.isnan().all() for s in op.slopes(lower, upper))


def test_a_product_of_one_number_is_exact() -> None:
    """Where one factor is a point, both planes are the product."""
    op = next(op for case in CASES if case.op == "Mul" for op in case.ops(13) if isinstance(op, Bilinear))
    lower, upper = (t[:1].clone() for t in boxes_of(op, 1.0))
    size = int(np.prod(op.first))
    upper[:, :size] = lower[:, :size]
    a = normal((1, 3, *op.out_shape))
    relaxation = op.relax(lower, upper, "crown")
    (below, low), (above, high) = relaxation.lower(a), relaxation.lower(-a)
    torch.testing.assert_close(below, -above, rtol=0, atol=0)
    torch.testing.assert_close(low, -high, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", [Log(**SHAPE), Power(**SHAPE), Power(**SHAPE, exponent=0.3)], ids=["log", "root", "power"])  # type: ignore[arg-type]
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 1e200), (torch.float64, 1e300), (torch.float32, 1e29)])
def test_extremes_far_out_count(op: Partial, dtype: torch.dtype, size: float) -> None:
    lower = torch.tensor([[1.0, 1e-3, 5.0, 1.0, 1.0, 1.0, 2.0]], dtype=dtype)
    upper = lower * size
    z = torch.logspace(0, math.log10(size), 400, dtype=torch.float64).reshape(-1, 1) * lower.double()
    z = z.clamp(max=upper.double())
    y = op.forward(z)
    for mode in ("fastlin", "crown"):
        lines = op.relax(lower, upper, mode)
        above = lines.upper_slope.double() * z + lines.upper_offset.double()
        below = lines.lower_slope.double() * z + lines.lower_offset.double()
        room = 1e-4 * y.abs().amax(0) if dtype == torch.float32 else 1e-12 * y.abs().amax(0)
        assert (above >= y - room).all()
        assert (below <= y + room).all()
