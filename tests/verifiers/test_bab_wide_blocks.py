"""Matrices of a network with units of another scale, and with decided units folded away, against the network itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide.blocks import Blocks

INPUTS, LAYERS, WIDTH = 12, 3, 4
UNITS = LAYERS * WIDTH


def layered(seed: int, spread: float) -> Blocks:
    """Layers that read the input and all layers before them; their scales differ by up to that many powers of ten."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-spread, spread, UNITS)
    A = rng.standard_normal((UNITS, INPUTS)) * size[:, None]
    B = np.tril(rng.standard_normal((UNITS, UNITS)) * size[:, None] / size)
    for k in range(LAYERS):
        B[k * WIDTH : (k + 1) * WIDTH, k * WIDTH :] = 0
    b = 0.3 * rng.standard_normal(UNITS) * size
    rows, reads, offsets = rng.standard_normal((2, INPUTS)), rng.standard_normal((2, UNITS)) / size, rng.standard_normal(2)
    low, high = -rng.uniform(0, 1, INPUTS), rng.uniform(0, 1, INPUTS)
    lower, upper = np.zeros(UNITS), np.zeros(UNITS)
    for j in range(UNITS):
        h = np.maximum(lower, 0), np.maximum(upper, 0)
        lower[j] = (A[j] * np.where(A[j] > 0, low, high)).sum() + b[j] + np.minimum(B[j], 0) @ h[1] + np.maximum(B[j], 0) @ h[0]
        upper[j] = (A[j] * np.where(A[j] > 0, high, low)).sum() + b[j] + np.minimum(B[j], 0) @ h[0] + np.maximum(B[j], 0) @ h[1]
    return Blocks(*(torch.from_numpy(p) for p in (A, B, b, rows, reads, offsets, lower, upper, low, high)))


def run(blocks: Blocks, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pre-activations and rows at offsets `(N, n)`."""
    h = torch.zeros((len(points), blocks.units), dtype=torch.float64)
    for _ in range(LAYERS):
        z = points @ blocks.A.T + h @ blocks.B.T + blocks.b
        h = z.clamp(min=0)
    return z, points @ blocks.rows.T + h @ blocks.reads.T + blocks.offsets


def points_of(blocks: Blocks, seed: int, count: int = 200) -> Tensor:
    rng = np.random.default_rng(seed)
    return blocks.low + (blocks.high - blocks.low) * torch.from_numpy(rng.uniform(0, 1, (count, INPUTS)))


@pytest.mark.parametrize("spread", [0.0, 6.0, 50.0])
def test_another_scale_of_units_changes_no_bit(spread: float) -> None:
    for seed in range(10):
        blocks = layered(seed, spread)
        blocks.lower[0] = blocks.upper[0]  # an interval without width has a scale, too
        scaled, size = blocks.scaled()
        assert bool((size.log2() == size.log2().round()).all())
        points = points_of(blocks, seed)
        (z, values), (their_z, their_values) = run(blocks, points), run(scaled, points)
        assert torch.equal(their_z * size, z)
        assert torch.equal(their_values, values)
        for name in ("lower", "upper", "sizes"):
            assert torch.equal(getattr(scaled, name) * size, getattr(blocks, name))
        assert torch.equal(scaled.row_sizes, blocks.row_sizes)
        half = ((scaled.upper - scaled.lower) / 2)[blocks.upper > blocks.lower]
        assert bool(((half >= 0.5**0.5 * (1 - 1e-12)) & (half <= 2**0.5 * (1 + 1e-12))).all())


def test_a_scale_without_end_is_held() -> None:
    blocks = layered(0, 0.0)
    blocks.upper[0], blocks.lower[1], blocks.upper[1] = 2.0**500, 0.0, 2.0**-500
    assert blocks.scaled()[1][:2].tolist() == [2.0**400, 2.0**-400]


@pytest.mark.parametrize("spread", [0.0, 6.0])
@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_units_that_are_folded_away_change_nothing_where_signs_agree(spread: float, share: float) -> None:
    agreed = 0
    for seed in range(12):
        blocks, rng = layered(seed, spread), np.random.default_rng(seed)
        middle = points_of(blocks, seed + 100, 1)
        z, _ = run(blocks, middle)
        decided = torch.from_numpy(rng.random(UNITS) < share)
        lower, upper = blocks.lower.clone(), blocks.upper.clone()
        lower[decided & (z[0] >= 0)] = 0.0
        upper[decided & (z[0] < 0)] = 0.0
        folded = blocks.folded(lower, upper)
        assert not folded.B[:, (lower >= 0) | (upper <= 0)].any()
        assert not folded.reads[:, (lower >= 0) | (upper <= 0)].any()
        assert torch.equal(folded.lower, lower)
        assert torch.equal(folded.upper, upper)
        # from near that point to all of the box
        steps = (points_of(blocks, seed) - middle) * torch.logspace(-3, 0, 200, dtype=torch.float64)[:, None]
        points = torch.cat([middle, middle + steps])
        (z, values), (their_z, their_values) = run(blocks, points), run(folded, points)
        here = ((z >= lower) | (lower < 0)).all(1) & ((z <= upper) | (upper > 0)).all(1)
        agreed += int(here.sum())
        assert bool(here[0])
        assert bool(((their_z - z).abs() <= 1e-12 * folded.sizes)[here].all())
        assert bool(((their_values - values).abs() <= 1e-12 * folded.row_sizes)[here].all())
    assert agreed > 500


@pytest.mark.parametrize("spread", [0.0, 6.0])
def test_sizes_are_no_smaller_than_what_folded_rows_are_sums_of(spread: float) -> None:
    for seed in range(12):
        blocks, rng = layered(seed, spread), np.random.default_rng(seed)
        lower, upper = blocks.lower.clone(), blocks.upper.clone()
        lower[torch.from_numpy(rng.random(UNITS) < 0.4)] = 0.0
        upper[torch.from_numpy(rng.random(UNITS) < 0.2)] = 0.0
        folded = blocks.folded(lower, upper)
        far, most = torch.maximum(blocks.low.abs(), blocks.high.abs()), upper.clamp(min=0)
        terms = folded.A.abs() @ far + folded.B.abs() @ most + folded.b.abs()
        row_terms = folded.rows.abs() @ far + folded.reads.abs() @ most + folded.offsets.abs()
        assert bool((terms <= folded.sizes * (1 + 1e-12)).all())
        assert bool((row_terms <= folded.row_sizes * (1 + 1e-12)).all())
        assert bool((folded.sizes >= blocks.sizes).all())


def test_folding_twice_is_folding_at_once() -> None:
    blocks = layered(3, 0.0)
    lower, upper = blocks.lower.clone(), blocks.upper.clone()
    lower[1] = upper[5] = 0.0
    once = blocks.folded(lower, upper)
    lower[6] = 0.0
    twice, at_once = once.folded(lower, upper), blocks.folded(lower, upper)
    for name in ("A", "B", "b", "rows", "reads", "offsets"):
        assert math.isclose(float((getattr(twice, name) - getattr(at_once, name)).abs().max()), 0.0, abs_tol=1e-12)
