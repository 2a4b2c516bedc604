"""Cuts over pairs of units hold wherever the target is reached, and trees that get them prove no more than is true."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.propagate.backward import Coefficients, pull_back
from onnxsub.verifiers.bab.bound import Bounder
from onnxsub.verifiers.bab.cuts import making
from onnxsub.verifiers.bab.cuts.octagon import hull_plane, octagon
from onnxsub.verifiers.bab.cuts.pairs import paired
from onnxsub.verifiers.bab.cuts.rows import Fronts
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.nodes import pack, unpack
from onnxsub.verifiers.options import BabOptions
from tests.verifiers.bab_tools import Sample, check_nodes, frame_of, random_multipliers, random_split
from tests.verifiers.nets import anchor, measured, random_dense, random_network


@pytest.fixture(autouse=True)
def any_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small trees take milliseconds: their cuts may take longer here."""
    monkeypatch.setattr(making, "_AS_LONG", math.inf)


def random_pairs(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bounds of p, q, their sums and differences, and points that have them: linear functions of points of a box."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn((count, 2, 6), generator=generator, dtype=torch.float64)
    rows[::3, 1] = rows[::3, 0] * torch.rand((len(rows[::3]), 1), generator=generator)  # degenerate ones too
    constants = torch.randn((count, 2), generator=generator, dtype=torch.float64)
    x = torch.rand((400, 6), generator=generator, dtype=torch.float64) * 2 - 1
    corners = torch.where(x > 0, torch.ones_like(x), -torch.ones_like(x))
    points = torch.einsum("pkn,sn->psk", rows, torch.cat([x, corners])) + constants[:, None]
    size = rows.abs().sum(2)
    both, apart = (rows[:, 0] + s * rows[:, 1] for s in (1, -1))
    total, difference = constants.sum(1), constants[:, 0] - constants[:, 1]
    middle = torch.stack([total, -total, difference, -difference], 1)
    reach = torch.stack([both.abs().sum(1)] * 2 + [apart.abs().sum(1)] * 2, 1)
    return constants - size, constants + size, middle + reach, points


@pytest.mark.parametrize("seed", range(20))
def test_planes_lie_above_both_units_and_not_above_their_lines(seed: int) -> None:
    lower, upper, diagonals, points = random_pairs(seed, 60)
    corners = octagon(lower, upper, diagonals)
    assert (points[..., 0] <= corners[..., 0].amax(1, keepdim=True) + 1e-9).all()
    at = points[:, seed]
    slope, offset = hull_plane(corners, at)
    plane = (points * slope[:, None]).sum(2) + offset[:, None]
    assert (plane >= points.clamp(min=0).sum(2) - 1e-12).all()
    open_ = ((lower < 0) & (upper > 0)).all(1)
    assert open_.any()
    lines = (upper * (at - lower) / (upper - lower)).sum(1)
    assert ((slope * at).sum(1) + offset <= lines + 1e-6)[open_].all()


def test_a_plane_at_a_point_outside_still_lies_above() -> None:
    lower, upper, diagonals, points = random_pairs(1, 60)
    slope, offset = hull_plane(octagon(lower, upper, diagonals), points[:, 0] + 100)
    plane = (points * slope[:, None]).sum(2) + offset[:, None]
    assert (plane >= points.clamp(min=0).sum(2) - 1e-12).all()


def with_cuts(network: Network, seed: int, radius: float, fold: str) -> tuple[Frame, Bounder] | None:
    """A frame with cuts, made at a random node of every target."""
    x0, label = anchor(network, seed)
    frame = frame_of(network, x0, label, radius, tight=seed % 2 == 0, fold=fold)
    if frame is None or not frame.splits:
        return None
    bounder = Bounder(frame)
    root = bounder.bound(bounder.roots(), 10, radius)
    nodes = random_split(bounder, root.nodes, np.random.default_rng(seed)).take(torch.arange(len(frame.targets)))
    cut = replace(frame, cuts=paired(bounder, root, bounder.bound(nodes, 3, radius), 200)[0])
    return (cut, Bounder(cut)) if cut.cuts else None


@pytest.mark.parametrize("fold", ["auto", "never"])
@pytest.mark.parametrize("seed", range(60, 75))
def test_cuts_hold_where_the_target_is_reached(seed: int, fold: str) -> None:
    network = random_network(seed) if seed % 3 else random_dense(seed, 6, 20, 20, 4)
    found = with_cuts(network, seed, 0.4, fold)
    if found is None:
        pytest.skip("bounds leave no pair of units open")
    frame, bounder = found
    x = Sample.of(frame, seed)
    checked = 0
    for number, op in enumerate(frame.splits):
        if op.output not in frame.cuts:
            continue
        cuts = frame.cuts[op.output]
        for t, target in enumerate(frame.targets):
            z = x.values[number][x.margins[:, target] >= 0][:, cuts.units[t]]
            low = (cuts.outer[t] * z.clamp(min=0)).sum(2)
            high = (cuts.inner[t] * z).sum(2) + cuts.offset[t]
            assert (low <= high + 1e-9).all()
            checked += low.numel()
    assert checked > 0
    rng = np.random.default_rng(seed)
    nodes = bounder.roots()
    for steps in (0, 4, 0):
        gamma = rng.choice([0.0, 0.3, 3.0], tuple(nodes.gamma.shape)) * rng.random(tuple(nodes.gamma.shape))
        nodes = replace(random_multipliers(nodes, rng), gamma=torch.as_tensor(gamma, dtype=torch.float32))
        bounded = bounder.bound(nodes, steps, 0.4)
        check_nodes(frame, bounded.nodes, x, bounded)
        rested = unpack(pack(bounded.nodes, bounded.nodes.radius), bounder.shapes)
        check_nodes(frame, rested, x, bounder.bound(rested, 0, 0.4))
        nodes = random_split(bounder, rested, rng)


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("seed", range(60, 72))
def test_rows_over_fronts_are_rows_pulled_back(seed: int, room: bool) -> None:
    """The affine operators before the units are gone through once for all rows; that must change no number."""
    network = random_network(seed)
    x0, label = anchor(network, seed)
    frame = frame_of(network, x0, label, 0.2, tight=False, fold="never")
    if frame is None:
        pytest.skip("bounds leave no class open")
    bounder = Bounder(frame)
    roots = bounder.roots().take(torch.tensor([0]))
    relaxations = bounder.relaxations(roots, roots.alpha, roots.beta, roots.gamma, torch.float64)
    fronts = Fronts(frame.network, frame.x0, 2**29 if room else 0)
    rng = np.random.default_rng(seed)
    for op in frame.splits:
        size = math.prod(op.in_shapes[0])
        for _ in range(2):  # the second time some units are known
            units = torch.as_tensor(rng.integers(size, size=(7, 2)))
            factors = torch.as_tensor(rng.normal(size=(7, 2)))
            a, b = fronts.lines(op, units, factors, relaxations, frame.x0)
            rows = torch.zeros((7, size), dtype=torch.float64).scatter_add_(1, units, factors)
            bound = pull_back(frame.network, op.inputs[0], Coefficients(rows.reshape(1, 7, *op.in_shapes[0])), relaxations)
            want = bound.coefficients.full(frame.network.input_shape).flatten(2)
            torch.testing.assert_close(a, want, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(b, bound.lower_bias + want @ frame.x0, rtol=1e-9, atol=1e-9)


def test_cuts_raise_the_bound_of_a_root() -> None:
    found = with_cuts(random_dense(5, 8, 40, 40, 3), 5, 0.12, "auto")
    assert found is not None
    frame, bounder = found
    plain = Bounder(replace(frame, cuts={}))
    before = plain.bound(plain.roots(), 100, 1.0).nodes.radius
    after = bounder.bound(bounder.roots(), 100, 1.0).nodes.radius
    assert (after > 1.5 * before)[before > 0].any()


def tree_of(seed: int, reach: float, **options: Any) -> tuple[Frontier, float]:
    """A tree over a ball of `reach` times the distance, and the distance by the MILP."""
    network = random_dense(seed, 8, 40, 40, 3)
    x0, label = anchor(network, seed)
    true = measured(network, x0, label, threads=1)
    assert true.status == "exact"
    frame = frame_of(network, x0, label, reach * true.upper, tight=False)
    assert frame is not None
    settings = {"batch": 4, "narrow": 0, "steps": 1, "root_steps": 1, "look": 1, "hard": 20, **options}
    return Frontier(frame, BabOptions(**settings), reach * true.upper), true.upper


@pytest.mark.parametrize("reach", [1.5, 3.0])
@pytest.mark.parametrize("seed", [5, 8, 11, 12])
def test_no_tree_with_cuts_proves_more_than_the_distance(seed: int, reach: float) -> None:
    tree, true = tree_of(seed, reach, hard=1)
    tree.start()
    while tree.open and tree.visited < 400:
        tree.step(ignore)
    assert tree.frame.cuts
    assert min(tree.lowers().values()) <= true * (1 + 1e-6)


def ignore(_: torch.Tensor) -> None:
    pass


def grown(**options: Any) -> tuple[Frontier, float]:
    tree, true = tree_of(5, 3.0, **options)
    tree.start()
    while tree.open and tree.visited < 20:
        tree.step(ignore)
    return tree, true


def test_lowers_hold_before_and_after_cuts() -> None:
    tree, true = grown()
    assert not tree.frame.cuts
    before = min(tree.lowers().values())
    tree.step(ignore)
    assert tree.frame.cuts
    assert before <= min(tree.lowers().values()) <= true + 1e-9
    counts = {len(w.gamma) for _, _, w in tree._open}
    assert counts == {sum(tree.bounder.cut_counts)}
    for _ in range(5):
        tree.step(ignore)
        assert min(tree.lowers().values()) <= true + 1e-9


@pytest.mark.parametrize("call", [1, 2])
def test_interrupted_while_nodes_get_cuts(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    tree, true = grown()
    before = tree.lowers()
    bound, calls = Bounder.bound, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return bound(*args, **kwargs)

    monkeypatch.setattr(Bounder, "bound", failing)
    with pytest.raises(KeyboardInterrupt):
        tree.step(ignore)
    monkeypatch.undo()
    assert tree.lowers() == before
    tree.step(ignore)  # nodes without multipliers go on in a frame with cuts
    assert min(tree.lowers().values()) <= true + 1e-9


def test_no_cuts_where_time_is_short_or_none_are_wanted() -> None:
    tree, _ = grown(pairs=0)
    tree.step(ignore)
    assert not tree.frame.cuts
    tree, _ = grown()
    tree.budget = Budget().part(0.0)
    tree.step(ignore)
    assert not tree.frame.cuts


def plain_bounder() -> Bounder:
    """Of a frame without cuts that has pairs worth a cut."""
    network = random_dense(5, 8, 40, 40, 3)
    x0, label = anchor(network, 5)
    frame = frame_of(network, x0, label, 0.12, tight=False)
    assert frame is not None
    return Bounder(frame)


def test_no_cuts_where_their_rows_take_too_long() -> None:
    bounder = plain_bounder()
    root = bounder.bound(bounder.roots(), 10, 0.12)
    cuts, need = paired(bounder, root, root, 200)
    assert cuts
    assert need == 0
    cuts, need = paired(bounder, root, root, 200, Budget().part(0.0))
    assert not cuts
    assert need > 0


def test_as_many_cuts_as_the_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    bounder = plain_bounder()
    root = bounder.bound(bounder.roots(), 10, 0.12)
    counts = {}
    for ticks in (20, 60, 10**6):
        clock = itertools.count()
        monkeypatch.setattr("onnxsub.budget.time.perf_counter", lambda clock=clock: float(next(clock)))
        counts[ticks] = sum(len(c) for c in paired(bounder, root, root, 200, Budget().part(float(ticks)))[0].values())
    monkeypatch.undo()
    assert 0 < counts[20] < counts[10**6]
    assert counts[60] == counts[10**6] == sum(len(c) for c in paired(bounder, root, root, 200)[0].values())


@pytest.mark.parametrize("promising", [True, False])
def test_cuts_wait_until_the_tree_has_taken_long(monkeypatch: pytest.MonkeyPatch, promising: bool) -> None:
    monkeypatch.setattr(making, "_AS_LONG", 2.0)
    asked: list[tuple[float, float]] = []

    def refusing(bounder: Bounder, root: Any, hardest: Any, most: int, budget: Budget) -> tuple[dict[str, Any], float]:
        seconds = budget.deadline - budget.began
        asked.append((tree.spent, seconds))
        return {}, 3 * seconds if promising else 0.0

    monkeypatch.setattr(making, "paired", refusing)
    tree, _ = grown()
    while tree.open and tree.visited < 3000:
        tree.step(ignore)
    assert all(seconds <= 2 * spent for spent, seconds in asked)
    assert (len(asked) > 1) == promising  # where no pair is promising, none ever will be
    assert all(later >= 3 * before for (before, _), (later, _) in itertools.pairwise(asked))


def test_a_look_that_the_time_left_is_too_short_for_is_not_repeated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_AS_LONG", 1e9)
    asked: list[float] = []

    def refusing(bounder: Bounder, root: Any, hardest: Any, most: int, budget: Budget) -> tuple[dict[str, Any], float]:
        asked.append(tree.spent)
        return {}, 0.05

    monkeypatch.setattr(making, "paired", refusing)
    tree, _ = grown()
    tree.budget = Budget(100.0)
    for _ in range(200):
        tree.step(ignore)
    assert asked
    assert all(later >= before + 0.05 for before, later in itertools.pairwise(asked))


class Ended(Budget):
    """Has time for cuts, and is over when nodes are to meet them."""

    @property
    def over(self) -> bool:
        return True


def test_a_meeting_that_ends_early_leaves_the_tree_as_it_goes_on() -> None:
    tree, true = grown()
    assert tree.cutter.make(tree, ignore, Ended())
    assert tree.cutter.cut
    assert tree.cutter.hard
    assert tree._at_once == tree.frame.at_once(tree.options) == 2 * tree.options.batch
    tree.step(ignore)
    assert min(tree.lowers().values()) <= true + 1e-9


def test_a_line_that_is_no_number_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bounder = plain_bounder()
    line = bounder.line
    monkeypatch.setattr(bounder, "line", lambda *args: replace(line(*args), k=line(*args).k * torch.nan))
    assert (bounder.bound(bounder.roots(), 0, 0.12).nodes.radius == 0).all()
