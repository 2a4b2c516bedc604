"""Linear programs over large targets have a second of a distance in all; what they do not end goes to trees."""

from __future__ import annotations

import math
from typing import Any

import pytest

from onnxsub.verifiers import options
from onnxsub.verifiers.bab import distance as by_bab
from onnxsub.verifiers.bab import near
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.near import NearGoal, Patience
from tests.verifiers.nets import far_anchor, measured, random_dense

LARGE = 4  # units from which on a target counts as a large one here


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Open units of every target that programs were built for, and whether the session had given them up before."""
    monkeypatch.setattr(options, "_SMALL", LARGE)
    monkeypatch.setattr(by_bab, "search_dense", lambda _: None)  # which ends what is as small as this
    found: list[tuple[int, bool]] = []
    plain = DepthFirst.of

    def of(bracket: Any, model: Any, *args: Any, **more: Any) -> DepthFirst | None:
        found.append((model.binaries, bracket.session.bab.dive <= LARGE))
        return plain(bracket, model, *args, **more)

    monkeypatch.setattr(near.DepthFirst, "of", staticmethod(of))
    return found


@pytest.mark.parametrize("left", [0.0, math.inf])
@pytest.mark.parametrize("seed", range(4))
def test_the_distance_is_the_same(seed: int, left: float, asked: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_bab, "Patience", lambda: Patience(left))
    given_up: list[bool] = []
    plain = NearGoal.dive

    def dive(goal: NearGoal, *args: Any) -> bool:
        settled = plain(goal, *args)
        given_up.append(goal.gave_up)
        return settled

    monkeypatch.setattr(NearGoal, "dive", dive)
    network = random_dense(seed, 12, 16, 16, 3)
    x0, label = far_anchor(network, seed)
    reference = measured(network, x0, label, verifier="milp", timeout=60.0)
    asked.clear()
    found = measured(network, x0, label, verifier="bab", timeout=60.0)
    assert found.status == reference.status == "exact"
    assert found.lower <= reference.upper + 1e-6
    assert reference.lower <= found.upper + 1e-6
    large = [before for units, before in asked if units > LARGE]
    assert large
    assert not any(large)  # no program for a large target once they were given up
    assert any(given_up) == (left == 0)


def test_a_limit_of_nodes_counts_for_it_too(asked: list[tuple[int, bool]]) -> None:
    """Where the clock counts nodes, the answer does not hang on the machine's speed: patience is counted in nodes as well."""
    network = random_dense(2, 20, 30, 30, 3)
    x0, label = far_anchor(network, 2)
    first, second = (measured(network, x0, label, verifier="bab", nodes=300, threads=1) for _ in range(2))
    assert (first.status, first.lower, first.upper, first.nodes) == (second.status, second.lower, second.upper, second.nodes)
    assert asked
