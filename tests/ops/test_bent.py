"""What rests on functions with bends: their steepest slopes, regions, splits, and bounds where an extreme inside is large."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.metrics.region_cell import Cell
from onnxsub.network import Network
from onnxsub.ops.base import Activation
from onnxsub.ops.bent import Bent
from onnxsub.ops.dense import Dense
from onnxsub.ops.functions import Elu, Gelu, HardSwish, Mish, Softplus, Swish
from onnxsub.ops.relu import Relu
from onnxsub.passes.certify import _steepest
from onnxsub.verifiers.bab.branch import _thresholds, _well_inside

ONE = {"op_type": "T", "node": "t", "inputs": ("z",), "output": "y", "in_shapes": ((1,),), "out_shape": (1,)}
UNITS: list[Bent] = [
    Elu(**ONE), Elu(**ONE, amplitude=2.0), Elu(**ONE, above=1.05, amplitude=1.76), Elu(**ONE, amplitude=-0.6), Softplus(**ONE),
    Gelu(**ONE), Gelu(**ONE, tanh=True), Swish(**ONE), Swish(**ONE, alpha=1.702), Mish(**ONE), HardSwish(**ONE),
]  # type: ignore[arg-type]  # fmt: skip
ALL = pytest.mark.parametrize("op", UNITS, ids=lambda op: type(op).__name__)


def at(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor([values], dtype=dtype)


@ALL
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_steepest_slope_also_inside_and_left_of_a_kink(op: Bent, dtype: torch.dtype) -> None:
    for lower, upper in ((-5.0, 5.0), (-5.0, 0.0), (0.0, 3.0), (-0.86, 0.0), (2.9, 3.0), (-3.0, -2.9)):
        z = torch.linspace(lower, upper, 20001, dtype=torch.float64)
        y = op.forward(z)
        quotients = (y[1:] - y[:-1]) / (z[1:] - z[:-1])
        low, high = op.slopes(at(lower, dtype=dtype), at(upper, dtype=dtype))
        assert float(low) <= float(quotients.min()) + 1e-6
        assert float(high) >= float(quotients.max()) - 1e-6
        steep = float(_steepest(op, at(lower, dtype=dtype), at(upper, dtype=dtype)))
        assert steep >= float(quotients.abs().max()) - 1e-6


def network_of(op: Activation) -> Network:
    first = Dense(
        op_type="D", node="d", inputs=("x",), output="z", in_shapes=((2,),), out_shape=(1,), weight=np.array([[1.0, 0.5]]),
        bias=np.zeros(1),
    )  # fmt: skip
    last = Dense(
        op_type="D", node="e", inputs=("y",), output="f", in_shapes=((1,),), out_shape=(2,), weight=np.array([[1.0], [-1.0]]),
        bias=np.zeros(2),
    )  # fmt: skip
    return Network("x", (2,), "f", (first, op, last))


@ALL
def test_what_is_curved_has_no_linear_region(op: Bent) -> None:
    with pytest.raises(UnsupportedOperatorError, match="linear region"):
        Cell(network_of(op), np.array([-1.0, -0.2]))
    Cell(network_of(Relu(**ONE)), np.array([-1.0, -0.2]))  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha", np.geomspace(1e-9, 1e-2, 40))
def test_a_large_extreme_between_small_ends(alpha: float) -> None:
    """A flat Swish is smallest far below, `-0.27846454276 / alpha`: what it rounds counts, not what the ends round."""
    mpmath = pytest.importorskip("mpmath")
    op = Swish(**ONE, alpha=float(alpha))  # type: ignore[arg-type]
    low, _ = op.interval((at(-40.0 / alpha), at(0.0)))
    with mpmath.workdps(40):
        u = mpmath.findroot(lambda v: mpmath.diff(lambda w: w / (1 + mpmath.e**-w), v), -1.278)
        least = u / (1 + mpmath.e**-u) / mpmath.mpf(float(alpha))
        assert mpmath.mpf(float(low)) <= least
        assert mpmath.mpf(float(low)) >= least * (1 + mpmath.mpf(10) ** -12)


@ALL
def test_a_unit_that_is_not_affine_can_be_split(op: Bent) -> None:
    """Also where a kink lies so near to an end that a split there would be lost to rounding."""
    ends = [(-5.0, 3.000001), (-3.000001, 2.9), (-3.000001, 3.000001), (-5.0, 5.0), (-1e-7, 2.0), (-2.0, 1e-7), (1.0, 2.0)]
    for lower, upper in ends:
        l, u = at(lower), at(upper)
        if not bool(op.affine_on(l, u)):
            assert bool(_well_inside(_thresholds(op, l, u), l, u)), (lower, upper)


def test_numbers_of_a_unit_without_ends() -> None:
    for op in UNITS:
        low, high = op.interval((at(-math.inf), at(math.inf)))
        assert not float(low) > -0.1
        assert not float(high) < 100
