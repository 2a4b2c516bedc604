"""Linear programs over large targets have a second of a distance in all; what they do not end goes to trees."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest

from onnxsub.budget import NODE, Budget
from onnxsub.verifiers import options
from onnxsub.verifiers.bab import distance as by_bab
from onnxsub.verifiers.bab import near
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.near import NearGoal, Patience
from onnxsub.verifiers.box.clause import ClauseModel
from tests.verifiers.nets import far_anchor, measured, random_dense
from tests.verifiers.windowed import one_layer


class Dive(NamedTuple):
    """Open units of a target, whether windows are among them, whether its goal gave programs up."""

    units: int
    windows: bool
    gave_up: bool


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


@pytest.fixture
def dives(monkeypatch: pytest.MonkeyPatch) -> list[Dive]:
    """Every target that came to linear programs."""
    found: list[Dive] = []
    plain = NearGoal.dive

    def dive(goal: NearGoal, model: ClauseModel, budget: Budget) -> bool:
        settled = plain(goal, model, budget)
        found.append(Dive(model.binaries, bool(model.local.network.windows), goal.gave_up))
        return settled

    monkeypatch.setattr(NearGoal, "dive", dive)
    return found


@pytest.mark.parametrize("left", [0.0, math.inf])
@pytest.mark.parametrize("seed", range(4))
def test_the_distance_is_the_same(
    seed: int, left: float, asked: list[tuple[int, bool]], dives: list[Dive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_bab, "Patience", lambda: Patience(left))
    network = random_dense(seed, 12, 16, 16, 3)
    x0, label = far_anchor(network, seed)
    reference = measured(network, x0, label, verifier="milp", timeout=60.0)
    asked.clear()
    dives.clear()
    found = measured(network, x0, label, verifier="bab", timeout=60.0)
    assert found.status == reference.status == "exact"
    assert found.lower <= reference.upper + 1e-6
    assert reference.lower <= found.upper + 1e-6
    large = [before for units, before in asked if units > LARGE]
    assert bool(large) == (left > 0)  # no program is built where there is no time for it
    assert not any(large)  # nor for a large target once they were given up
    assert any(d.units > LARGE for d in dives)
    assert any(d.gave_up for d in dives) == (left == 0)


def test_it_is_counted_down_over_all_radii(
    asked: list[tuple[int, bool]], dives: list[Dive], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In nodes where the clock counts them, so that two runs are the same; one patience serves the whole distance."""
    network = random_dense(2, 20, 30, 30, 3)
    x0, label = far_anchor(network, 2)
    found = []
    for _ in range(2):
        made: list[Patience] = []
        monkeypatch.setattr(by_bab, "Patience", lambda made=made: made.append(Patience(4 * NODE)) or made[-1])
        asked.clear()
        dives.clear()
        r = measured(network, x0, label, verifier="bab", nodes=300, threads=1)
        found.append((r.status, r.lower, r.upper, r.nodes, tuple(asked), tuple(dives)))
        assert len(made) == 1
        assert made[0].over
        assert made[0].left / NODE == pytest.approx(round(made[0].left / NODE), abs=1e-6)  # whole nodes
        assert sum(d.gave_up for d in dives) == 1
    assert found[0] == found[1]


@pytest.mark.parametrize("parts", [3, 7, 10])
def test_what_is_spent_in_parts_is_used_up(parts: int) -> None:
    """Sums of a node's seconds are off by rounding."""
    patience = Patience(parts * NODE)
    for _ in range(parts):
        assert not patience.over
        patience.left -= NODE
    assert patience.over


def test_windows_are_left_out_of_it(dives: list[Dive], monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear programs search their targets whatever comes, so giving them up would only begin the same search anew."""
    monkeypatch.setattr(options, "_SMALL", 1)
    monkeypatch.setattr(by_bab, "Patience", lambda: Patience(0.0))
    for seed in range(6):
        network = one_layer(seed)
        x0, label = far_anchor(network, seed)
        reference = measured(network, x0, label, verifier="milp", timeout=30.0)
        found = measured(network, x0, label, verifier="bab", timeout=30.0)
        assert found.status == "exact"
        assert found.lower <= reference.upper + 1e-6
        assert reference.lower <= found.upper + 1e-6
    over = [d for d in dives if d.units > 1 and d.windows]  # elsewhere the ball left no window open
    assert over
    assert not any(d.gave_up for d in over)
