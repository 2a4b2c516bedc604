"""What jumps, Sign, ThresholdedRelu and comparisons: bounds of every execution, lines, splits, rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.ops.jump import Jump
from tests.ops.jumping_checks import SHAPE, common, lines_hold, rows_are_the_relation, some_units
from tests.ops.test_encode import encoded
from tests.ops.tools import Case, normal, random

F32 = np.float32


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
OPS["slopes"] = Jump(**common(), at=np.array(0.2), left=(-0.5, 1.0), right=(2.0, -1.0), on=-0.6, room=np.zeros(()))
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
    size = 1e-12 * (1 + y.abs() + z.abs())
    least, most, error = lines_hold(op, lower, upper, z, y, size, steep=1e-15)
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
    some_units(op, *intervals(op, 1.0))


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
    rows_are_the_relation(op, (ends[0], ends[1]), lambda x: (x - at).abs() > 0.06)


def test_a_unit_without_ends_has_rows_too() -> None:
    op = OPS["Sign"].take(np.array([0, 1]), node="n", inputs=("x0",), output="y0")
    box = torch.tensor([[-math.inf, -1.0]]).double(), torch.tensor([[math.inf, 1.0]]).double()
    recorder, result = encoded(op, box, torch.tensor([[0.4, 0.4]]).double())
    assert recorder.optimum(result.take(np.array([1])), 1)[0] == pytest.approx(1.0)
    assert recorder.optimum(result.take(np.array([0])), 1)[0] == pytest.approx(-1.0)


def test_a_value_of_its_own_needs_constants() -> None:
    with pytest.raises(ValueError, match="constant pieces"):
        replace(OPS["slopes"], on=0.3)
