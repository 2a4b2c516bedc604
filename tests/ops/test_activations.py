"""Activations: intervals, linear bounds, tangents, line errors and pieces, sampled densely on intervals of all kinds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.ops.base import Activation
from onnxsub.ops.curve import Curve
from onnxsub.ops.relaxation import Elementwise
from onnxsub.ops.steps import InversePower, Probability
from onnxsub.ops.substituted import Substituted
from tests.ops.tools import Case, normal, random

UNITS = 24
SHAPE = (2, 3, 4)
F32 = np.float32


def _activations() -> dict[str, Activation]:
    cases = {
        "Relu": Case("Relu", (SHAPE,)),
        "Sigmoid": Case("Sigmoid", (SHAPE,)),
        "Tanh": Case("Tanh", (SHAPE,)),
        "Softsign": Case("Softsign", (SHAPE,)),
        "Erf": Case("Erf", (SHAPE,), opsets=(13,)),
        "Elu": Case("Elu", (SHAPE,)),
        "Elu 1.7": Case("Elu", (SHAPE,), {"alpha": 1.7}),
        "Elu -0.6": Case("Elu", (SHAPE,), {"alpha": -0.6}),
        "Selu": Case("Selu", (SHAPE,)),
        "Celu 0.4": Case("Celu", (SHAPE,), {"alpha": 0.4}, opsets=(13,)),
        "Softplus": Case("Softplus", (SHAPE,)),
        "Gelu": Case("Gelu", (SHAPE,), opsets=(20,)),
        "Gelu tanh": Case("Gelu", (SHAPE,), {"approximate": "tanh"}, opsets=(20,)),
        "Mish": Case("Mish", (SHAPE,), opsets=(18,)),
        "Swish": Case("Swish", (SHAPE,), {"alpha": 1.7}, opsets=(24,)),
        "HardSwish": Case("HardSwish", (SHAPE,), opsets=(14,)),
        "Abs": Case("Abs", (SHAPE,)),
        "Leaky 0.1": Case("LeakyRelu", (SHAPE,), {"alpha": 0.1}),
        "Leaky 1": Case("LeakyRelu", (SHAPE,), {"alpha": 1.0}),
        "Leaky 2.5": Case("LeakyRelu", (SHAPE,), {"alpha": 2.5}),
        "Leaky -0.5": Case("LeakyRelu", (SHAPE,), {"alpha": -0.5}),
        "PRelu": Case("PRelu", (SHAPE, random((2, 3, 1), 1, 2.0))),
        "Clip 0 6": Case("Clip", (SHAPE, np.array(0, F32), np.array(6, F32))),
        "Clip -0.4 0.3": Case("Clip", (SHAPE, np.array(-0.4, F32), np.array(0.3, F32))),
        "Clip -1": Case("Clip", (SHAPE, np.array(-1, F32))),
        "Clip 0.5": Case("Clip", (SHAPE, None, np.array(0.5, F32))),
        "Clip 1 1": Case("Clip", (SHAPE, np.array(1, F32), np.array(1, F32))),
        "Pow 3": Case("Pow", (SHAPE, np.array(3, F32))),
        "Pow 4": Case("Pow", (SHAPE, np.array(4, F32))),
    }
    common = {"op_type": "Made", "node": "made", "inputs": ("x0",), "output": "y0", "in_shapes": (SHAPE,), "out_shape": SHAPE}
    steps: dict[str, Activation] = {
        "InversePower": InversePower(**common, power=0.5, shift=0.3),  # type: ignore[arg-type]
        "InversePower 0.75": InversePower(**common, power=0.75, shift=2.0),  # type: ignore[arg-type]
        "Probability": Probability(**common),  # type: ignore[arg-type]
    }
    found: dict[str, Activation] = {}
    for name, case in (cases | steps).items():
        op = case.op1() if isinstance(case, Case) else case
        assert isinstance(op, Activation)
        found[name] = op
        kept = np.arange(UNITS).reshape(SHAPE) % 3 != 0
        found[f"{name}, substituted"] = Substituted.of(op, kept, random(SHAPE, 3), random(SHAPE, 4))
    return found


OPS = _activations()
SMOOTH = [name for name, op in OPS.items() if isinstance(op, Curve)]
ALL = pytest.mark.parametrize("op", OPS.values(), ids=OPS.keys())


def intervals(scale: float) -> tuple[Tensor, Tensor]:
    """Batches of intervals `(60, *SHAPE)` of size `scale`: two-sided, one-sided, touching 0, and points."""
    a, b = normal((60, *SHAPE), 1) * scale, normal((60, *SHAPE), 2) * scale
    a[10:20] = a[10:20].abs()
    b[10:20] = b[10:20].abs()
    a[20:30] = -a[20:30].abs()
    b[20:30] = -b[20:30].abs()
    b[30:35] = a[30:35] + b[30:35].abs() * 1e-9
    b[35:40] = a[35:40]
    a[40:45], a[45:48], a[48:50] = 0.0, 0.3, -0.4
    return torch.minimum(a, b), torch.maximum(a, b)


def samples(lower: Tensor, upper: Tensor) -> Tensor:
    """Points `(48, *lower.shape)` of every interval, both ends, the kinks and where functions are smallest among them."""
    share = torch.linspace(0, 1, 36, dtype=lower.dtype).reshape(-1, *[1] * lower.dim())
    inner = (lower + share * (upper - lower)).clamp(min=lower, max=upper)
    kinks = [torch.full_like(lower, k).clamp(min=lower, max=upper) for k in SPECIAL]
    return torch.cat([inner, torch.stack(kinks)])


SPECIAL = (0.0, 0.3, -0.4, 6.0, 1.0, 3.0, -3.0, -1.5, -0.7517915247, -0.7524614220, -1.1924312145, -0.7520379663)
"""Kinks of the functions above, and the minima of HardSwish, Gelu, its approximation, Mish and the Swish."""

SCALES = (1e-6, 0.3, 3.0, 100.0)


def slack(lower: Tensor, upper: Tensor) -> Tensor:
    """What evaluating a line at a sample may round by."""
    return 1e-13 * (1 + lower.abs() + upper.abs())


def check_lines(op: Activation, lines: Elementwise, lower: Tensor, upper: Tensor) -> None:
    z = samples(lower, upper)
    y = op.forward(z.flatten(0, 1)).reshape(z.shape)
    assert (lines.lower_slope * z + lines.lower_offset <= y + slack(lower, upper)).all()
    assert (lines.upper_slope * z + lines.upper_offset >= y - slack(lower, upper)).all()
    affine = op.affine_on(lower, upper) & (lower < upper)
    gap = (lines.upper_slope - lines.lower_slope) * z + lines.upper_offset - lines.lower_offset
    assert (gap.abs() <= slack(lower, upper))[:, affine].all()


@ALL
@pytest.mark.parametrize("scale", SCALES)
def test_interval(op: Activation, scale: float) -> None:
    lower, upper = intervals(scale)
    low, high = op.interval((lower, upper))
    z = samples(lower, upper)
    y = op.forward(z.flatten(0, 1)).reshape(z.shape)
    assert (y >= low).all()
    assert (y <= high).all()
    torch.testing.assert_close(low, y.amin(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(high, y.amax(0), rtol=1e-9, atol=1e-9)


@ALL
@pytest.mark.parametrize("scale", SCALES)
def test_linear_bounds_are_sound(op: Activation, scale: float) -> None:
    lower, upper = intervals(scale)
    for mode in ("fastlin", "crown"):
        lines = op.relax(lower, upper, mode)
        check_lines(op, lines, lower, upper)
        assert lines.parallel or mode == "crown"
    if op.takes_alpha:
        for alpha in (torch.zeros_like(lower), torch.ones_like(lower), torch.rand_like(lower)):
            check_lines(op, op.relax(lower, upper, "crown", alpha), lower, upper)


@ALL
def test_crown_is_no_looser_than_constants_and_no_wider_than_the_interval_allows(op: Activation) -> None:
    lower, upper = intervals(2.0)
    low, high = op.interval((lower, upper))
    lines = op.relax(lower, upper, "crown")
    # at the middle of the interval neither line may be worse than the constant bound of a monotone or convex function's range
    middle = (lower + upper) / 2
    below = lines.lower_slope * middle + lines.lower_offset
    above = lines.upper_slope * middle + lines.upper_offset
    assert (below >= low - 1e-9 - (upper - lower)).all()
    assert (above <= high + 1e-9 + (upper - lower)).all()


@ALL
def test_alpha_is_differentiable(op: Activation) -> None:
    if not op.takes_alpha:
        with_alpha = op.relax(*intervals(1.0), "crown", torch.zeros((60, *SHAPE), dtype=torch.float64))
        without = op.relax(*intervals(1.0), "crown")
        assert torch.equal(with_alpha.lower_slope, without.lower_slope)
        return
    lower, upper = intervals(1.0)
    alpha = torch.full_like(lower, 0.5).requires_grad_()
    lines = op.relax(lower, upper, "crown", alpha)
    total = sum(t.sum() for t in (lines.lower_slope, lines.upper_slope, lines.lower_offset, lines.upper_offset) if t.requires_grad)
    (gradient,) = torch.autograd.grad(torch.as_tensor(total), alpha)
    assert gradient.isfinite().all()
    assert (gradient[op.affine_on(lower, upper)] == 0).all()


@ALL
@pytest.mark.parametrize("scale", SCALES)
def test_line_error_is_exact(op: Activation, scale: float) -> None:
    lower, upper = intervals(scale)
    slope, offset = normal((60, *SHAPE), 7) * 0.3, normal((60, *SHAPE), 8)
    slope[:5] = 0.0
    slope[5:10], slope[10:12] = 0.25, 1.0
    low, high = op.line_error(lower, upper, slope, offset)
    z = samples(lower, upper)
    errors = op.forward(z.flatten(0, 1)).reshape(z.shape) - slope * z - offset
    assert (errors >= low - slack(lower, upper)).all()
    assert (errors <= high + slack(lower, upper)).all()
    if scale > 10:
        return  # too wide to find the extremes by sampling
    # attained: refine the best sample by golden sections within its neighbours
    step = (upper - lower) / 35
    for sign, end in ((-1.0, low), (1.0, high)):
        values = sign * errors
        best = values.amax(0)
        at = z.gather(0, values.argmax(0, keepdim=True)).squeeze(0)
        left, right = (at - step).clamp(min=lower), (at + step).clamp(max=upper)
        for _ in range(60):
            p, q = left + (right - left) * 0.382, left + (right - left) * 0.618
            fp, fq = (sign * (op.forward(t) - slope * t - offset) for t in (p, q))
            best = torch.maximum(best, torch.maximum(fp, fq))
            left, right = torch.where(fp < fq, p, left), torch.where(fp < fq, right, q)
        torch.testing.assert_close(best, sign * end, rtol=1e-7, atol=1e-7)


@ALL
def test_tangent(op: Activation) -> None:
    z = normal((200, *SHAPE)) * 2
    slope, offset = op.tangent(z)
    torch.testing.assert_close(slope * z + offset, op.forward(z), rtol=1e-12, atol=1e-12)
    x = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(op.forward(x).sum(), x)
    torch.testing.assert_close(slope, gradient, rtol=1e-9, atol=1e-12)
    near = z + 1e-7
    if op.piecewise_linear:
        same = op.tangent(near)[0] == slope
        torch.testing.assert_close((slope * near + offset)[same], op.forward(near)[same], rtol=1e-12, atol=1e-12)


@ALL
def test_affine_on(op: Activation) -> None:
    lower, upper = intervals(1.0)
    stable = op.affine_on(lower, upper)
    assert stable.shape == lower.shape
    assert stable.dtype == torch.bool
    z = samples(lower, upper)
    y = op.forward(z.flatten(0, 1)).reshape(z.shape)
    chord = y[0] + (z - lower) * ((y[35] - y[0]) / (upper - lower).clamp(min=1e-300))
    bent = (y - chord).abs().amax(0) > 1e-9
    assert not (stable & bent).any()
    wide = (upper - lower) > 1e-3
    assert (stable | bent)[wide].all() or not op.piecewise_linear


@ALL
def test_take(op: Activation) -> None:
    index = np.array([3, 17, 4, 23, 0])
    part = op.take(index, node="part", inputs=("a",), output="b")
    assert (part.inputs, part.output, part.in_shapes, part.out_shape) == (("a",), "b", ((5,),), (5,))
    z = normal((7, *SHAPE))
    flat = z.reshape(7, -1)[:, index]
    assert torch.equal(part.forward(flat), op.forward(z).reshape(7, -1)[:, index])
    lower, upper = (t.reshape(60, -1)[:, index] for t in intervals(1.0))
    whole = op.relax(*intervals(1.0), "crown")
    lines = part.relax(lower, upper, "crown")
    # not bit for bit: vector instructions round the transcendental functions by the position in the array
    torch.testing.assert_close(lines.upper_offset, whole.upper_offset.reshape(60, -1)[:, index], rtol=1e-9, atol=1e-9)
    assert torch.equal(part.affine_on(lower, upper), op.affine_on(*intervals(1.0)).reshape(60, -1)[:, index])


@ALL
def test_both_equals_two_lower_passes(op: Activation) -> None:
    lower, upper = intervals(1.0)
    lines = op.relax(lower, upper, "fastlin")
    a = normal((60, 5, *SHAPE), 9)
    slope, low, high = lines.both(a)
    slope2, low2 = lines.lower(a)
    _, high2 = lines.lower(-a)
    torch.testing.assert_close(slope, slope2, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(low, low2, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(high, -high2, rtol=1e-10, atol=1e-10)


@ALL
def test_windows_of_lines(op: Activation) -> None:
    lower, upper = intervals(1.0)
    window = (slice(1, 3), slice(0, 2))
    for mode in ("fastlin", "crown"):
        lines = op.relax(lower, upper, mode)
        assert lines.windowed
        a = torch.zeros((60, 5, *SHAPE), dtype=torch.float64)
        part = normal((60, 5, 2, 2, 2), 9)
        a[(..., *window)] = part
        whole, bias = lines.lower(a)
        got, got_bias = lines.lower(part, window)
        torch.testing.assert_close(got, whole[(..., *window)])
        torch.testing.assert_close(got_bias, bias)


def test_float32_bounds_of_smooth_functions_are_sound_too() -> None:
    for name in SMOOTH:
        op = OPS[name]
        lower, upper = (t.float() for t in intervals(3.0))
        for mode in ("fastlin", "crown"):
            lines = op.relax(lower, upper, mode)
            z = samples(lower, upper)
            y = op.forward(z)
            assert (lines.lower_slope * z + lines.lower_offset <= y + 2e-6).all()
            assert (lines.upper_slope * z + lines.upper_offset >= y - 2e-6).all()


def test_crown_of_smooth_functions_is_tight() -> None:
    # on a narrow interval the gap between the lines shrinks with the square of its width
    centre = torch.linspace(-3, 3, 200, dtype=torch.float64).reshape(1, -1)
    for name in SMOOTH:
        op = OPS[name].take(np.zeros(200, dtype=np.int64), node="n", inputs=("x",), output="y")
        if op.kinks(centre):
            continue  # round a kink the gap shrinks like the width
        # half of the largest second derivative and a bit: at 0 the slope of Softsign turns twice as fast as that of any other
        limit = 2.5 if name.startswith("Softsign") else 120.0 if name.startswith("Pow") else 2.0
        for width in (1e-1, 1e-2, 1e-3, 1e-5):
            lines = op.relax(centre - width, centre + width, "crown")
            for z in (centre - width, centre, centre + width):
                gap = (lines.upper_slope - lines.lower_slope) * z + lines.upper_offset - lines.lower_offset
                assert (gap <= limit * width**2 + 1e-13 * max(1.0, limit / 2)).all()


def test_substituted_checks_its_arrays() -> None:
    base = OPS["Relu"]
    with pytest.raises(ValueError, match="shape"):
        Substituted.of(base, np.ones(UNITS, dtype=bool), np.zeros(SHAPE), np.zeros(SHAPE))
    with pytest.raises(ValueError, match="finite"):
        Substituted.of(base, np.ones(SHAPE, dtype=bool), np.full(SHAPE, np.nan), np.zeros(SHAPE))


@pytest.mark.parametrize("name", SMOOTH)
def test_the_line_of_a_straight_piece_that_has_no_end(name: str) -> None:
    """Bounds may be infinite: a unit that is affine on all of such an interval is replaced by numbers."""
    op = OPS[name]
    for lower, upper in ((0.0, math.inf), (4.0, math.inf), (-math.inf, -4.0), (-math.inf, math.inf)):
        l, u = (torch.full((1, *SHAPE), v, dtype=torch.float64) for v in (lower, upper))
        slope, offset = op.tangent((l + u) / 2)
        stable = op.affine_on(l, u)
        assert slope[stable].isfinite().all()
        assert offset[stable].isfinite().all()
        for z in (lower, upper):
            at = torch.full((1, *SHAPE), min(max(z, -50.0), 50.0), dtype=torch.float64)
            torch.testing.assert_close((slope * at + offset)[stable], op.forward(at)[stable], rtol=1e-12, atol=1e-9)
