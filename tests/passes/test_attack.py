from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.dense import Dense
from onnxsub.ops.relu import Relu
from onnxsub.passes.attack import Attacker, AttackOptions, AttackResult, attack, attack_network, walk_back
from onnxsub.passes.attack.descent import Objective
from onnxsub.passes.attack.effort import Effort, affordable
from onnxsub.passes.attack.polish import as_points
from onnxsub.passes.attack.walk import float64_confirm
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from tests.clock import Clock

SPACE = InputSpace()
QUICK = AttackOptions(steps=30, restarts=12, threads=1)


def dense(weights: list[tuple[Array, Array]], *, relu_last: bool = False) -> Network:
    """Gemm, Relu, Gemm, ..."""
    ops: list[Operator] = []
    name, size = "x", weights[0][0].shape[1]
    for i, (w, b) in enumerate(weights):
        out = len(w)
        shapes: dict[str, Any] = {"in_shapes": ((size,),), "out_shape": (out,)}
        ops.append(Dense(op_type="Gemm", node=f"g{i}", inputs=(name,), output=f"z{i}", weight=w, bias=b, **shapes))
        name, size = f"z{i}", out
        if i + 1 < len(weights) or relu_last:
            ops.append(Relu(op_type="Relu", node=f"r{i}", inputs=(name,), output=f"h{i}", in_shapes=((out,),), out_shape=(out,)))
            name = f"h{i}"
    return Network("x", (weights[0][0].shape[1],), name, tuple(ops))


def random_net(seed: int, sizes: tuple[int, ...], *, relu_last: bool = False) -> Network:
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(b, a)) / math.sqrt(a), rng.normal(size=b) * 0.3) for a, b in itertools.pairwise(sizes)]
    return dense(layers, relu_last=relu_last)


def label_of(network: Network, x0: Array) -> int:
    with torch.no_grad():
        return int(network.forward(torch.as_tensor(x0[None], dtype=torch.float64)).argmax())


def check(result: AttackResult, network: Network, x0: Array, label: int, space: InputSpace = SPACE) -> None:
    """What must hold of every point that is handed out."""
    assert result.found
    assert result.x_adv is not None
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.shape == x0.shape
    x = result.x_adv.astype(np.float64)
    assert x.min() >= space.lower
    assert x.max() <= space.upper
    assert result.d_adv == np.abs(x - x0.astype(np.float64)).max()
    margins, labels = float64_confirm(network, label)(result.x_adv[None])
    assert margins[0] > 0
    assert labels[0] == result.adversarial_label


def linear_distance(w: Array, b: Array, x0: Array, label: int, space: InputSpace) -> float:
    """The exact distance of a linear classifier, by bisection over the radius."""
    best = math.inf
    for t in range(len(w)):
        if t == label:
            continue
        g, m = w[t] - w[label], b[t] - b[label]

        def value(r: float, g: Array = g, m: float = m) -> float:
            low, high = space.ball(x0, r)
            return float(m + (g * np.where(g > 0, high, low)).sum())

        low, high = 0.0, space.reach(x0)
        if value(high) < 0:
            continue
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (low, middle) if value(middle) >= 0 else (middle, high)
        best = min(best, high)
    return best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("space", [SPACE, InputSpace(-2.0, 0.7)])
def test_a_linear_classifier_gets_its_exact_distance(seed: int, space: InputSpace) -> None:
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=(5, 30)), rng.normal(size=5)
    network = dense([(w, b)])
    x0 = (space.lower + (space.upper - space.lower) * rng.random(30)).astype(np.float32)
    label = label_of(network, x0)
    result = attack_network(network, x0, label, space, QUICK)
    check(result, network, x0, label, space)
    exact = linear_distance(w, b, x0.astype(np.float64), label, space)
    assert exact * (1 - 1e-9) <= result.d_adv <= exact * (1 + 3e-5) + 1e-7


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 7, 8, 10, 13, 38])
def test_in_two_dimensions_nothing_clearly_nearer_is_on_a_fine_grid(seed: int) -> None:
    network = random_net(seed, (2, 24, 24, 4))
    x0 = np.random.default_rng(100 + seed).random(2).astype(np.float32)
    label = label_of(network, x0)
    axis = np.linspace(0, 1, 501)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    with torch.no_grad():
        wrong = network.forward(torch.as_tensor(grid)).argmax(1).numpy() != label
    nearest = float(np.abs(grid[wrong] - x0).max(1).min()) if wrong.any() else math.inf
    result = attack_network(network, x0, label, SPACE, AttackOptions(threads=1))
    assert result.found == (nearest < math.inf)
    if result.found:
        check(result, network, x0, label)
        assert result.d_adv <= 1.005 * nearest


