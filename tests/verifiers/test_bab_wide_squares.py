"""Squares that follow from a price: derivatives of the condition, and that no other lambda is much better."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide import steps
from onnxsub.verifiers.bab.wide.blocks import Blocks
from onnxsub.verifiers.bab.wide.bound import evaluate, first_multipliers
from onnxsub.verifiers.bab.wide.parts import Multipliers, Part, Squares, squares_for
from onnxsub.verifiers.bab.wide.steps import Pace, _Condition, improve
from tests.verifiers.test_bab_wide import UNITS, random_blocks, random_multipliers

_FIRST, _LAST = UNITS // 2, UNITS // 2  # units that read others, and those that are read


def condition(part: Part, gram: Tensor, kappa: Tensor, mu: Tensor) -> _Condition:
    return _Condition.of(gram, part.B, kappa, mu, _FIRST, _LAST)


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_of_the_condition_are_those_of_finite_differences(seed: int) -> None:
    part, given = Part.of(random_blocks(seed), 0), random_multipliers(seed)
    gram, kappa, mu = squares_for(part, given).gram, given.kappa, given.mu
    found, random = condition(part, gram, kappa, mu), torch.Generator().manual_seed(seed)

    def slope(change: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        logs = [condition(part, *(t + s * c for t, c in zip((gram, kappa, mu), change, strict=True))).scale.log() for s in (1, -1)]
        return (logs[0] - logs[1])[:, 0] / 2

    none = torch.zeros_like(gram), torch.zeros_like(kappa), torch.zeros_like(mu)
    for j in range(UNITS):
        one = torch.zeros_like(kappa)
        one[:, j] = 1e-5
        torch.testing.assert_close(slope((none[0], one, none[2])) / 1e-5, found.by_kappa[:, j], rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(slope((none[0], none[1], one)) / 1e-5, found.by_mu[:, j], rtol=1e-4, atol=1e-8)
    for _ in range(10):
        change = torch.randn(gram.shape, dtype=torch.float64, generator=random)
        change = (change + change.transpose(1, 2)) * gram.abs().amax((1, 2), keepdim=True)
        along = (found.by_gram * change).sum((1, 2))
        change = change * (1e-5 / along.abs())[:, None, None]
        torch.testing.assert_close(slope((change, none[1], none[2])), 1e-5 * along.sign(), rtol=1e-3, atol=0.0)


def with_lambda(part: Part, given: Multipliers, ends: tuple[Tensor, Tensor], lam: Tensor) -> float:
    """The bound for such squares."""
    return float(evaluate(part, given, *ends, Squares(lam, ((part.A / lam) @ part.A.T)[None])).value)


def improved(seed: int, many: int = 200) -> tuple[Part, Multipliers, tuple[Tensor, Tensor]]:
    blocks = random_blocks(seed)
    part, ends = Part.of(blocks, 0), (blocks.lower[None], blocks.upper[None])
    return part, improve(part, first_multipliers(part, blocks.lower, blocks.upper), ends, Pace(many, 0.1, 10)), ends


@pytest.mark.parametrize("seed", range(3))
def test_no_other_lambda_of_an_input_is_much_better(seed: int) -> None:
    part, given, ends = improved(seed)
    lam = squares_for(part, given).lam
    here = with_lambda(part, given, ends, lam)
    assert with_lambda(part, given, ends, 1.3 * lam) > here
    assert with_lambda(part, given, ends, lam / 1.3) > here
    falls = []
    for i in range(0, lam.shape[1], 10):
        for factor in (0.5, 0.8, 1.25, 2.0):
            other = lam.clone()
            other[0, i] *= factor
            falls.append(here - with_lambda(part, given, ends, other))
    assert max(falls) < 3e-3 * abs(here)
    assert sum(falls) < 0


@pytest.mark.parametrize("seed", range(3))
def test_prices_that_are_improved_lose_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    part, given, ends = improved(seed)
    better = float(evaluate(part, given, *ends).value)
    monkeypatch.setattr(steps, "_PRICED", 10**6)
    _, first, _ = improved(seed)
    plain = float(evaluate(part, first, *ends).value)
    assert torch.equal(first.price, first_multipliers(part, *(e[0] for e in ends)).price)
    assert better < plain


@pytest.mark.parametrize("radius", [0.05, 0.0])
def test_inputs_that_nothing_reads_change_nothing(radius: float) -> None:
    blocks = random_blocks(0)
    blocks.A[:, 0], blocks.rows[:, 0], blocks.low[0], blocks.high[0] = 0.0, 0.0, -radius, radius
    without = Blocks(
        blocks.A[:, 1:], blocks.B, blocks.b, blocks.rows[:, 1:], blocks.reads, blocks.offsets, blocks.lower, blocks.upper,
        blocks.low[1:], blocks.high[1:],
    )  # fmt: skip
    ends = blocks.lower[None], blocks.upper[None]
    start = first_multipliers(Part.of(without, 0), blocks.lower, blocks.upper)
    with_it, less = (evaluate(Part.of(o, 0), start, *ends).proved for o in (blocks, without))
    torch.testing.assert_close(with_it, less)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_price_of_few_directions_gives_numbers(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    part = Part.of(random_blocks(0), 0)
    part = part.single() if dtype == torch.float32 else part
    given = random_multipliers(0).to(dtype)
    direction = torch.randn((5, UNITS), dtype=dtype, generator=random)
    price = direction[:, :, None] * direction[:, None, :]
    # inputs whose columns are almost at right angles to it
    A = part.A.clone()
    A[:, :200] -= (direction[0] @ A[:, :200]) / (direction[0] @ direction[0]) * direction[0][:, None]
    squares = squares_for(replace(part, A=A, a=0 * part.a), replace(given, nu=0 * given.nu, price=price))
    assert bool(squares.lam.isfinite().all())
    assert bool((squares.lam > 0).all())
