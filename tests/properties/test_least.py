"""The smallest row of a clause as an output: the same numbers, and bounds that mix the rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxsub.propagate import compute_bounds, margin_bounds
from onnxsub.properties import Clause, as_least_network, as_margin_network, row_set
from onnxsub.properties.rows import weakest
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.box.model import Box, BoxModel, Building, Rows
from tests.verifiers.nets import dense, random_dense


def clauses_of(rng: np.random.Generator, outputs: int, counts: list[int]) -> tuple[Clause, ...]:
    return tuple(Clause(rng.normal(size=(n, outputs)), rng.normal(size=n), np.zeros(n, dtype=bool)) for n in counts)


@pytest.mark.parametrize("counts", [[1], [2], [9], [1, 1, 1], [3, 1, 2], [5, 8, 1, 4]])
def test_it_is_the_smallest_row(counts: list[int]) -> None:
    rng = np.random.default_rng(len(counts))
    network = random_dense(1, 4, 10, 3)
    rows = row_set(clauses_of(rng, 3, counts))
    least = as_least_network(network, rows)
    x = torch.tensor(rng.uniform(-2, 2, (500, 4)))
    found = least.forward(x).numpy()
    values = as_margin_network(network, rows).forward(x).numpy()
    wanted = np.stack([values[:, list(members)].min(axis=1) for members in rows.clauses], axis=1)
    assert np.abs(found[:, :-1] - wanted).max() <= 1e-12
    assert not found[:, -1].any()
    assert sum(op.out_size for op in least.activations) == network.units + sum(n - 1 for n in counts)


@pytest.mark.parametrize("seed", range(6))
def test_its_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = random_dense(seed, 4, 10, 10, 3)
    rows = row_set(clauses_of(rng, 3, [4, 1, 3]))
    least = as_least_network(network, rows)
    lower, upper = np.full(4, 0.3), np.full(4, 0.6)
    values = least.forward(torch.tensor(rng.uniform(lower, upper, (2000, 4)))).numpy()
    for method in ("ibp", "crown", "alpha-crown"):
        bounds = compute_bounds(least, lower, upper, method)
        low, high = (end.numpy()[0] for end in margin_bounds(least, bounds, np.eye(4)[:3]))
        assert (values[:, :3] >= low - 1e-12).all()
        assert (values[:, :3] <= high + 1e-12).all()


def test_a_root_finds_the_combination_that_no_single_row_gives() -> None:
    """`x - 0.1 >= 0` and `-x - 0.1 >= 0` exclude each other; each of them alone holds somewhere."""
    network = dense((np.eye(1), np.zeros(1)))
    clause = Clause(np.array([[-1.0], [1.0]]), np.array([-0.1, -0.1]), np.zeros(2, dtype=bool))
    least = as_least_network(network, row_set((clause,)))
    local = BoxModel.over(Rows(least, 1), Box.whole(-np.ones(1), np.ones(1)), Building(tight=False))
    model = local.clause(0)
    assert model is not None
    bounder = Bounder(Frame.of([model], whole=True))
    assert bounder.bound(bounder.roots(), 0, 1.1).nodes.radius.item() < 1.1
    assert bounder.bound(bounder.roots(), 40, 1.1).nodes.radius.item() == np.inf


def test_a_clause_stands_for_those_that_imply_it() -> None:
    a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    both = np.concatenate([a, b])
    loose = np.zeros(2, dtype=bool)
    clauses = (
        Clause(a, np.array([1.0]), loose[:1]),
        Clause(a, np.array([3.0]), loose[:1]),
        Clause(b, np.array([3.0]), loose[:1]),
        Clause(both, np.array([1.0, 2.0]), loose),
        Clause(both[::-1], np.array([5.0, 0.5]), loose),  # the same rows in another order; not comparable with the one before
        Clause(both, np.array([0.0, 2.0]), loose),
        Clause(2 * a, np.array([9.0]), loose[:1]),
    )
    assert weakest(row_set(clauses)) == (1, 1, 2, 3, 4, 4, 6)  # the last but one implies 3 as well


def test_many_clauses_are_told_apart_in_linear_time() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    clauses = tuple(Clause(rows[k % 40][None], np.array([float(k)]), np.zeros(1, dtype=bool)) for k in range(4000))
    found = weakest(row_set(clauses))
    assert set(found) == set(range(3960, 4000))
    assert all(found[k] % 40 == k % 40 for k in range(4000))
