"""Decisions by one tree on a few matrices: against the distances of another engine, within limits, interrupted, without numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.verifiers.bab.dense import tree
from onnxsub.verifiers.bab.dense.inside import DenseInside
from onnxsub.verifiers.bab.dense.tree import DenseTree
from onnxsub.verifiers.options import BabOptions
from tests.verifiers.nets import anchor, decided, logits, measured, random_dense, random_network

# no programs of whole clauses, no halves of inputs, and little before the tree, or nothing would be left for it
FORCED = BabOptions(dive=0, inputs=0, leaf=0, tighten=0, root_steps=1, matrices=256)

NETWORKS: list[tuple[Callable[[int], Network], int]] = [
    *((lambda seed: random_dense(seed, 12, 30, 30, 3), seed) for seed in range(3)),
    *((lambda seed: random_dense(seed, 20, 40, 30, 4), seed) for seed in (1, 5)),
    *((lambda seed: random_dense(seed, 30, 50, 5), seed) for seed in (0,)),
    (random_network, 1),
]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nodes of every tree, by its last run: a test sees whether there was one."""
    found: list[int] = []
    plain = DenseInside.run

    def run(self: DenseInside, budget: Budget) -> None:
        try:
            plain(self, budget)
        finally:
            found.append(self._tree.nodes)

    monkeypatch.setattr(DenseInside, "run", run)
    monkeypatch.setattr(tree, "_ROOT", 2)
    monkeypatch.setattr(tree, "_ROUNDS", 0)
    return found


def test_decisions_agree_with_distances(nodes: list[int]) -> None:
    """`proved` below the distance and `violated` beyond it, with a lower and an upper end that another engine has found."""
    asked = 0
    for make, seed in NETWORKS:
        network = make(seed)
        x0, label = anchor(network, seed)
        d = measured(network, x0, label, verifier="milp", replay=logits(network), timeout=60)
        if d.status == "none":
            continue
        assert d.upper - d.lower < 0.01 * d.upper
        for share, end, status in ((0.6, d.lower, "proved"), (0.995, d.lower, "proved"), (1.005, d.upper, "violated")):
            found = decided(network, x0, label, share * end, verifier="bab", replay=logits(network), bab=FORCED, timeout=60)
            assert found.status == status, f"{share} of {end}: {found.reason}"
            asked += 1
    assert asked >= 15
    assert len([n for n in nodes if n > 3]) >= 6
    assert max(nodes) > 50


@pytest.fixture
def question() -> tuple[Network, np.ndarray, int, float]:
    """A network, an anchor, its class and a radius within which nothing lies; a tree of some 150 nodes."""
    network = random_dense(0, 12, 30, 30, 3)
    x0, label = anchor(network, 0)
    return network, x0, label, 0.995 * measured(network, x0, label, verifier="milp", replay=logits(network), timeout=60).lower


def test_a_limit_of_nodes_ends_it_without_an_answer(question: tuple[Network, np.ndarray, int, float], nodes: list[int]) -> None:
    network, x0, label, radius = question
    found = decided(network, x0, label, radius, verifier="bab", replay=logits(network), bab=FORCED, nodes=8, attack=False)
    assert found.status == "unknown"
    assert nodes


def test_an_interruption_keeps_what_was_closed(
    question: tuple[Network, np.ndarray, int, float], nodes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x0, label, radius = question
    plain = DenseTree.run

    def stopped(self: DenseTree, budget: Budget, done: Callable[[], bool]) -> None:
        plain(self, budget, done)
        if self.finished:
            raise KeyboardInterrupt

    monkeypatch.setattr(DenseTree, "run", stopped)
    found = decided(network, x0, label, radius, verifier="bab", replay=logits(network), bab=FORCED, timeout=60)
    assert found.interrupted
    assert found.status == "proved"  # every row was closed before the key was pressed


def test_numbers_that_are_none_close_nothing(
    question: tuple[Network, np.ndarray, int, float], nodes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x0, label, radius = question
    plain = tree.evaluate

    def without(*given: object, double: bool = False) -> object:
        found = plain(*given, double=double)  # type: ignore[arg-type]
        if double:
            found.value.mul_(np.nan)
        return found

    closed: list[Tensor] = []
    monkeypatch.setattr("onnxsub.verifiers.bab.dense.bound.evaluate", without)
    real = tree.certified
    monkeypatch.setattr(tree, "certified", lambda *given: closed.append(real(*given)) or closed[-1])
    found = decided(network, x0, label, 1.02 * radius, verifier="bab", replay=logits(network), bab=FORCED, nodes=300, attack=False)
    assert found.status != "proved"
    assert closed
    assert all(bool((c.isposinf() | c.isneginf()).all()) for c in closed)  # none, or an empty node
