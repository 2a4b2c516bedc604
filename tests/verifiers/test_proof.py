"""What proves, what does not, and what is said where a proof and a replayed point contradict each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import onnxsub.verifiers.box.model as box_model_module
import onnxsub.verifiers.bracket as bracket_module
from onnxsub.errors import ContradictionError
from onnxsub.instance import Instance
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.certify import certified_radius
from onnxsub.propagate import Bounds
from onnxsub.region import InputSpace
from onnxsub.verifiers.ascend import AttackPlan
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.conclude import concluded, work
from onnxsub.verifiers.decision import Decision, ball_spec
from onnxsub.verifiers.options import ExactOptions, Limits
from onnxsub.verifiers.proof import REAL_TIE, Claims, excluded, excludes
from onnxsub.verifiers.registry import engine_of
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.witness import Witness
from tests.verifiers.nets import UNIT, anchor, decided, dense, logits, measured, random_dense

BOTH = ("bab", "milp")
TWO_SIDED = dense(([[1.0], [-1.0]], [-0.5, 0.5]), ([[0.0, 0.0], [1.0, 1.0]], [0.2, 0.0]))
"""`f_1 - f_0 = |x - 0.5| - 0.2`: another class at x <= 0.3 and x >= 0.7."""
X0 = np.array([0.45], dtype=np.float32)
NARROW = dense(([[1.0], [-1.0]], [-0.5, 0.5]), ([[0.0, 0.0], [1.0, 1.0]], [0.1, 0.0]))
"""The same with 0.1 in place of 0.2."""


def point(radius: float, kind: str = "strict", margin: float = 0.5) -> Witness:
    return Witness(np.array([radius], dtype=np.float32), radius, 1, margin, kind)


def claims(real: float = 1.0, rounding: float = 0.0) -> Claims[str]:
    return Claims(("a", "b"), lambda _: real, lambda _: rounding)


@pytest.mark.parametrize(
    ("upper", "proves"),
    [
        (-1e-300, True), (-1.0, True), (-0.0, False), (0.0, False), (1.0, False), (math.nan, False), (math.inf, False),
        (-math.inf, False),
    ],
)  # fmt: skip
def test_only_a_number_below_zero_excludes(upper: float, proves: bool) -> None:
    assert excludes(upper) is proves
    assert excluded(np.array([upper, upper])).tolist() == [proves, proves]


def test_lower_ends_only_rise_and_no_number_raises_none() -> None:
    c = claims()
    for radius, lower in ((0.1, 0.1), (0.05, 0.1), (math.nan, 0.1), (-math.inf, 0.1), (0.2, 0.2)):
        c.prove("a", radius)
        assert c.lowers == {"a": lower, "b": 0.0}
    assert (c.lower, c.upper, c.open) == (0.0, math.inf, ["a", "b"])


def test_infinity_refutes_a_key_and_bounds_are_told_from_programs() -> None:
    c = claims()
    c.prove("a", 0.2, by_bounds=True)
    assert c.excluded == {"a"}
    c.prove("a", 0.3)
    assert c.excluded == set()
    c.prove("a", math.inf)
    assert c.open == ["b"]
    assert c.lower == 0.0
    c.prove("b", math.inf)
    assert (c.open, c.lower) == ([], math.inf)


def test_the_nearest_confirmed_point_is_the_upper_end() -> None:
    c = claims()
    c.reach("a", point(0.5), 0.5)
    c.reach("b", point(0.3, "tie"), 0.3)
    c.reach("b", point(0.4), 0.4)
    c.reach("a", point(0.1, "rejected"), 0.1)
    assert (c.upper, c.uppers) == (0.3, {"a": 0.5, "b": 0.3})
    assert c.best is not None
    assert c.best.kind == "tie"
    assert c.rejected is not None
    assert c.rejected.radius == 0.1


@pytest.mark.parametrize("order", ["proof first", "point first"])
@pytest.mark.parametrize("radius", [0.3, math.inf])
def test_a_contradiction_is_one_line_with_both_values(order: str, radius: float) -> None:
    c = claims(real=0.25)
    steps = [lambda: c.prove("a", radius), lambda: c.reach("a", point(0.1234, margin=0.625), 0.1234)]
    first, second = steps if order == "proof first" else reversed(steps)
    first()
    with pytest.raises(ContradictionError) as raised:
        second()
    text = str(raised.value)
    assert "\n" not in text
    assert ("no point" if math.isinf(radius) else "0.3") in text
    for value in ("0.1234", "0.625", "0.25", "'a'", "please report"):
        assert value in text
    assert c.diverged is None


def test_another_key_and_rounding_are_no_contradiction() -> None:
    c = claims(rounding=0.01)
    c.prove("a", 0.3)
    c.reach("b", point(0.1), 0.1)
    c.reach("a", point(0.2905), 0.2905)
    assert c.diverged is None
    assert c.upper == 0.1
    with pytest.raises(ContradictionError):
        c.reach("a", point(0.289), 0.289)


@pytest.mark.parametrize("real", [-1.0, 0.0, REAL_TIE, math.nan])
def test_a_point_of_float32_alone_is_kept_and_told_apart(real: float) -> None:
    c = claims(real)
    c.prove("a", 0.3)
    c.reach("a", point(0.1), 0.1)
    assert c.diverged is c.best is not None
    # the nearest such point is the one that is told of
    c.prove("b", 0.3)
    c.reach("b", point(0.2), 0.2)
    assert c.diverged.radius == 0.1
    c.reach("b", point(0.05), 0.05)
    assert c.diverged.radius == 0.05


@pytest.mark.parametrize("verifier", BOTH)
@pytest.mark.parametrize("fold", ["auto", "never"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_bounds_that_are_no_numbers_prove_nothing(monkeypatch: pytest.MonkeyPatch, value: float, fold: str, verifier: str) -> None:
    """Whatever end of the outputs is no number: a ball with a counterexample is never proved, nor its distance overstated."""
    network = random_dense(2, 6, 10, 3)
    x0, label = anchor(network, 2)
    true = measured(network, x0, label, replay=logits(network))
    assert true.status == "exact"

    monkeypatch.setattr(box_model_module, "_margins", lambda rows, bounds: margins(rows, bounds, value))
    asked = {"verifier": verifier, "fold": fold, "timeout": 10.0, "replay": logits(network), "attack": False}
    beyond = decided(network, x0, label, 1.3 * true.upper, **asked)
    assert beyond.status in ("violated", "unknown")
    found = measured(network, x0, label, **asked)
    assert found.lower <= true.upper + 1e-6
    assert found.upper >= true.lower - 1e-6


def margins(rows: Any, bounds: Bounds, value: float) -> tuple[Array, Array]:
    low, high = (end[0].double().numpy().copy() for end in bounds.output)
    high[...] = value
    low[rows.zero] = high[rows.zero] = -np.inf
    return low, high


@pytest.mark.parametrize("verifier", BOTH)
def test_float32_that_differs_is_the_answer_of_a_distance(verifier: str) -> None:
    """The judge has the boundary at 0.1 from the middle, the network at 0.2."""
    r = measured(TWO_SIDED, X0, 0, verifier=verifier, replay=logits(NARROW), threads=1)
    assert (r.status, r.lower) == ("bracket", 0.0)
    assert r.upper < 0.15
    assert r.witness is not None
    assert r.witness.confirmed
    assert r.reason is not None
    assert "\n" not in r.reason
    assert "float32 execution differs" in r.reason
    assert f"{r.upper:.6g}" in r.reason
    assert r.targets[1].lower == 0.0


@pytest.mark.parametrize("verifier", BOTH)
def test_float32_that_differs_is_the_answer_of_a_decision(verifier: str) -> None:
    # between 0.05 and 0.15 the judge has another class, and the network has not
    r = decided(TWO_SIDED, X0, 0, 0.12, verifier=verifier, replay=logits(NARROW), threads=1)
    assert r.status == "violated"
    assert r.witness is not None
    assert r.witness.confirmed
    assert r.witness.radius <= 0.12
    assert "over the real numbers it is none" in r.reason
    assert "float32 execution differs" in r.reason
    assert r.float32 == "violated"
    assert decided(TWO_SIDED, X0, 0, 0.04, verifier=verifier, replay=logits(NARROW), threads=1).status == "proved"


@pytest.mark.parametrize("verifier", BOTH)
def test_a_wrong_lower_end_of_a_distance_is_a_contradiction(monkeypatch: pytest.MonkeyPatch, verifier: str) -> None:
    monkeypatch.setattr(bracket_module, "certified_radius", lambda *args, **options: 0.4)
    # the verifier that searches few units by programs first certifies where it has little time
    with pytest.raises(ContradictionError) as raised:
        measured(TWO_SIDED, X0, 0, verifier=verifier, replay=logits(TWO_SIDED), threads=1, timeout=1.5)
    assert "\n" not in str(raised.value)
    assert "distance >= 0.4" in str(raised.value)
    assert "replayed: a point at 0." in str(raised.value)


@pytest.mark.parametrize("verifier", BOTH)
def test_a_wrong_proof_of_a_decision_is_a_contradiction(monkeypatch: pytest.MonkeyPatch, verifier: str) -> None:
    monkeypatch.setattr(box_model_module, "excludes", lambda upper: True)
    with pytest.raises(ContradictionError) as raised:
        decided(TWO_SIDED, X0, 0, 0.3, verifier=verifier, replay=logits(TWO_SIDED), threads=1)
    assert "\n" not in str(raised.value)
    assert "no point" in str(raised.value)
    # where the proof happens to be right, replayed points say nothing against it
    r = decided(TWO_SIDED, X0, 0, 0.14, verifier=verifier, replay=logits(TWO_SIDED), threads=1)
    assert (r.status, r.replayed > 0, r.witness) == ("proved", True, None)


@pytest.mark.parametrize("verifier", BOTH)
def test_a_proof_that_used_up_its_nodes_is_replayed(verifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the engine is interrupted as its proof ends."""
    engine = engine_of(verifier)
    assert engine is not None
    decide = type(engine).decide

    def late(self: Any, decision: Decision, plan: Any) -> None:
        decide(self, decision, plan)
        decision.budget.count(100)
        decision.budget.check()
        raise AssertionError("the limit is not seen")

    monkeypatch.setattr(type(engine), "decide", late)
    instance = Instance(TWO_SIDED, X0, 0, UNIT).judged
    decision = Decision(ball_spec(instance, 0.05), Session(ExactOptions(Limits(nodes=100))))
    work(decision, engine, AttackPlan())
    found = concluded(decision, verifier, eps=0.05)
    assert found.status == "proved"
    assert found.replayed > 0
    assert decision.budget.over