def test_fgsm_is_exact_on_a_linear_classifier_away_from_the_domain_ends() -> None:
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(4, 30)), rng.normal(size=4) * 0.1
    space = InputSpace(-100, 100)
    x0 = np.zeros(30, dtype=np.float32)
    network = dense([(w, b)])
    label = label_of(network, x0)
    result = attack_network(network, x0, label, space, AttackOptions(method="fgsm", threads=1))
    check(result, network, x0, label, space)
    assert result.d_adv == pytest.approx(linear_distance(w, b, x0.astype(np.float64), label, space), rel=1e-4)
    assert "descend" not in result.time_s


def test_methods_are_ordered() -> None:
    network = random_net(3, (20, 40, 40, 6))
    x0 = np.full(20, 0.5, dtype=np.float32)
    label = label_of(network, x0)
    fast, full, pgd = (
        attack_network(network, x0, label, SPACE, AttackOptions(method=m, threads=1)).d_adv for m in ("fgsm", "auto", "pgd")
    )
    assert full <= fast
    assert pgd == pytest.approx(full, rel=1e-3)


@pytest.mark.parametrize("method", ["auto", "pgd", "fgsm"])
def test_a_constant_network_has_no_adversarial_point(method: str) -> None:
    network = dense([(np.zeros((3, 4)), np.array([0.0, 1.0, 0.5]))])
    result = attack_network(network, np.full(4, 0.5, dtype=np.float32), 1, SPACE, AttackOptions(method=method, threads=1))
    assert not result.found
    assert result.d_adv == math.inf
    assert result.x_adv is None
    assert result.adversarial_label is None
    document = json.loads(dumps(result))
    assert document["schema"] == "onnxsub.attack/1"
    assert document["d_adv"] is None
    assert document["found"] is False


@pytest.mark.parametrize(("sign", "x"), [(1.0, 0.25), (-1.0, 0.75)])
def test_a_flat_network_is_left_by_the_corners_and_walked_back(sign: float, x: float) -> None:
    # class 1 wins only within 0.5 (in the 1-norm) of one corner of the cube; everywhere else all gradients are zero
    n = 6
    threshold = n - 0.5 if sign > 0 else -0.5
    network = dense([(np.full((1, n), sign), np.array([-threshold])), (np.array([[0.0], [1.0]]), np.array([0.1, 0.0]))])
    x0 = np.full(n, x, dtype=np.float32)
    result = attack_network(network, x0, 0, SPACE, QUICK)
    check(result, network, x0, 0)
    exact = 0.75 - 0.4 / n
    assert exact <= result.d_adv <= exact * (1 + 3e-5)


def test_ties_of_rectified_logits_are_not_adversarial_and_do_not_stop_the_attack() -> None:
    network = random_net(5, (12, 30, 5), relu_last=True)
    x0 = np.full(12, 0.5, dtype=np.float32)
    label = label_of(network, x0)
    result = attack_network(network, x0, label, SPACE, QUICK)
    check(result, network, x0, label)
    # every other logit is negative everywhere: the best that there is is a tie at 0
    dead = dense([(np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([-0.5, -1.0]))], relu_last=True)
    assert not attack_network(dead, np.full(2, 0.5, dtype=np.float32), 0, SPACE, QUICK).found


def test_the_rectified_margin_has_the_sign_of_the_true_one() -> None:
    network = random_net(5, (12, 30, 5), relu_last=True)
    x0 = np.full(12, 0.5, dtype=np.float32)
    label = label_of(network, x0)
    objective = Objective(network, x0, label, SPACE, device="cpu", dtype=torch.float64)
    delta = torch.as_tensor(np.random.default_rng(0).random((500, 12))) - 0.5
    surrogate, _ = objective.worst(delta, Budget())
    true, _ = float64_confirm(network, label)(x0 + delta.numpy())
    assert ((surrogate.numpy() > 0) == (true > 0)).all()


