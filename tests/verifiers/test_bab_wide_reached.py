"""What a bound leaves of the intervals of units, against fine grids of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide.bound import Evaluated, _term, _terms
from onnxsub.verifiers.bab.wide.reached import reached

CASES, GRID = 2000, 501
_ROUNDED = 1e-12  # of the sizes of a term's parts


def column(values: object) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64)).reshape(-1, 1)


def evaluated(
    q: Tensor, nu: Tensor, kappa: Tensor, mu: Tensor, centre: Tensor, reach: Tensor, ends: tuple[Tensor, Tensor], least: Tensor
) -> Evaluated:
    """Bounds of nodes with one unit each, whose terms must be at least so large."""
    terms = _terms(*ends, q, nu, kappa, mu, centre, reach)
    none = torch.zeros(len(q), dtype=torch.float64)
    return Evaluated((terms - least)[:, 0], none, torch.zeros_like(q), none, centre, reach, terms, q, nu, kappa, mu)


def grid_of(now: Evaluated, ends: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the intervals, how much more than needed the terms are there, and by how much they may be off.

    Among the points are those where a piece is largest: what is left of a piece holds one of them.
    """
    lower, upper = ends
    shares = torch.linspace(0, 1, GRID, dtype=torch.float64)
    bend = now.kappa - now.mu
    tops = torch.cat([
        torch.zeros_like(lower), now.centre - now.nu / now.kappa,
        (now.q - now.nu - now.mu * now.reach + now.kappa * now.centre) / bend,
    ], dim=1).nan_to_num(0.0, 0.0, 0.0)  # fmt: skip
    z = torch.cat([lower + (upper - lower) * shares, tops], dim=1)
    z = torch.minimum(torch.maximum(z, lower), upper)
    rest = now.q, now.nu, now.kappa, now.mu, now.centre, now.reach
    size = (now.q.abs() + now.nu.abs()) * z.abs() + now.kappa * (z**2 + now.centre**2) + now.mu * (z**2 + now.reach**2)
    size = size + now.terms.abs() + now.proved.abs()[:, None]
    return z, _term(z, *rest) - (now.terms - now.proved[:, None]), _ROUNDED * size


def drawn(seed: int, kind: str) -> tuple[Evaluated, tuple[Tensor, Tensor]]:
    """Random terms; the least that they must be lies mostly between their smallest and their largest value."""
    rng = np.random.default_rng(seed)

    def sized(low: float, high: float) -> Tensor:
        return column(10.0 ** rng.uniform(low, high, CASES))

    def normal() -> Tensor:
        return column(rng.standard_normal(CASES))

    q, nu, centre, reach = normal() * sized(-2, 1), normal() * sized(-2, 1), normal(), normal().abs()
    kappa, mu = sized(-3, 2), sized(-3, 2)
    lower, upper = -sized(-1, 0.3), sized(-1, 0.3)
    if kind == "nothing":
        kappa, mu = sized(-300, -12), sized(-300, -12)
    elif kind == "endless":
        kappa, mu, reach = sized(-3, 3), sized(15, 26), torch.zeros_like(q)
        upper = torch.where(normal() > 0, 0.0, upper)
    elif kind == "alike":
        mu = kappa * (1 + sized(-15, -6) * normal().sign())
        mu = torch.where(mu == kappa, kappa * (1 + 1e-14), mu)
    elif kind == "one-sided":
        off = normal() > 0
        lower, upper = torch.where(off, lower, sized(-2, -1.1)), torch.where(off, -sized(-2, -1.1), upper)
    elif kind == "zeros":
        at = column(rng.integers(0, 4, CASES))
        lower, upper = torch.where((at == 1) | (at == 3), 0.0, lower), torch.where((at == 2) | (at == 3), 0.0, upper)
        q, nu = (torch.where(normal() > 0.5, 0.0, t) for t in (q, nu))
        centre, reach = (torch.where(normal() > 0.5, 0.0, t) for t in (centre, reach))
    terms = _term(lower + (upper - lower) * torch.linspace(0, 1, GRID, dtype=torch.float64), q, nu, kappa, mu, centre, reach)
    low, high = terms.amin(1, keepdim=True), terms.amax(1, keepdim=True)
    least = low + (high - low) * column(rng.uniform(-0.1, 1.1, CASES))
    return evaluated(q, nu, kappa, mu, centre, reach, (lower, upper), least), (lower, upper)


