"""Operators of ai.onnx.ml against onnxruntime, versions of their own domain, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from onnxsub.errors import ModelError, UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.model_info import info
from onnxsub.propagate import compute_bounds
from onnxsub.query import make_query
from onnxsub.reading import Reading
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from tests.reading.files import ML, body, file, mlp, points, run, tensor

I64 = TensorProto.INT64
X = tensor("x", ["N", 6])


def classifier(rows: int, labels: int, after: str, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "scores"], domain=ML,
        coefficients=rng.normal(size=rows * 6).astype(np.float32).tolist(), classlabels_ints=list(range(3, 3 + labels)),
        intercepts=rng.normal(size=rows).astype(np.float32).tolist(), post_transform=after,
    )  # fmt: skip
    return file([node], X, [tensor("label", ["N"], I64), tensor("scores", ["N", labels])], {}, opset=None, ml=1)


@pytest.mark.parametrize(
    ("rows", "labels", "after"), [(4, 4, "NONE"), (4, 4, "SOFTMAX"), (4, 4, "LOGISTIC"), (2, 2, "SOFTMAX"), (1, 2, "LOGISTIC")]
)
def test_linear_classifiers(rows: int, labels: int, after: str) -> None:
    proto = classifier(rows, labels, after, 10 * rows + labels)
    model = load_model(proto)
    x = 4 * points(1, 200, (6,)) - 2
    with torch.no_grad():
        z = lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    label, scores = run(proto, x)
    form = "SOFTMAX" if rows == 1 else after  # one row s of two classes: (0, s), and its softmax is (1 - p, p)
    want = {"NONE": z, "LOGISTIC": 1 / (1 + np.exp(-z)), "SOFTMAX": np.exp(z) / np.exp(z).sum(1, keepdims=True)}[form]
    np.testing.assert_allclose(scores, want, rtol=1e-5, atol=1e-6)
    assert (label == 3 + z.argmax(1)).all()
    by_label = load_model(proto, Reading("label"))
    assert by_label.own.labels == tuple(range(3, 3 + labels))
    assert make_query(by_label, points(2, 1, (6,))[0]).predicted == int(run(proto, points(2, 1, (6,)))[0][0]) - 3


def test_a_linear_model_has_its_distance_by_a_formula() -> None:
    """`min_t (z_y - z_t) / |w_y - w_t|_1` where the domain does not matter."""
    proto = classifier(4, 4, "SOFTMAX", 5)
    query = make_query(load_model(proto), np.full(6, 0.5, np.float32))
    found = distance(query, DistanceOptions(limits=Limits(timeout=20)))
    node = proto.graph.node[0]
    w = np.array(next(a.floats for a in node.attribute if a.name == "coefficients")).reshape(4, 6)
    b = np.array(next(a.floats for a in node.attribute if a.name == "intercepts"))
    z = w @ np.full(6, 0.5) + b
    y = int(z.argmax())
    want = min((z[y] - z[t]) / np.abs(w[y] - w[t]).sum() for t in range(4) if t != y)
    assert found.status == ("exact" if want < 0.5 else found.status)
    if want < 0.5:
        assert found.lower <= want * (1 + 1e-5)
        assert found.upper >= want * (1 - 1e-5)


@pytest.mark.parametrize("after", ["NONE", "SOFTMAX"])
def test_one_row_whose_label_and_scores_disagree_is_refused(after: str) -> None:
    with pytest.raises(ModelError, match="label and scores disagree"):
        load_model(classifier(1, 2, after, 0))


@pytest.mark.parametrize("after", ["PROBIT", "SOFTMAX_ZERO"])
def test_other_transforms_are_refused(after: str) -> None:
    with pytest.raises(ModelError, match=f"post_transform {after}"):
        load_model(classifier(4, 4, after, 0))


@pytest.mark.parametrize("version", [1, 3])
def test_a_pipeline(version: int) -> None:
    """Scaler, chosen features, regression and a Normalizer behind positive scores; versions are those of ai.onnx.ml."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Scaler", ["x"], ["s"], domain=ML, offset=rng.normal(size=6).tolist(), scale=rng.random(6).tolist()),
        helper.make_node("ArrayFeatureExtractor", ["s", "which"], ["f"], domain=ML),
        helper.make_node(
            "LinearRegressor", ["f"], ["z"], domain=ML, coefficients=rng.normal(size=12).tolist(),
            intercepts=rng.normal(size=3).tolist(), targets=3,
        ),
        helper.make_node("Sigmoid", ["z"], ["p"]),
        helper.make_node("Normalizer", ["p"], ["n"], domain=ML, norm="L1"),
    ]  # fmt: skip
    proto = file(nodes, X, [tensor("n", ["N", 3])], {"which": np.array([[4, 0, 2, 3]], np.int64)}, ml=version)
    model = load_model(proto)
    x = points(3, 50, (6,))
    with torch.no_grad():
        z = lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    p = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(run(proto, x)[0], p / p.sum(1, keepdims=True), rtol=1e-4)
    assert (model.output, model.own.tensor) == ("z", "n")


@pytest.mark.parametrize(
    ("kind", "why"), [("TreeEnsembleClassifier", "trees have no bounds"), ("SVMClassifier", "support vectors")]
)
def test_what_is_no_network_is_refused_by_what_it_is(kind: str, why: str) -> None:
    labels = {"classlabels_int64s" if kind.startswith("Tree") else "classlabels_ints": [0, 1]}
    node = helper.make_node(kind, ["x"], ["label", "y"], domain=ML, **labels)
    proto = file([node], X, [tensor("y", ["N", 2])], {}, ml=1)
    (line,) = info(load_model(proto)).unsupported
    assert why in line
    assert f"{ML}.{kind}" in line
    assert "opset 1" in line
    with pytest.raises(UnsupportedOperatorError, match=why):
        lower(load_model(proto))