def test_what_was_asked_for_hides_no_contradiction() -> None:
    """A point of float32 alone within the tolerance is not told of; one over the real numbers contradicts the proof."""
    for real in (-1.0, 1.0):
        c: Claims[str] = Claims(("a",), lambda _, real=real: real, lambda _: 1e-9, 1e-6)
        c.reach("a", point(1e-7), 1e-7)
        if real > 0:
            with pytest.raises(ContradictionError):
                c.prove("a", 5e-7)
            continue
        c.prove("a", 5e-7)
        assert c.diverged is None
        c.prove("a", 5e-6)
        assert c.diverged is c.best


@pytest.mark.parametrize("k", [10, 24, 40])
@pytest.mark.parametrize("verifier", BOTH)
def test_a_wrong_lower_end_of_a_tiny_distance_is_a_contradiction(
    monkeypatch: pytest.MonkeyPatch, verifier: str, k: int
) -> None:
    """Another class at `0.25 / 2^k` from the anchor 0; float32 tells such numbers apart, so nothing absolute may hide a lie."""
    network, x0 = tiny(k), np.zeros(2, dtype=np.float32)
    options: dict[str, Any] = {"verifier": verifier, "replay": logits(network), "threads": 1, "timeout": 1.5}
    right = measured(network, x0, 0, SYMMETRIC, **options)
    assert right.lower <= 0.25 * 2.0**-k * (1 + 1e-5)
    assert right.upper >= 0.25 * 2.0**-k * (1 - 1e-5)
    monkeypatch.setattr(bracket_module, "certified_radius", lambda *args, **more: 0.3 * 2.0**-k)
    bracket = Bracket(Instance(network, x0, 0, SYMMETRIC, logits(network)), Session(ExactOptions(Limits(threads=1))))
    bracket.certify()
    with pytest.raises(ContradictionError):
        bracket.accept(np.full(2, 0.2501 * 2.0**-k))


def test_a_tiny_radius_is_certified() -> None:
    network, x0 = tiny(40), np.zeros(2)
    top = 2.0**-39
    found = certified_radius(network, lambda r: SYMMETRIC.ball(x0, r), 0, top, tol=0.05)
    assert 0.2 * 2.0**-40 < found <= 0.25 * 2.0**-40


SYMMETRIC = InputSpace(-1.0, 1.0)


def tiny(k: int) -> Network:
    """`f_1 - f_0 = 2^k (relu(x_0) + relu(x_1)) - 0.5`."""
    return dense(([[2.0**k, 0.0], [0.0, 2.0**k]], [0.0, 0.0]), ([[0.0, 0.0], [1.0, 1.0]], [0.5, 0.0]))