@pytest.mark.parametrize("kind", ["usual", "nothing", "endless", "alike", "one-sided", "zeros"])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_is_reached_is_left_out_and_little_else_is_kept(seed: int, kind: str) -> None:
    now, ends = drawn(seed, kind)
    low, high = reached(now, *ends)
    z, more, rounded = grid_of(now, ends)
    endless = torch.full_like(z, math.inf)
    surely = more > rounded
    first, last = torch.where(surely, z, endless).amin(1, keepdim=True), torch.where(surely, z, -endless).amax(1, keepdim=True)
    assert bool(((low <= first) & (high >= last)).all())
    assert bool(((low >= ends[0]) & (high <= ends[1]) | (low > high)).all())
    perhaps = more >= -rounded - 1e-9
    first, last = torch.where(perhaps, z, endless).amin(1, keepdim=True), torch.where(perhaps, z, -endless).amax(1, keepdim=True)
    step = (ends[1] - ends[0]) * (1.001 / (GRID - 1))
    assert bool(((low >= first - step) & (high <= last + step) | (low > high)).all())
    assert bool((low > high)[~perhaps.any(1)].all())
    narrower = ((high - low) < 0.9 * (ends[1] - ends[0])).double().mean()
    assert float(narrower) > 0.1


STRAIGHT = [  # q, nu, kappa, mu, ends, the least: a piece that is a line
    (1.0, 0.2, 0.5, 0.5, (-1.0, 1.0), 0.3),
    (0.0, 0.5, 0.5, 0.5, (0.0, 1.0), -0.2),
    (0.0, 1.0, 0.0, 0.0, (-1.0, 1.0), 0.3),
    (0.0, 1.0, 0.0, 0.0, (-1.0, -0.1), 0.3),
    (0.0, -1.0, 0.0, 0.0, (-1.0, -0.1), -0.5),
    (2.0, 0.5, 0.0, 0.0, (-1.0, 1.0), 0.4),
    (0.0, 0.0, 0.0, 0.0, (-1.0, 1.0), -0.1),
]


@pytest.mark.parametrize("numbers", STRAIGHT)
def test_a_piece_that_is_a_line(numbers: tuple[float, float, float, float, tuple[float, float], float]) -> None:
    q, nu, kappa, mu, (l, u), least = numbers
    ends = column(l), column(u)
    now = evaluated(column(q), column(nu), column(kappa), column(mu), column(0.1), column(0.2), ends, column(least))
    low, high = reached(now, *ends)
    z = torch.linspace(l, u, GRID, dtype=torch.float64)[:, None]
    held = z[_term(z, now.q, now.nu, now.kappa, now.mu, now.centre, now.reach) >= least]
    assert len(held)
    assert float(low) <= float(held.min()) + 1e-9
    assert float(high) >= float(held.max()) - 1e-9
    assert float(high - low) <= float(held.max() - held.min()) + 2 * (u - l) / (GRID - 1)


def test_a_bound_below_zero_leaves_nothing() -> None:
    now, ends = drawn(0, "usual")
    now = replace(now, value=torch.full_like(now.value, -1e-3))
    low, high = reached(now, *ends)
    assert bool((low > high).all())


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["value", "q", "nu", "kappa", "mu", "centre", "reach"])
def test_what_is_no_number_leaves_intervals_as_they_were(name: str, number: float) -> None:
    if name == "value" and number == -math.inf:
        pytest.skip("proved is endless then")
    now, ends = drawn(0, "usual")
    broken = replace(now, **{name: torch.full_like(getattr(now, name), number)})
    terms = _terms(*ends, broken.q, broken.nu, broken.kappa, broken.mu, broken.centre, broken.reach)
    if name != "value":  # as a bound whose term is no number is none
        broken = replace(broken, terms=terms, value=terms[:, 0])
    low, high = reached(broken, *ends)
    kept = ~broken.proved.isfinite() | ~terms.isfinite()[:, 0]
    assert torch.equal(low[kept], ends[0][kept])
    assert torch.equal(high[kept], ends[1][kept])