def test_a_misclassified_anchor_is_its_own_adversarial_point() -> None:
    network = random_net(1, (8, 20, 4))
    x0 = np.full(8, 0.5, dtype=np.float32)
    label = (label_of(network, x0) + 1) % 4
    result = attack_network(network, x0, label, SPACE, QUICK)
    check(result, network, x0, label)
    assert result.d_adv == 0.0
    assert result.x_adv is not None
    assert np.array_equal(result.x_adv, x0)


def test_the_same_seed_gives_the_same_point() -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    first, again, other = (
        attack_network(network, x0, label, SPACE, AttackOptions(seed=s, threads=1, steps=20)) for s in (7, 7, 8)
    )
    assert first.x_adv is not None
    assert again.x_adv is not None
    assert np.array_equal(first.x_adv, again.x_adv)
    assert first.d_adv == again.d_adv
    assert first.evaluations == again.evaluations
    assert other.d_adv == pytest.approx(first.d_adv, rel=0.05)


def test_many_classes() -> None:
    network = random_net(4, (20, 60, 150))
    x0 = np.full(20, 0.5, dtype=np.float32)
    label = label_of(network, x0)
    result = attack_network(network, x0, label, SPACE, QUICK)
    check(result, network, x0, label)


def test_two_classes_and_one_input() -> None:
    network = dense([(np.array([[0.0], [1.0]]), np.array([0.75, 0.0]))])
    result = attack_network(network, np.array([0.25], dtype=np.float32), 0, SPACE, QUICK)
    assert result.d_adv == pytest.approx(0.5, rel=1e-5)
    assert result.d_adv > 0.5


def test_no_point_beyond_the_largest_radius() -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    d = attack_network(network, x0, label, SPACE, QUICK).d_adv
    inside = attack_network(network, x0, label, SPACE, AttackOptions(steps=30, upper=1.5 * d, threads=1))
    assert inside.d_adv <= 1.05 * d
    assert not attack_network(network, x0, label, SPACE, AttackOptions(steps=30, upper=0.5 * d, threads=1)).found


def test_a_start_point_is_not_lost_and_walk_back_improves_it() -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    rng = np.random.default_rng(1)
    points = rng.random((4000, 30)).astype(np.float32)
    margins, _ = float64_confirm(network, label)(points)
    start = points[margins > 0][:3]
    radius = np.abs(start.astype(np.float64) - x0).max(axis=1).min()
    walked = walk_back(network, x0, label, SPACE, start)
    assert walked is not None
    assert walked.margin > 0
    assert walked.radius < 0.9 * radius
    assert walk_back(network, x0, label, SPACE, walked.x, upper=walked.radius) is not None
    result = attack_network(network, x0, label, SPACE, AttackOptions(method="fgsm", start=start[0], threads=1))
    check(result, network, x0, label)
    assert result.d_adv <= radius


def test_walk_back_makes_a_tie_strict() -> None:
    network = dense([(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([1.5, 0.0]))])
    tie = np.array([0.75, 0.75], dtype=np.float32)
    found = walk_back(network, np.array([0.5, 0.5], dtype=np.float32), 0, SPACE, tie)
    assert found is not None
    assert found.margin > 0
    assert 0.25 < found.radius <= 0.25 * (1 + 1e-4)


def test_walk_back_of_a_hopeless_point_says_none() -> None:
    network = dense([(np.zeros((2, 3)), np.array([1.0, 0.0]))])
    x0 = np.full(3, 0.5, dtype=np.float32)
    assert walk_back(network, x0, 0, SPACE, np.ones(3, dtype=np.float32)) is None
    assert walk_back(network, x0, 0, SPACE, x0) is None


def test_a_network_that_is_not_finite_everywhere_is_survived() -> None:
    network = dense([(np.array([[0.0, 0.0], [np.inf, 1.0]]), np.array([1.0, 0.0]))])
    x0 = np.array([0.0, 0.0], dtype=np.float32)
    result = attack_network(network, x0, 0, SPACE, QUICK, lambda x: (np.full(len(x), np.nan), np.zeros(len(x), int)))
    assert not result.found


