"""The convex units by which scores and norms become outputs: lines, intervals and slopes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.convex import Convex, Odds, Square

SHAPE = {"in_shapes": ((400,),), "out_shape": (400,)}
UNITS: list[Convex] = [kind(op_type="T", node="t", inputs=("x",), output="y", **SHAPE) for kind in (Odds, Square)]  # type: ignore[arg-type]


def boxes() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(1, 400)) * rng.choice([0.1, 3.0, 60.0], size=(1, 400))
    width = np.abs(rng.normal(size=(1, 400))) * rng.choice([0.0, 1e-9, 1e-3, 1.0, 40.0], size=(1, 400))
    return torch.from_numpy(centre - width), torch.from_numpy(centre + width)


@pytest.mark.parametrize("mode", ["crown", "fastlin"])
@pytest.mark.parametrize("op", UNITS, ids=lambda op: type(op).__name__)
def test_lines_and_intervals_contain_the_function(op: Convex, mode: str) -> None:
    low, high = boxes()
    lines, (bottom, top) = op.relax(low, high, mode), op.interval((low, high))
    for share in torch.linspace(0, 1, 21, dtype=torch.float64):
        z = low + share * (high - low)
        value = op.forward(z)
        assert (lines.lower_slope * z + lines.lower_offset <= value).all()
        assert (lines.upper_slope * z + lines.upper_offset >= value).all()
        assert ((bottom <= value) & (value <= top)).all()
    # the chord touches both ends
    gap = lines.upper_slope * high + lines.upper_offset - op.forward(high)
    assert (gap <= 1e-9 * (1 + op.forward(high).abs() + high.abs() * lines.upper_slope.abs())).all()


@pytest.mark.parametrize("op", UNITS, ids=lambda op: type(op).__name__)
def test_slopes_are_those_of_the_function(op: Convex) -> None:
    z = torch.linspace(-3, 3, 400, dtype=torch.float64).reshape(1, -1).requires_grad_()
    (gradient,) = torch.autograd.grad(op.forward(z).sum(), z)
    assert torch.allclose(op.derivative(z), gradient)
    slope, offset = op.tangent(z)
    assert torch.allclose(slope * z + offset, op.forward(z))
    with pytest.raises(UnsupportedOperatorError, match="bab"):
        op.encode_units(None, None, np.zeros(1), np.ones(1))  # type: ignore[arg-type]
