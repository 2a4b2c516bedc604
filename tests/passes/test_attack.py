"""What an attack finds: exact distances where they are known, nothing where there is nothing, never a false point."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from onnxsub.budget import Budget
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack_network, walk_back
from onnxsub.passes.attack.descent import Objective
from onnxsub.passes.attack.walk import float64_confirm
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from tests.passes.attack_tools import QUICK, SPACE, check, dense, label_of, linear_distance, random_net


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
