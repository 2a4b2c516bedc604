"""One decision at a radius agrees with the distance, and says proved and violated only for good reasons."""

from __future__ import annotations

import json

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.results import dumps
from onnxsub.verifiers.result import VerifyResult
from onnxsub.verifiers.witness import ball_float32
from tests.random_models import PIECEWISE
from tests.verifiers.nets import anchor, decided, dense, logits, measured, random_dense, random_network, worst

TWO_SIDED = dense(([[1.0], [-1.0]], [-0.5, 0.5]), ([[0.0, 0.0], [1.0, 1.0]], [0.2, 0.0]))
X0 = np.array([0.45], dtype=np.float32)


def ask(network, x0, label, eps, **options) -> VerifyResult:
    return decided(network, x0, label, eps, threads=1, replay=logits(network), **options)


@pytest.mark.parametrize("attack", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_distance(seed: int, attack: bool) -> None:
    network = random_network(seed, activations=PIECEWISE, kind="dense")
    x0, label = anchor(network, seed)
    d = measured(network, x0, label, threads=1, replay=logits(network))
    if d.status == "none":
        assert ask(network, x0, label, 1.0, attack=attack).status == "proved"
        return
    below = ask(network, x0, label, 0.99 * d.lower, attack=attack)
    assert below.status == "proved"
    assert set(below.targets.values()) == {"proved"}
    above = ask(network, x0, label, 1.01 * d.upper + 1e-6, attack=attack)
    assert above.status == "violated"
    w = above.witness
    assert w is not None
    assert w.radius <= above.eps
    assert np.abs(w.x.astype(np.float64) - x0).max() <= above.eps
    assert worst(network, label, w.x[None])[0] >= 0


def test_bounds_alone_prove_what_they_can() -> None:
    r = ask(TWO_SIDED, X0, 0, 0.01)
    assert (r.status, r.runs) == ("proved", 0)
    assert "bounds" in r.reason


def test_a_linear_program_proves() -> None:
    r = ask(TWO_SIDED, X0, 0, 0.1499, tighten="none")
    assert r.status == "proved"


def test_violated_by_the_program_alone() -> None:
    r = ask(TWO_SIDED, X0, 0, 0.16, attack=False)
    assert r.status == "violated"
    assert r.targets == {1: "violated"}
    assert (r.solver, r.runs > 0) == ("highs", True)
    assert r.witness is not None
    assert r.witness.kind == "strict"


def test_the_radius_itself_is_never_called_proved() -> None:
    assert ask(TWO_SIDED, X0, 0, float(np.float64(X0[0]) - 0.3)).status in ("unknown", "violated")


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_a_witness_never_lies_outside_by_a_rounding_of_the_ball(verifier: str) -> None:
    """0.375 + eps is 0.5 in float64, where there is a tie, and eps is less than 0.125."""
    network, eps = dense(([[0.0], [1.0]], [0.5, 0.0])), float(np.nextafter(0.125, 0))
    assert 0.375 + eps == 0.5
    r = decided(network, np.array([0.375], dtype=np.float32), 0, eps, replay=logits(network), verifier=verifier, threads=1)
    assert r.status in ("proved", "unknown")
    low, high = ball_float32((np.array([2.0]), np.array([4.0])), np.array([3.0]), float(np.nextafter(1.0, 0)), whole=True)
    assert (low, high) == (3, 3)


def test_zero_radius_and_wrong_anchor() -> None:
    assert ask(TWO_SIDED, X0, 0, 0.0).status == "proved"
    wrong = ask(TWO_SIDED, np.array([0.1], dtype=np.float32), 0, 0.0)
    assert wrong.status == "violated"
    assert wrong.witness is not None
    assert wrong.witness.radius == 0


def test_a_witness_that_the_replay_rejects_is_unknown() -> None:
    safe = np.array([1.0, 0.0])
    r = decided(TWO_SIDED, X0, 0, 0.3, threads=1, replay=lambda x: np.tile(safe, (len(x), 1)))
    assert r.status == "unknown"
    assert r.witness is not None
    assert r.witness.kind == "rejected"
    assert json.loads(dumps(r))["adversarial_label"] is None


def test_time_limit_is_unknown() -> None:
    network = random_dense(0, 30, 60, 60, 60, 10)
    x0, label = anchor(network, 0)
    r = ask(network, x0, label, 0.1, timeout=0.5)
    assert r.status in ("unknown", "violated")
    if r.status == "unknown":
        assert "time" in r.reason


@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf")])
def test_eps_is_checked(eps: float) -> None:
    with pytest.raises(InputError, match="--eps"):
        ask(TWO_SIDED, X0, 0, eps)


def test_json() -> None:
    document = json.loads(dumps(ask(TWO_SIDED, X0, 0, 0.2)))
    assert document["schema"] == "onnxsub.verify/2"
    assert document["status"] == "violated"
    assert document["witness"]["kind"] == "strict"
    assert document["witness"]["distance"] <= 0.2
