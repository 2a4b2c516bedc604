"""One tree per target out of a tree of many: nothing is lost, and decisions agree with the distances of another engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from onnxsub.network import Network
from onnxsub.verifiers.bab import question
from onnxsub.verifiers.bab.divide import divided
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.options import BabOptions
from tests.verifiers.bab_tools import target_models
from tests.verifiers.nets import anchor, decided, logits, measured, random_dense, random_network

# no programs of whole clauses, no halves of inputs, little before the tree, and trees that count as hard at once
FORCED = BabOptions(dive=0, inputs=0, leaf=0, tighten=0, root_steps=1, hard=2, batch=2, steps=4, look=4)

NETWORKS: list[tuple[Callable[[int], Network], int]] = [
    *((lambda seed: random_dense(seed, 12, 30, 30, 5), seed) for seed in range(3)),
    *((lambda seed: random_dense(seed, 20, 40, 30, 6), seed) for seed in (1, 5)),
    *((lambda seed: random_dense(seed, 30, 50, 5), seed) for seed in (0,)),
    (random_network, 1),
]


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many trees each division made: a test sees whether there was one."""
    found: list[int] = []

    def counted(tree: Frontier) -> list[Frontier]:
        parts = divided(tree)
        found.append(len(parts))
        return parts

    monkeypatch.setattr(question, "divided", counted)
    return found


@pytest.fixture
def tree() -> Frontier:
    """A tree of several targets, some steps old, in a radius in which it stays open."""
    network = random_dense(0, 12, 30, 30, 5)
    x0, label = anchor(network, 0)
    radius = 1.5 * measured(network, x0, label, verifier="milp", replay=logits(network), timeout=60).upper
    models = target_models(network, x0, label, radius, tight=False)
    found = Frontier(Frame.of(models), replace(FORCED, hard=10_000), radius)
    found.start()
    for _ in range(3):
        found.step(lambda _: None)
    return found


def test_every_target_keeps_its_nodes(tree: Frontier) -> None:
    tree.leaves, tree.given_up = [], []
    lowers, count = tree.lowers(), tree.open
    parts = divided(tree)
    assert len(parts) > 1
    assert sum(p.open for p in parts) == count
    found = {k: v for p in parts for k, v in p.lowers().items()}
    assert found == {k: lowers[k] for k in found}
    assert all(lowers[k] >= tree.close for k in set(lowers) - set(found))
    assert tree.lowers() == lowers


def test_leaves_and_nodes_of_a_step_cut_short_are_kept(tree: Frontier) -> None:
    """What waits elsewhere than among the open nodes counts for what is proved, too."""
    (one,) = tree.pop(1)  # as an interruption leaves it
    tree.leaves.append(one)
    tree.given_up.append(one)
    parts = {p.frame.keys[0]: p for p in divided(tree)}
    mine = parts[tree.frame.keys[one.target]]
    assert [len(mine.leaves), len(mine.given_up)] == [1, 1]
    assert mine.lowers()[tree.frame.keys[one.target]] <= one.key
    assert sum(p.open for p in parts.values()) == tree.open


def test_bounds_of_a_divided_tree_are_those_of_the_whole(tree: Frontier) -> None:
    for part in divided(tree):
        batch = part.batch(list(part.all_open()))
        target = tree.frame.keys.index(part.frame.keys[0])
        theirs = [w for w in tree.all_open() if w.target == target]
        here, there = part.bounder.bound(batch, 0, part.close), tree.bounder.bound(tree.batch(theirs), 0, tree.close)
        # products of other shapes may be summed in another order
        np.testing.assert_allclose(here.line.k.sort().values.numpy(), there.line.k.sort().values.numpy(), rtol=1e-12, atol=1e-14)


def test_decisions_agree_with_distances(trees: list[int]) -> None:
    """`proved` below the distance and `violated` beyond it, with a lower and an upper end that another engine has found."""
    asked = 0
    for make, seed in NETWORKS:
        network = make(seed)
        x0, label = anchor(network, seed)
        d = measured(network, x0, label, verifier="milp", replay=logits(network), timeout=60)
        if d.status == "none":
            continue
        assert d.upper - d.lower < 0.01 * d.upper
        for share, end, status in ((0.8, d.lower, "proved"), (0.995, d.lower, "proved"), (1.005, d.upper, "violated")):
            found = decided(network, x0, label, share * end, verifier="bab", replay=logits(network), bab=FORCED, timeout=60)
            assert found.status == status, f"{share} of {end}: {found.reason}"
            asked += 1
    assert asked >= 15
    assert len(trees) >= 3
    assert max(trees) >= 3
