"""Rows over maxima: bounds hold at every point and are tight, and distances are those of the MILP."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import onnxsub.verifiers.bab.pieces.tree as tree_module
from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.lp.cutting import Cutting
from onnxsub.verifiers.bab.lp.relaxation import Relaxation
from onnxsub.verifiers.bab.pieces.bound import Choices, Multipliers, Pace, Sums, improve
from onnxsub.verifiers.bab.pieces.groups import Groups
from onnxsub.verifiers.bab.pieces.maxima import Maxima
from onnxsub.verifiers.bab.pieces.region import Region
from onnxsub.verifiers.bab.pieces.tree import MaximaTree
from onnxsub.verifiers.bab.pieces.units import Affines, Unit
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.result import DistanceResult
from tests.verifiers.bab_tools import target_models
from tests.verifiers.maxima_tools import by_trees
from tests.verifiers.nets import anchor, balanced, bracket_of, logits, measured
from tests.verifiers.windowed import hidden_relus, random_windowed, tied_windows

TOL = 1e-6
_PACE = Pace(300, 0.05, 0.02, 2e-3)


HIDDEN = 100  # seeds from here on: Relus that read windows


@cache
def question(seed: int) -> tuple[Network, Array, int, DistanceResult]:
    network, x0, label = tied_windows(seed) if seed < HIDDEN else hidden_relus(seed)
    return network, x0, label, measured(network, x0, label, threads=1, tol=TOL, replay=logits(network))


@cache
def rows(seed: int, *, tight: bool = False) -> list[tuple[ClauseModel, Maxima, float]]:
    """The targets with rows over maxima, on a ball that reaches beyond the boundary."""
    network, x0, label, true = question(seed)
    radius = min(1.3 * true.upper, 0.9)
    models = target_models(network, x0, label, radius, tight=tight)
    found = [(m, Maxima.of(m), radius) for m in models]
    return [(m, row, radius) for m, row, radius in found if row is not None]


def own_row(count: int, sizes: Array, n: int, rng: np.random.Generator) -> Maxima:
    """A sum of maxima over n inputs within 1."""
    units = tuple(
        Unit(rng.normal(size=(k, n)), np.zeros((k, count)), rng.normal(size=k), np.full(k, -np.inf), np.full(k, np.inf))
        for k in sizes
    )
    return Maxima(rng.normal(size=n), np.ones(count), 0.0, units, -np.ones(n), np.ones(n))


def points(row: Maxima, radius: float, seed: int, count: int = 300) -> Array:
    """Everywhere in the box, and at its corners."""
    rng, (low, high) = np.random.default_rng(seed), row.within(radius)
    inside = rng.uniform(low, high, (count, len(low)))
    return np.concatenate([inside, np.where(rng.random(inside.shape) < 0.5, low, high)])


@pytest.mark.parametrize("first", [0, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tight", [False, True])
def test_the_row_is_the_margin_where_that_is_not_negative(tight: bool, first: int) -> None:
    seen = 0
    for seed in [*range(first, first + 6), *range(HIDDEN + first, HIDDEN + first + 6)]:
        for model, row, radius in rows(seed, tight=tight):
            d = points(row, radius, seed)
            x0 = np.asarray(model.local.box.x0)
            with torch.no_grad():
                margin = model.local.network.forward(torch.as_tensor(x0 + d.reshape(-1, *x0.shape)))[:, model.row].numpy()
            value = row.values(d) - model.slack
            # cut intervals hold where the margin is not negative
            of_interest = margin >= 0 if tight else np.ones(len(d), dtype=bool)
            assert np.abs(value - margin)[of_interest].max(initial=0.0) <= 1e-9
            seen += int(of_interest.sum())
            values, elements = row.unit_values(d)
            assert all(np.array_equal(values[:, q], e.max(1)) for q, e in enumerate(elements))
            assert [row.winners(p) for p in d[:5]] == [tuple(int(elements[q][i].argmax()) for q in row.rising) for i in range(5)]
    assert seen > (100 if tight else 500)


def _node(groups: Groups, row: Maxima, sums: Sums, rng: np.random.Generator) -> tuple[tuple[int, ...], Choices]:
    """Some elements chosen at random."""
    chosen = tuple(int(rng.integers(len(row.units[q].b))) if rng.random() < 0.4 else -1 for q in row.rising)
    there, elements = sums.groups.clone()[None], sums.begin()[1].elements.clone()
    for q, k in zip(row.rising, chosen, strict=True):
        if k >= 0:
            there &= torch.from_numpy(groups.allowed(q, k))
            if q in sums.places:
                own = torch.zeros(len(row.units[q].b), dtype=torch.bool)
                own[k] = True
                elements[:, sums.places[q]] = own
    return chosen, Choices(there, elements)


@pytest.mark.parametrize("first", [0, HIDDEN])
def test_bounds_hold_at_every_point_of_a_node(first: int) -> None:
    held = deep = 0
    for seed in range(first, first + 12):
        rng = np.random.default_rng(seed)
        for _, row, radius in rows(seed):
            if not row.units:
                continue
            groups = Groups.of(row, radius)
            for share in (1.0, 0.6):
                sums = Sums(row, groups, share * radius, torch.float64)
                d = points(row, share * radius, seed)
                middle, half = (e[len(row.a) :] for e in (sums.scaled.middle, sums.scaled.half))
                values, elements = row.unit_values(d)
                winners = np.array([elements[q].argmax(1) for q in row.rising]).reshape(-1, len(d))
                # intervals of units hold where the margin is not negative
                read = np.any([u.v.any(axis=0) for u in row.units], axis=0)
                there = (np.abs(values - middle) <= half)[:, read].all(axis=1)
                assert there[row.values(d) >= 0].all()
                for _ in range(6):
                    chosen, choices = _node(groups, row, sums, rng)
                    begin, _ = sums.begin()
                    sigma, theta = rng.random(begin.sigma.shape), rng.normal(size=begin.theta.shape)
                    given = Multipliers(torch.from_numpy(sigma).float(), torch.from_numpy(theta).float())
                    bound = float(sums.evaluate(given, choices))
                    own = np.array(chosen, dtype=np.int64).reshape(-1, 1)
                    inside = there & ((own < 0) | (own == winners)).all(axis=0)
                    assert (row.values(d)[inside] <= bound + 1e-12).all()
                    held += int(inside.sum())
                    deep += int(inside.sum()) * bool(row.depths.any())
    assert held > 5000
    assert deep > 5000 or first < HIDDEN


def test_derivatives_are_those_of_the_bound() -> None:
    """Small steps down the gradient lower a bound that is hardly smoothed by what it says."""
    compared = 0
    for seed in range(HIDDEN, HIDDEN + 12):
        for _, row, radius in rows(seed):
            rng = np.random.default_rng(seed)
            sums = Sums(row, Groups.of(row, radius), radius, torch.float64)
            begin, choices = sums.begin()
            sigma = torch.from_numpy(rng.uniform(0.2, 0.8, begin.sigma.shape))
            theta = torch.from_numpy(rng.normal(size=begin.theta.shape))
            _, slope, turn = sums.gradient(Multipliers(sigma, theta), choices, 1e-9 * sums.unit)
            for part, gradient in ((sigma, slope), (theta, turn)):
                step = torch.from_numpy(rng.normal(size=part.shape)) * 1e-7
                ends = []
                for sign in (-1, 1):
                    moved = (sigma + sign * step, theta) if part is sigma else (sigma, theta + sign * step)
                    ends.append(float(sums.evaluate(Multipliers(*moved), choices)))
                assert (ends[1] - ends[0]) / 2 == pytest.approx(float((gradient * step).sum()) * sums.unit, abs=2e-10, rel=1e-3)
                compared += bool(row.depths.any())
    assert compared > 8


def test_improved_bounds_are_as_good_as_programs_with_cuts() -> None:
    """The hulls of groups are inside those of single windows: steps reach what programs reach, but for a small share."""
    left = []  # of what programs lower the first bound by, the share that steps miss
    for seed in range(12):
        for model, row, radius in rows(seed):
            if not row.rising or row.depths.any():
                continue  # of units that read others programs use the intervals, these bounds only those of what is read
            groups = Groups.of(row, radius)
            single, double = (Sums(row, groups, radius, t) for t in (torch.float32, torch.float64))
            start, choices = single.begin()
            first = float(double.evaluate(start, choices))
            given, found = improve(single, start, choices, _PACE, Budget())
            bound = float(double.evaluate(given, choices))
            assert bound <= first + 1e-9
            assert float(found.value) == pytest.approx(bound, abs=1e-4 * (1 + abs(bound)))
            if bound < 0:
                continue  # steps end there
            linear = Relaxation(model, Budget())
            Cutting(linear, Budget()).root(radius)
            program = linear.value(linear.solve({}, radius), radius)
            assert bound <= program + 0.02 * (1 + abs(program))
            left.append((bound - program) / (first - program))
    assert len(left) > 5
    assert max(left) <= 0.05
    assert float(np.median(left)) <= 2e-3


def test_the_nearest_point_of_all_choices_is_the_nearest() -> None:
    compared = 0
    for seed in range(12):
        *_, true = question(seed)
        nearest = []
        for _, row, radius in rows(seed):
            if math.prod(len(row.units[q].b) for q in row.rising) > 500:
                break
            region = Region(row, Budget())
            for chosen in itertools.product(*(range(len(row.units[q].b)) for q in row.rising)):
                found = region.nearest(chosen, radius)
                if found.point is None:
                    assert found.radius == radius
                    continue
                assert 0 < found.radius < radius
                # what the slack and the steps leave
                assert row.values(found.point[None])[0] >= -1e-7
                assert np.abs(found.point).max() <= found.radius * (1 + 1e-9) + 1e-12
                nearest.append(found.radius)
        else:
            if rows(seed) and len(rows(seed)) == len(target_models(*question(seed)[:3], min(1.3 * true.upper, 0.9), tight=False)):
                assert min(nearest) == pytest.approx(true.upper, abs=1e-5)
                compared += 1
    assert compared > 3


def test_trees_alone_find_the_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "_FEW", 0)
    compared = 0
    for seed in [*range(12), *range(HIDDEN, HIDDEN + 8)]:
        network, x0, label, true = question(seed)
        if true.status != "exact" or true.upper > 0.9:
            continue
        found = by_trees(network, x0, label, 1.01 * true.upper, TOL)
        if found is None:
            continue
        bracket, _ = found
        assert true.upper - 4 * TOL <= bracket.upper
        assert bracket.lower <= true.upper + 4 * TOL
        if seed < HIDDEN:
            assert bracket.upper == pytest.approx(true.upper, abs=4 * TOL)
            assert bracket.lower == pytest.approx(true.upper, abs=4 * TOL)
        compared += 1 if seed < HIDDEN else 100
    assert compared % 100 > 3
    assert compared > 300


@pytest.mark.parametrize("kind", ["tied", "random"])
def test_distances_are_those_of_the_milp(kind: str) -> None:
    for seed in range(12) if kind == "tied" else range(20, 28):
        network = balanced(random_windowed(seed))
        x0, label = anchor(network, seed)
        if kind == "tied":
            network, x0, label, true = question(seed)
        else:
            true = measured(network, x0, label, threads=1, tol=TOL, replay=logits(network))
        found = measured(network, x0, label, verifier="bab", threads=1, tol=TOL, replay=logits(network), timeout=20)
        assert true.lower <= found.upper + 2e-6
        assert found.lower <= true.upper + 2e-6
        assert true.status == "bracket" or found.status == true.status


def test_what_a_tree_proves_counts_when_it_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "_ROOT", Pace(5, 0.05, 0.02, 2e-3))
    monkeypatch.setattr(tree_module, "_CHILD", Pace(3, 0.03, 0.1, 7e-4))
    monkeypatch.setattr(tree_module, "_AT_ONCE", 1)
    monkeypatch.setattr(tree_module, "_FEW", 0)
    proved = ended = 0
    for seed in range(12):
        network, x0, label, true = question(seed)
        for model, _, radius in rows(seed):
            for nodes in (1, 4, 12):
                bracket = bracket_of(network, x0, label, threads=1, tol=TOL)
                search = MaximaTree.of(bracket, model, radius)
                if search is None:
                    assert not model.local.network.windows
                    continue
                monkeypatch.setattr(search, "_going", lambda _, s=search, n=nodes: s.nodes < n)
                settled = search.run(Budget())
                own = min(true.targets[model.key].upper, radius) if model.key in true.targets else radius
                assert bracket.claims.lowers[model.key] <= max(own, true.upper) + 2e-6
                ended += not settled
                proved += 0 < bracket.claims.lowers[model.key] < radius
    assert ended > 3
    assert proved > 3
    over = Budget(timeout=1e-6)
    for model, _, radius in rows(1):
        bracket = bracket_of(*question(1)[:3], threads=1)
        search = MaximaTree.of(bracket, model, radius)
        assert search is not None
        search.run(over)
        search.run(Budget())  # goes on
        assert bracket.claims.lowers[model.key] > 0


def test_groups_are_a_partition_with_few_choices() -> None:
    rng = np.random.default_rng(0)
    for count in (0, 1, 7, 200):
        row = own_row(count, rng.integers(2, 6, count), 30, rng)
        groups = Groups.of(row, 0.5)
        assert sorted(c for g in groups.members for c in g) == list(range(count))
        assert groups.most <= 64
        sizes = [math.prod(len(row.units[i].b) for i in g) for g in groups.members]
        assert sizes == [len(c) for c in groups.choices] == groups.there.sum(1).tolist()
        assert len(groups.members) <= max(1, 0.5 * count) or count == 0
    assert Groups.of(own_row(1, np.array([40]), 9, rng), 1.0).most == 40


def test_numbers_that_are_none_are_left_to_others() -> None:
    for model, row, radius in rows(1):
        assert Maxima.of(model) is not None
        broken = {n: (np.full_like(l, np.nan), np.full_like(u, np.nan)) for n, (l, u) in model.intervals.items()}
        loose = Maxima.of(replace(model, intervals=broken))
        if loose is not None:
            # intervals that say nothing leave every element that another one does not reach
            d = points(row, radius, 0)
            assert (loose.values(d) >= row.values(d) - 1e-9).all()
        assert Maxima.of(replace(model, upper=np.full_like(model.upper, np.inf))) is None


def test_elements_that_others_reach_are_left_out() -> None:
    rng = np.random.default_rng(1)
    low, high = -rng.random(6), rng.random(6)
    for _ in range(40):
        e = Affines(rng.normal(size=(6, 6)), 2 * rng.normal(size=6))
        e = Affines(np.concatenate([e.w, e.w[:2]]), np.concatenate([e.b, e.b[:2]]))
        left = e.undominated(low, high)
        d = rng.uniform(low, high, (500, 6))
        value = d @ e.w.T + e.b
        assert np.array_equal(value.max(1), value[:, left].max(1))
        assert len(left) <= 6


def test_a_limit_of_nodes_ends_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "_ROOT", Pace(2, 0.05, 0.02, 2e-3))
    monkeypatch.setattr(tree_module, "_CHILD", Pace(1, 0.03, 0.1, 7e-4))
    monkeypatch.setattr(tree_module, "_AT_ONCE", 1)
    monkeypatch.setattr(tree_module, "_FEW", 0)
    ended = 0
    for seed in [*range(12), *range(HIDDEN, HIDDEN + 12)]:
        for model, _, radius in rows(seed):
            bracket = bracket_of(*question(seed)[:3], threads=1, nodes=3)
            search = MaximaTree.of(bracket, model, radius)
            if search is not None and not search.run(bracket.budget):
                ended += search.nodes >= 3
                assert search.nodes <= 3 + 16
    assert ended > 1