@pytest.mark.parametrize("norm", ["L1", "L2", "MAX"])
@pytest.mark.parametrize("opset", [13, 18])
def test_a_normalizer_in_the_middle(norm: str, opset: int) -> None:
    nodes = [helper.make_node("Normalizer", ["x"], ["n"], domain=ML, norm=norm), *body("n")]
    proto = file(nodes, X, [tensor("z", ["N", 4])], mlp(0), opset=opset, ml=1)
    model = load_model(proto)
    network = lower(model)
    x = points(1, 60, (6,)) - (0 if norm == "MAX" else 0.5)
    x = x.astype(np.float32)
    with torch.no_grad():
        z = network.forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(run(proto, x)[0], z, rtol=1e-4, atol=1e-5)
    if norm != "MAX":
        zero = np.zeros((1, 6), np.float32)
        np.testing.assert_allclose(run(proto, zero)[0], network.forward(torch.zeros((1, 6)).double()).numpy(), rtol=1e-4, atol=1e-5)
    for low, high in ((x.min(0), x.max(0)), (x[0] - 1e-3, x[0] + 1e-3)):
        bounds = compute_bounds(network, low.astype(np.float64), high.astype(np.float64), "crown")
        inside = np.clip(x.astype(np.float64), low, high)
        f = network.forward(torch.from_numpy(inside))
        least, most = bounds.output
        assert ((f >= least) & (f <= most)).all()
    near = compute_bounds(network, x[0].astype(np.float64) - 1e-4, x[0].astype(np.float64) + 1e-4, "crown").output
    assert float((near[1] - near[0]).max()) < 0.1


def test_a_norm_that_is_none_is_refused() -> None:
    nodes = [helper.make_node("Normalizer", ["x"], ["n"], domain=ML, norm="L3"), *body("n")]
    with pytest.raises(ModelError, match="norm L3"):
        load_model(file(nodes, X, [tensor("z", ["N", 4])], mlp(0), ml=1))


@pytest.mark.parametrize("kind", ["Imputer", "Binarizer"])
def test_imputers_and_binarizers(kind: str) -> None:
    given = {"imputed_value_floats": [0.3], "replaced_value_float": float("nan")} if kind == "Imputer" else {"threshold": 0.4}
    nodes = [helper.make_node(kind, ["x"], ["n"], domain=ML, **given), *body("n")]
    proto = file(nodes, X, [tensor("z", ["N", 4])], mlp(0), ml=1)
    x = points(1, 20, (6,))
    with torch.no_grad():
        z = lower(load_model(proto)).forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(run(proto, x)[0], z, rtol=1e-4, atol=1e-5)


def test_an_imputer_of_numbers_is_refused() -> None:
    given = {"imputed_value_floats": [0.3], "replaced_value_float": 0.0}
    nodes = [helper.make_node("Imputer", ["x"], ["n"], domain=ML, **given), *body("n")]
    with pytest.raises(ModelError, match="replaces numbers that inputs may have"):
        load_model(file(nodes, X, [tensor("z", ["N", 4])], mlp(0), ml=1))


def test_a_support_vector_machine_without_a_shape_is_refused_as_one() -> None:
    node = helper.make_node("SVMClassifier", ["x"], ["label", "y"], domain=ML, classlabels_ints=[0, 1])
    with pytest.raises(UnsupportedOperatorError, match="support vectors have no bounds"):
        load_model(file([node], X, [tensor("y", ["N", None])], {}, ml=1))


def test_votes_of_classifiers_are_refused_as_such() -> None:
    """One against one, as skl2onnx writes it: the classes of its parts are added up."""
    nodes = []
    for k in range(2):
        weights = points(k, 12, (1,)).reshape(-1).tolist()
        nodes += [
            helper.make_node(
                "LinearClassifier", ["x"], [f"label{k}", f"p{k}"], domain=ML, classlabels_ints=[0, 1], coefficients=weights
            ),
            helper.make_node("Reshape", [f"label{k}", "column"], [f"r{k}"]),
            helper.make_node("Cast", [f"r{k}"], [f"c{k}"], to=TensorProto.FLOAT),
        ]
    nodes += [helper.make_node("Concat", ["c0", "c1"], ["votes"], axis=1), helper.make_node("Add", ["votes", "p0"], ["scores"])]
    proto = file(nodes, X, [tensor("scores", ["N", None])], {"column": np.array([-1, 1])}, opset=17, ml=1)
    with pytest.raises(UnsupportedOperatorError, match="the class that a classifier inside the model gives"):
        lower(load_model(proto))


def test_recurrent_layers_are_refused_with_what_helps() -> None:
    rng = np.random.default_rng(0)
    weights = {"A": rng.normal(size=(1, 20, 3)), "B": rng.normal(size=(1, 20, 5)), "M": rng.normal(size=(5, 4))}
    nodes = [
        helper.make_node("LSTM", ["x", "A", "B"], ["", "h"], hidden_size=5, layout=0),
        helper.make_node("Squeeze", ["h"], ["s"]), helper.make_node("MatMul", ["s", "M"], ["z"]),
    ]  # fmt: skip
    floats = {k: v.astype(np.float32) for k, v in weights.items()}
    proto = file(nodes, tensor("x", [1, 2, 3]), [tensor("z", [2, 4])], floats, opset=14)
    with pytest.raises(UnsupportedOperatorError, match=r"operator LSTM .*steps of a cell"):
        lower(load_model(proto))
