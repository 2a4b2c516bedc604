"""What a search on the model itself (`certify`) adds to the answer on its substitute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxsub.errors import ContradictionError, OptionError
from onnxsub.model import load_model
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers import original
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.result import DistanceResult, TargetResult
from tests.handmade import Net
from tests.test_target import QUICK, SPACE, X0, small

LIMITS = Limits(timeout=60, threads=1)
VIA = PruneOptions(method="lin", select=SelectOptions(gamma=None, keep=3), attack=QUICK)
PLAIN = DistanceOptions(LIMITS, via=VIA, attack=QUICK)


def asked(seed: int) -> Query:
    return make_query(load_model(small(seed)), X0, space=SPACE)


@pytest.mark.parametrize("verifier", ["bab", "milp"])
def test_it_closes_the_bracket_of_the_model(verifier: str) -> None:
    wider = 0
    for seed in range(4):
        query = asked(seed)
        exact = distance(query, DistanceOptions(LIMITS, attack=QUICK))
        assert exact.status == "exact"
        plain = distance(query, PLAIN).original
        found = distance(query, replace(PLAIN, certify=30, verifier=verifier)).original
        assert plain is not None
        assert found is not None
        assert found.witness is not None
        assert plain.nodes == 0
        assert plain.lower <= exact.upper + 1e-6
        wider += plain.upper - plain.lower > 1e-5
        assert 0 <= found.upper - found.lower <= 1e-5
        assert found.upper == pytest.approx(exact.upper, abs=1e-5)
        # replayed on the model's file
        assert query.radius(found.witness.x[None])[0] == found.upper
        assert query.margins(found.witness.x[None])[0][0] >= -1e-5 * np.abs(query.logits(found.witness.x[None])).max()
    assert wider


def test_a_claim_beyond_a_replayed_point_is_a_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = original.searched

    def wrong(*args: Any, **kwargs: Any) -> DistanceResult:
        found = plain(*args, **kwargs)
        targets = {t: TargetResult(2 * found.upper, 2 * found.upper, "exact") for t in found.targets}
        return replace(found, lower=2 * found.upper, targets=targets)

    monkeypatch.setattr("onnxsub.verifiers.via.searched", wrong)
    with pytest.raises(ContradictionError, match="please report"):
        distance(asked(1), replace(PLAIN, certify=30))


def test_what_no_search_can_be() -> None:
    with pytest.raises(OptionError, match="--via METHOD:GAMMA"):
        DistanceOptions(certify=10)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(OptionError, match="positive number of seconds"):
            DistanceOptions(via=VIA, certify=seconds)


def test_it_ends_with_its_seconds_and_with_the_limit() -> None:
    query = asked(2)
    none = distance(query, replace(PLAIN, certify=1e-9)).original
    plain = distance(query, PLAIN).original
    assert none is not None
    assert plain is not None
    assert none.lower == pytest.approx(plain.lower)
    counted = distance(query, replace(PLAIN, limits=Limits(nodes=1, threads=1), certify=30)).original
    assert counted is not None
    assert counted.lower <= plain.upper + 1e-6


@pytest.mark.parametrize("size", [1e-3, 1e-9])
def test_the_same_at_radii_of_any_size(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """A lower end a tenth above a replayed point, in a domain so small that all radii are below 1e-6."""
    query, plain = tiny(size), replace(PLAIN, via=replace(VIA, select=SelectOptions(gamma=None, keep=1)))
    monkeypatch.setattr(original, "certified_radius", lambda *args, **options: 1.1 * 0.25 * size)
    with pytest.raises(ContradictionError, match="please report"):
        distance(query, plain)
    monkeypatch.setattr(original, "certified_radius", lambda *args, **options: 0.2 * size)
    found = distance(query, plain).original
    assert found is not None
    assert found.upper == pytest.approx(0.25 * size, rel=1e-3)


def tiny(size: float) -> Query:
    """`f_1 - f_0 = relu(x_0 / size) + relu(x_1 / size) - 0.5` round 0, in a domain of four times that size."""
    net = Net(2)
    h = net.node("Gemm", ["x", net.weight(np.eye(2) / size), net.weight(np.zeros(2))], transB=1)
    last = [net.node("Relu", [h]), net.weight(np.array([[0.0, 0.0], [1.0, 1.0]])), net.weight(np.array([0.5, 0.0]))]
    model = load_model(net.model(net.node("Gemm", last, transB=1), 2))
    return make_query(model, np.zeros(2, dtype=np.float32), space=InputSpace(-4 * size, 4 * size))
