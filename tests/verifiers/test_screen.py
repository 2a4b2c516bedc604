"""Boxes that are alike are bounded together: the same answers, in few passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import onnxsub.verifiers.screen as screen_module
from onnxsub.model import Model, load_model
from onnxsub.properties.property import Case, Clause, Property
from onnxsub.runtime import Runtime
from onnxsub.verifiers.options import Limits, MilpOptions
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.result import VerifyResult
from onnxsub.verifiers.verify import VerifyOptions
from tests.handmade import Net

BOTH = ("bab", "milp")
N = 60


def model() -> Model:
    net = Net(4, seed=5)
    h = net.node("Relu", [net.gemm("x", 4, 12)])
    return load_model(net.model(net.gemm(net.node("Relu", [net.gemm(h, 12, 12)]), 12, 3), 3))


def boxes(limits: tuple[float, ...], rows: int = 1) -> Property:
    """Boxes with the clause that the first outputs are at most a limit, the limits in turns."""
    rng = np.random.default_rng(1)
    cases = []
    for i in range(N):
        x, r = rng.random(4), rng.choice([0.0, 0.02, 0.1])
        clause = Clause(np.eye(3)[:rows], np.full(rows, limits[i % len(limits)]), np.zeros(rows, dtype=bool))
        cases.append(Case(x - r, x + r, (clause,)))
    return Property(tuple(cases), (4,), (3,))


def quantiles(shares: tuple[float, ...]) -> tuple[float, ...]:
    """Limits that so large a share of all points satisfy."""
    y = Runtime(model()).raw(np.random.default_rng(0).random((4000, 4)).astype(np.float32))
    return tuple(float(q) for q in np.quantile(y[:, 0], shares))


def asked(question: Property, **options: Any) -> VerifyResult:
    return decide_property(model(), question, VerifyOptions(Limits(nodes=3000, threads=1), **options))


@pytest.mark.parametrize("verifier", BOTH)
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("shares", [(0.0,), (0.0, 0.0005), (0.02,), (0.3,)])
def test_the_answers_are_those_of_boxes_one_by_one(
    monkeypatch: pytest.MonkeyPatch, shares: tuple[float, ...], rows: int, verifier: str
) -> None:
    question = boxes(tuple(q - 0.05 * (s == 0) for q, s in zip(quantiles(shares), shares, strict=True)), rows)
    together = asked(question, verifier=verifier)
    monkeypatch.setattr(screen_module, "_VALUES", 0)
    alone = asked(question, verifier=verifier)
    assert together.status == alone.status
    for a, b in zip(together.clauses, alone.clauses, strict=True):
        assert {a[0], b[0]} != {"proved", "violated"}
        # where all is told, it is the same
        assert a == b or alone.status == "violated"


def test_one_pass_bounds_all_boxes_of_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = screen_module.compute_bounds

    def counted(network: Any, lower: Any, *args: Any, **options: Any) -> Any:
        seen.append(len(lower))
        return plain(network, lower, *args, **options)

    monkeypatch.setattr(screen_module, "compute_bounds", counted)
    low, other = quantiles((0.0, 0.001))
    assert asked(boxes((low - 5.0, other - 5.0))).status == "proved"
    assert seen == [N // 2, N // 2]
    seen.clear()
    monkeypatch.setattr(screen_module, "_VALUES", 10 * (4 + 12 * 4 + 3))
    assert asked(boxes((low - 5.0,)), milp=MilpOptions(bounds_method="alpha-crown")).status == "proved"
    assert max(seen) <= 10
    assert sum(seen) == N


def test_one_box_is_bounded_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen_module, "compute_bounds", lambda *args, **options: pytest.fail("one box is no batch"))
    low = quantiles((0.0,))[0]
    question = boxes((low - 5.0,))
    assert asked(Property(question.cases[:1], (4,), (3,))).status == "proved"
