"""An attack within a limit of time, interrupted, with less effort, and with options that cannot be used."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.passes.attack import Attacker, AttackOptions, attack_network, walk_back
from onnxsub.passes.attack.descent import Objective
from onnxsub.passes.attack.effort import Effort, affordable
from onnxsub.passes.attack.polish import as_points
from onnxsub.passes.attack.walk import float64_confirm
from onnxsub.region import InputSpace
from tests.clock import Clock
from tests.passes.attack_tools import QUICK, SPACE, check, label_of, random_net

STAGES = ("anchor", "probe", "fgsm", "scout", "descend", "polish", "confirm")


def test_a_time_limit_hands_out_the_best_so_far_and_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    whole = attack_network(network, x0, label, SPACE, QUICK)
    assert not whole.timed_out
    assert whole.stage is None
    assert whole.to_json()["stage"] is None
    seen, radius = [], math.inf
    for looks in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 10_000):
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        result = attack_network(network, x0, label, SPACE, replace(QUICK, timeout=float(looks)))
        if result.found:
            check(result, network, x0, label)
        # more time never makes it worse, since one seed makes the same steps
        assert result.d_adv <= radius
        radius = result.d_adv
        assert result.timed_out == (result.stage is not None)
        assert result.to_json()["stage"] == result.stage
        seen.append(result.stage)
    assert seen[0] == "anchor"
    assert seen[-1] is None
    places = [STAGES.index(s) for s in seen if s is not None]
    assert places == sorted(places)
    assert len(set(places)) >= 5
    assert radius == whole.d_adv


def test_the_time_limit_is_a_part_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    for whole, own in ((30.0, None), (30.0, 500.0), (None, 30.0), (10_000.0, 30.0)):
        monkeypatch.setattr("onnxsub.budget.time", Clock())
        result = attack_network(network, x0, label, SPACE, replace(QUICK, timeout=own), budget=Budget(whole))
        assert result.timed_out
    budget = Budget()
    budget.stop.set()
    stopped = attack_network(network, x0, label, SPACE, QUICK, budget=budget)
    assert not stopped.timed_out  # it was the caller who ended it
    assert stopped.stage == "anchor"


def test_a_gradient_of_many_points_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    objective = Objective(network, x0, 0, SPACE, device="cpu", dtype=torch.float32)
    monkeypatch.setattr(objective, "_chunk", 4)
    monkeypatch.setattr("onnxsub.budget.time", Clock())
    points, targets = torch.zeros((20, 30)), torch.ones(20, dtype=torch.int64)
    for call in (lambda b: objective.gradient(points, targets, b), lambda b: objective.worst(points, b)):
        before = objective.evaluations
        with pytest.raises(OutOfTime):
            call(Budget(3.0))
        assert 0 < objective.evaluations - before < 20
        call(Budget(100.0))


def test_walking_back_without_time_still_replays_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    found = attack_network(network, x0, label, SPACE, QUICK)
    assert found.x_adv is not None
    budget = Budget()
    budget.stop.set()
    point = walk_back(network, x0, label, SPACE, found.x_adv, budget=budget)
    assert point is not None
    assert point.radius <= found.d_adv * (1 + 1e-3)
    assert float64_confirm(network, label)(point.x[None])[0][0] > 0


def test_an_interrupted_attack_keeps_its_best_point() -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    seen: list[str] = []

    def interrupt(share: float, text: str) -> None:
        assert 0 <= share <= 1
        seen.append(text)
        if "polish" in text:
            raise KeyboardInterrupt

    attacker = Attacker(network, x0, label, SPACE, AttackOptions(threads=1), progress=interrupt)
    threads = torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        attacker.run()
    assert torch.get_num_threads() == threads
    check(attacker.result(), network, x0, label)
    assert any("radius" in text for text in seen)
    fresh = Attacker(network, x0, label, SPACE)
    assert not fresh.result().found


def test_points_stay_inside_a_domain_that_float32_cannot_hold() -> None:
    space = InputSpace(0.1, 0.7)
    x = as_points(np.full(3, 0.4, dtype=np.float32), np.array([[-1.0, 0.0, 1.0]]), space).astype(np.float64)
    assert x.min() >= 0.1
    assert x.max() <= 0.7


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"method": "cw"}, "method"),
        ({"steps": 0}, "steps"),
        ({"restarts": 0}, "restarts"),
        ({"effort": 0.0}, "effort"),
        ({"effort": 1.5}, "effort"),
        ({"rounds": 0}, "rounds"),
        ({"threads": 0}, "threads"),
        ({"timeout": 0.0}, "timeout"),
        ({"upper": -1.0}, "radius"),
        ({"upper": math.nan}, "radius"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        AttackOptions(**options)


def test_less_effort_evaluates_less_and_still_finds() -> None:
    network = random_net(3, (20, 40, 40, 8))
    x0 = np.random.default_rng(3).random(20).astype(np.float32)
    label = label_of(network, x0)
    whole, less = (attack_network(network, x0, label, SPACE, AttackOptions(threads=1, effort=e)) for e in (1.0, 0.1))
    check(less, network, x0, label)
    assert less.evaluations <= 0.25 * whole.evaluations
    assert whole.d_adv <= less.d_adv <= 1.5 * whole.d_adv
    assert less.to_json()["settings"]["effort"] == 0.1


def test_what_is_affordable_falls_with_the_root_of_the_size() -> None:
    assert affordable(0) == affordable(1_000_000) == 1.0
    assert affordable(4 * 10**9) == pytest.approx(0.1)
    assert Effort.of(1.0, 32) == Effort(targets=64, signs=10, scouted=64, restarts=32, finalists=6)
    assert Effort.of(1e-9, 32) == Effort(targets=2, signs=2, scouted=2, restarts=2, finalists=2)
    assert Effort.of(1e-9, 1).restarts == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(InputError, match="CUDA"):
        AttackOptions(device="cuda")


def test_bad_anchors_and_start_points_are_refused() -> None:
    network = random_net(1, (8, 20, 4))
    x0 = np.full(8, 0.5, dtype=np.float32)
    with pytest.raises(InputError, match="shape"):
        attack_network(network, x0[:7], 0, SPACE)
    with pytest.raises(InputError, match="label"):
        attack_network(network, x0, 4, SPACE)
    with pytest.raises(InputError, match="start points"):
        attack_network(network, x0, 0, SPACE, AttackOptions(start=np.zeros((2, 7))))
    with pytest.raises(InputError, match="start points"):
        walk_back(network, x0, 0, SPACE, np.full(8, 1.5))


# real files
