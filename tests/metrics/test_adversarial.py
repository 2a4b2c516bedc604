"""Pairs (anchor, target): which are asked, that every example replays, that jobs and interruptions change nothing that is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxsub.errors import InputError
from onnxsub.metrics import adversarial_pairs
from onnxsub.metrics.adversarial import AdversarialOptions, Anchor, Targets, work_pair
from onnxsub.metrics.adversarial_pairs import Pairs, find_pairs
from onnxsub.metrics.margin import MarginOptions
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.options import Limits
from tests.random_models import random_model

MARGIN = MarginOptions(Limits(threads=1, timeout=20))
OPTIONS = AdversarialOptions(0.15, margin=MARGIN)


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "net.onnx"
    onnx.save(random_model(5, kind="dense", classes=3), path)
    return str(path)


def anchors(model: str, count: int = 4, label: int | None = None) -> list[Anchor]:
    shape = [d.dim_value for d in onnx.load(model).graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(0).random((count, *shape)).astype(np.float32)
    return [Anchor(10 + i, row, label) for i, row in enumerate(x)]


def facts(pairs: Pairs) -> list[dict[str, Any]]:
    """All that does not depend on the clock."""
    return [{k: v for k, v in p.to_json().items() if k != "seconds"} for p in pairs.pairs]


def test_every_pair_is_solved_and_every_example_replays(model: str) -> None:
    given = anchors(model)
    told: list[tuple[float, str]] = []
    pairs = find_pairs(model, given, OPTIONS, progress=lambda share, text: told.append((share, text)))
    assert len(pairs.pairs) == pairs.planned == 2 * len(given)
    assert [(p.sample, p.target) for p in pairs.pairs] == sorted((p.sample, p.target) for p in pairs.pairs)
    assert told[-1][0] == 1.0
    assert {p.verdict for p in pairs.pairs} >= {"example", "none"}
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for f in pairs.found:
        p, x0 = f.pair, next(a.x for a in given if a.sample == f.pair.sample)
        logits = session.run(None, {name: f.x[None]})[0][0].astype(np.float64)
        assert p.upper == pytest.approx(logits[p.label] - logits[p.target], abs=1e-5)
        assert (p.verdict == "example") == (logits[p.target] > logits[p.label])
        assert p.predicted == logits.argmax()
        assert np.abs(f.x.astype(np.float64) - x0).max() == p.distance <= OPTIONS.eps
        assert p.lower <= p.upper
        if p.verdict == "none":
            assert p.lower > 0
    assert pairs.examples == tuple(f for f in pairs.found if f.pair.upper < 0)


def test_processes_give_the_same(model: str) -> None:
    given = anchors(model, 2)
    alone, two = (find_pairs(model, given, OPTIONS, jobs=jobs) for jobs in (1, 2))
    assert facts(two) == facts(alone)
    assert all(np.array_equal(a.x, b.x) for a, b in zip(alone.found, two.found, strict=True))


def test_misclassified_anchors_have_no_pairs(model: str) -> None:
    first = anchors(model, 1)[0]
    q = make_query(model, first.x, threads=1)
    wrong = replace(first, sample=3, label=q.targets[0])
    pairs = find_pairs(model, [first, wrong], OPTIONS)
    assert pairs.misclassified == (3,)
    assert {p.sample for p in pairs.pairs} == {10}
    assert pairs.labels == {10: q.label, 3: q.targets[0]}
    nothing = find_pairs(model, [wrong], OPTIONS)
    assert nothing.planned == len(nothing.found) == 0


@pytest.mark.parametrize("inside", [False, True], ids=["between pairs", "inside a pair"])
def test_an_interruption_keeps_what_is_done(model: str, inside: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def work(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3 and not inside:
            raise KeyboardInterrupt
        result, x = work_pair(*args)
        return {**result, "interrupted": inside and calls == 3}, x

    monkeypatch.setattr(adversarial_pairs, "work_pair", work)
    kept: list[int] = []
    pairs = find_pairs(model, anchors(model), OPTIONS, keep=lambda now: kept.append(len(now.found)))
    assert pairs.interrupted
    assert len(pairs.found) == kept[-1] == (3 if inside else 2)
    assert pairs.planned == 8


def test_a_unit_of_work_is_plain_values(model: str) -> None:
    q = make_query(model, anchors(model)[0].x, threads=1)
    result, x = work_pair(q, q.targets[1], 0.1, MARGIN)
    assert result["target"] == q.targets[1]
    assert result["interrupted"] is False
    assert result["lower"] <= result["upper"]
    assert x.dtype == np.float32
    assert x.shape == q.x0.shape


def test_targets(model: str) -> None:
    q = make_query(model, anchors(model)[0].x, threads=1)
    assert Targets.parse("all").of(q) == q.targets
    f = q.logits(q.x0[None])[0]
    (second,) = Targets.parse("runner-up").of(q)
    assert second == int(np.argsort(f)[-2])
    assert Targets.parse(f" {q.label}, {second}").of(q) == (second,)
    assert [str(Targets.parse(t)) for t in ("all", "runner-up", "2,0")] == ["all", "runner-up", "2,0"]
    for text, what in (("most", "is unknown"), ("", "is unknown"), ("1,-2", "is unknown"), ("1,1", "twice")):
        with pytest.raises(InputError, match=what):
            Targets.parse(text)
    with pytest.raises(InputError, match="out of range"):
        Targets.parse("9").of(q)


def test_bad_input(model: str) -> None:
    with pytest.raises(InputError, match="--jobs 0"):
        find_pairs(model, anchors(model), OPTIONS, jobs=0)
    with pytest.raises(InputError, match="not a radius"):
        AdversarialOptions(-1.0)
    with pytest.raises(InputError, match="out of range"):
        find_pairs(model, anchors(model), replace(OPTIONS, targets=Targets.parse("5")))
    with pytest.raises(InputError, match="outside the domain"):
        find_pairs(model, anchors(model), replace(OPTIONS, space=InputSpace(0.0, 0.1)))