def test_what_the_judge_refuses_is_not_handed_out() -> None:
    network = random_net(2, (30, 50, 50, 8))
    x0 = np.random.default_rng(0).random(30).astype(np.float32)
    label = label_of(network, x0)
    judge = float64_confirm(network, label)

    def stern(x: Array) -> tuple[Array, Array]:
        margins, labels = judge(x)
        return margins - 1e-3, labels

    result = attack_network(network, x0, label, SPACE, QUICK, stern)
    assert result.found
    assert result.x_adv is not None
    assert judge(result.x_adv[None])[0][0] > 1e-3
    assert not attack_network(network, x0, label, SPACE, QUICK, lambda x: (np.full(len(x), -1.0), np.zeros(len(x), int))).found


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


def write_model(path: Path, seed: int = 0) -> Path:
    """A small Gemm-Relu-Gemm classifier of normalised inputs, with a fixed batch of 1."""
    rng = np.random.default_rng(seed)
    sizes = {"w0": (32, 12), "b0": (32,), "w1": (4, 32), "b1": (4,)}
    arrays = {name: rng.normal(size=size) / math.sqrt(size[-1]) for name, size in sizes.items()}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w0", "b0"], ["z"], transB=1),
            helper.make_node("Relu", ["z"], ["h"]),
            helper.make_node("Gemm", ["h", "w1", "b1"], ["y"], transB=1),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def confirmed(result: AttackResult, query: Query) -> None:
    """What must hold of a point on a file."""
    assert result.found
    assert result.x_adv is not None
    margins, labels = query.margins(result.x_adv[None])
    assert margins[0] == result.margin > 0
    assert labels[0] == result.adversarial_label
    assert query.radius(result.x_adv[None])[0] == result.d_adv
    assert result.x_adv.min() >= query.space.lower
    assert result.x_adv.max() <= query.space.upper


def test_a_file_with_normalisation_and_a_fixed_batch(tmp_path: Path) -> None:
    space = InputSpace(0, 255, mean=(120.0, 110.0, 100.0), std=(60.0, 65.0, 70.0))
    x0 = np.random.default_rng(3).integers(0, 256, size=(3, 2, 2)).astype(np.float32)
    query = make_query(write_model(tmp_path / "small.onnx"), x0, space=space, threads=1)
    result = attack(query, QUICK)
    confirmed(result, query)
    assert result.d_adv > 1e-3  # in units of the un-normalised input
    document = json.loads(dumps(result))
    assert document["model"]["sha256"] == query.model.sha256
    assert document["anchor"]["label"] == query.label
    assert document["settings"]["steps"] == QUICK.steps
    assert document["time_s"]["total"] >= document["time_s"]["descend"]
    wrong = make_query(query.model, x0, (query.predicted + 1) % 4, space=space, threads=1)
    assert attack(wrong, QUICK).d_adv == 0.0


def mnist(data_dir: Path, index: int) -> Array:
    with np.load(data_dir / "data" / "mnist.npz") as archive:
        return np.asarray(archive["x_test"][index].reshape(-1).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize(
    ("net", "table", "column"),
    [
        ("wk17a", "wk17a_linf0.1_mipverify_idx0_249.csv", "min_linf_distance"),
        ("mnist-net_256x2", "fc256x2_exact_distance.csv", "distance"),
    ],
)
def test_published_distances_are_reached(
    data_dir: Path, net_path: Callable[[str], Path], net: str, table: str, column: str
) -> None:
    with (data_dir / "gt" / table).open() as file:
        rows = [r for r in csv.DictReader(file) if r[column]]
    assert rows
    excess = []
    for row in rows:
        query = make_query(net_path(net), mnist(data_dir, int(row["test_index"])), int(row["label"]), threads=1)
        result = attack(query, AttackOptions(threads=1))
        confirmed(result, query)
        excess.append(result.d_adv / float(row[column]) - 1)
    assert min(excess) > -1e-4  # the tables carry the solvers' tolerance of 1e-5
    assert np.mean(excess) <= 0.01
    assert max(excess) <= 0.03


@pytest.mark.slow
@pytest.mark.parametrize("net", ["mnist_relu_6_100", "mnist_conv_maxpool", "cifar_base_kw_norm", "cifar_resnet2b_norm"])
def test_other_kinds_of_networks(data_dir: Path, net_path: Callable[[str], Path], net: str) -> None:
    with np.load(data_dir / "data" / ("cifar10.npz" if "cifar" in net else "mnist.npz")) as archive:
        images = archive["x_test"][:4].astype(np.float32) / np.float32(255)
    for image in images:
        query = make_query(net_path(net), image, threads=1)
        confirmed(attack(query, AttackOptions(threads=1)), query)
