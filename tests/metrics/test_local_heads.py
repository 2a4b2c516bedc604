"""Properties of scores speak of the scores that the file gives: whatever its end is read as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from onnxsub.errors import InputError
from onnxsub.metrics.local import LocalOptions, attack_local, decide_local, make_property
from onnxsub.metrics.local.extreme import extreme_local
from onnxsub.model import load_model
from onnxsub.query import Query, make_query
from tests.reading.files import ML, body, file, mlp, points, run, tensor
from tests.reading.test_ml import classifier

N = helper.make_node
X = tensor("x", ["N", 6])
ONE = {"one": np.ones(1, np.float32)}
PAIR = [N("Sigmoid", ["z"], ["p"]), N("Sub", ["one", "p"], ["q"]), N("Concat", ["q", "p"], ["pair"], axis=1)]


def pair() -> ModelProto:
    return file([*body(), *PAIR], X, [tensor("pair", ["N", 2])], mlp(3, classes=1, scale=0.3) | ONE)


def regression() -> ModelProto:
    """sklearn's LogisticRegression of two classes: one row, label and scores."""
    return classifier(1, 2, "LOGISTIC", 4)


def normalised(after: str) -> ModelProto:
    """Scores of one class against the rest each, divided by their sum or their length."""
    nodes = [*body(), N("Sigmoid", ["z"], ["p"]), N("Normalizer", ["p"], ["s"], domain=ML, norm=after)]
    return file(nodes, X, [tensor("s", ["N", 4])], mlp(1), ml=1)


def sigmoids() -> ModelProto:
    return file([*body(), N("Sigmoid", ["z"], ["p"])], X, [tensor("p", ["N", 4])], mlp(1))


def head(kind: str, size: float = 1.0) -> ModelProto:
    weights = mlp(1)
    weights |= {name: weights[name] * np.float32(size) for name in ("B", "b")}
    return file([*body(), N(kind, ["z"], ["p"], axis=1)], X, [tensor("p", ["N", 4])], weights)


def ask(proto: ModelProto) -> Query:
    return make_query(load_model(proto), points(5, 1, (6,))[0])


def own_scores(proto: ModelProto, x: Any) -> Any:
    """The file's own scores of some points, by onnxruntime."""
    return run(proto, x, proto.graph.output[-1].name)[0].astype(np.float64)


@pytest.mark.parametrize("proto", [pair(), regression(), head("Softmax")], ids=["pair", "regression", "softmax"])
def test_the_score_that_is_measured_is_that_of_the_file(proto: ModelProto) -> None:
    query = ask(proto)
    x = points(6, 500, (6,))
    ball = np.clip(query.x0 + np.float32(0.2) * (2 * x - 1), 0, 1).astype(np.float32)
    own = own_scores(proto, ball)
    strong = make_property("scr", 0.2, eta=0.5)
    np.testing.assert_allclose(strong.measure(query, ball).quantity, own[:, query.label], atol=1e-5)
    change = np.abs(own - own_scores(proto, query.x0[None])).max(1)
    same = make_property("confidence", 0.2, gamma=0.1)
    np.testing.assert_allclose(same.measure(query, ball).quantity, change, atol=1e-5)
    found = extreme_local(query, strong, 1e-3, LocalOptions(timeout=20))
    assert found.lower <= own[:, query.label].min() + 1e-5
    below, above = max(found.lower - 1e-3, 1e-3), found.upper + 1e-3
    assert decide_local(query, make_property("scr", 0.2, eta=below), LocalOptions(timeout=20)).status == "proved"
    assert decide_local(query, make_property("scr", 0.2, eta=above), LocalOptions(timeout=20)).status == "violated"


@pytest.mark.parametrize("proto", [sigmoids(), normalised("L1"), normalised("L2")], ids=["sigmoids", "L1", "L2"])
def test_scores_that_are_no_softmax_are_refused(proto: ModelProto) -> None:
    query = ask(proto)
    for prop in (make_property("scr", 0.1, eta=0.4), make_property("confidence", 0.1, gamma=0.1)):
        for answer in (decide_local, attack_local):
            with pytest.raises(InputError, match="no softmax of what they are made of"):
                answer(query, prop, LocalOptions(timeout=5))
    for prop in (make_property("cr", 0.01), make_property("sr", 0.01, delta=5.0)):
        assert decide_local(query, prop, LocalOptions(timeout=20)).status == "proved"


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_a_softmax_of_large_logits_is_one(kind: str) -> None:
    query = ask(head(kind, 1e5))
    assert decide_local(query, make_property("scr", 1e-7, eta=0.6), LocalOptions(timeout=20)).status == "proved"
