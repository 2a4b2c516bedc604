"""Several outputs, classes and maps at the end: which scores are read, and what the file itself says of a point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from scipy.special import softmax

from onnxsub.errors import ModelError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.query import make_query
from onnxsub.reading import Reading
from onnxsub.runtime import Runtime
from onnxsub.verifiers.verify import verify
from tests.reading.files import ML, F, body, file, mlp, points, run, tensor

I64 = TensorProto.INT64
X = tensor("x", ["N", 6])
Z, P = tensor("z", ["N", 4]), tensor("p", ["N", 4])
SOFTMAX = helper.make_node("Softmax", ["z"], ["p"], axis=1)


def test_logits_and_their_softmax_are_one_choice() -> None:
    model = load_model(file([*body(), SOFTMAX], X, [P, Z], mlp(0)))
    assert (model.own_output, model.output, model.own.tensor) == ("z", "z", "z")
    assert any("'p' left out" in note for note in model.notes)
    asked = load_model(file([*body(), SOFTMAX], X, [P, Z], mlp(0)), Reading("p"))
    assert (asked.own_output, asked.output, asked.own.tensor) == ("p", "z", "p")


def test_two_heads_are_refused_by_name_and_read_by_name() -> None:
    nodes = [*body(), helper.make_node("MatMul", ["r", "C"], ["w"])]
    proto = file(nodes, X, [Z, tensor("w", ["N", 3])], mlp(0) | {"C": points(1, 10, (3,))})
    with pytest.raises(ModelError, match=r"2 outputs \('z', 'w'\).*--output NAME"):
        load_model(proto)
    with pytest.raises(ModelError, match=r"no output 'q'; choose one of 'z', 'w'"):
        load_model(proto, Reading("q"))
    model = load_model(proto, Reading("w"))
    assert (model.outputs, model.output) == (3, "w")
    assert "b" not in {t.name for t in model.form.graph.initializer}
    x = points(2, 3, (6,))
    np.testing.assert_allclose(Runtime(model).logits(x), run(proto, x, "w")[0], rtol=1e-6)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("labelled", [False, True])
def test_a_class_is_the_word_of_the_file(keepdims: int, labelled: bool) -> None:
    """ArgMax, and a label looked up by it; the class is read back from what the file gives."""
    weights = mlp(3) | {"classes": np.array([7, 5, 9, 2], np.int64), "flat": np.array([-1], np.int64)}
    nodes = [*body(), helper.make_node("ArgMax", ["z"], ["k"], axis=1, keepdims=keepdims)]
    if labelled:
        nodes += [
            helper.make_node("ArrayFeatureExtractor", ["classes", "k"], ["l"], domain=ML),
            helper.make_node("Reshape", ["l", "flat"], ["y"]),
        ]
    name = "y" if labelled else "k"
    proto = file(nodes, X, [tensor(name, ["N"] if labelled or not keepdims else ["N", 1], I64)], weights, ml=1)
    model = load_model(proto)
    assert (model.output, model.own.is_class, model.stripped) == ("z", True, True)
    x = points(4, 50, (6,))
    runtime = Runtime(model)
    scores = runtime.logits(x)
    assert (runtime.raw(x).argmax(1) == scores.argmax(1)).all()
    assert (runtime.raw(x).sum(1) == 1).all()
    said = run(proto, x)[0].reshape(-1)
    assert ((weights["classes"][scores.argmax(1)] if labelled else scores.argmax(1)) == said).all()
    query = make_query(model, x[0])
    found = attack(query, AttackOptions(steps=20, restarts=4))
    assert found.x_adv is not None
    assert run(proto, found.x_adv[None])[0].reshape(-1)[0] != said[0]
    assert verify(query, found.d_adv * 1.01).status == "violated"
    assert verify(query, found.d_adv / 50).status == "proved"


def test_a_class_along_another_axis_is_refused() -> None:
    nodes = [*body(), helper.make_node("Reshape", ["z", "s"], ["q"]), helper.make_node("ArgMax", ["q"], ["k"], axis=1, keepdims=0)]
    proto = file(nodes, X, [tensor("k", ["N", 4], I64)], mlp(0) | {"s": np.array([-1, 1, 4], np.int64)})
    with pytest.raises(ModelError, match="chosen along an axis of 1 of the 4 scores"):
        load_model(proto)


def test_a_word_that_contradicts_the_scores_is_found_at_the_anchor() -> None:
    """A ZipMap over shuffled scores is one thing; labels that are looked up from another array than 0, 1, 2, ... are data."""
    nodes = [*body(), helper.make_node("Neg", ["z"], ["n"]), helper.make_node("ArgMax", ["n"], ["k"], axis=1, keepdims=0)]
    model = load_model(file(nodes, X, [tensor("k", ["N"], I64)], mlp(0)))
    assert model.output == "n"  # the scores are those that ArgMax reads
    x = points(0, 1, (6,))[0]
    assert make_query(model, x).predicted == int(np.argmin(run(file(body(), X, [Z], mlp(0)), x[None])[0]))


def test_sigmoids_of_several_scores() -> None:
    proto = file([*body(), helper.make_node("Sigmoid", ["z"], ["p"])], X, [P], mlp(5))
    model = load_model(proto)
    assert (model.output, model.outputs, model.own.tensor) == ("z", 4, "p")
    x = points(6, 20, (6,))
    query = make_query(model, x[0])
    assert query.predicted == int(run(proto, x[:1])[0].argmax())
    found = attack(query, AttackOptions(steps=20, restarts=4))
    assert found.x_adv is not None
    assert run(proto, found.x_adv[None])[0].argmax() != query.label


def test_a_pair_of_one_sigmoid() -> None:
    weights = mlp(7, classes=1) | {"one": np.array([1], np.float32)}
    nodes = [
        *body(), helper.make_node("Sigmoid", ["z"], ["s"]), helper.make_node("Sub", ["one", "s"], ["q"]),
        helper.make_node("Concat", ["q", "s"], ["pair"], axis=1), helper.make_node("ArgMax", ["pair"], ["k"], axis=1, keepdims=0),
    ]  # fmt: skip
    proto = file(nodes, X, [tensor("k", ["N"], I64), tensor("pair", ["N", 2])], weights)
    model = load_model(proto)
    assert model.own.tensor == "pair"
    network = lower(model)
    assert (network.classes, {type(op).__name__ for op in network.activations}) == (2, {"Relu"})
    x = points(8, 100, (6,))
    with torch.no_grad():
        scores = network.forward(torch.from_numpy(x.astype(np.float64))).numpy()
    np.testing.assert_allclose(softmax(scores, axis=1), run(proto, x, "pair")[0], atol=1e-6)
    query = make_query(model, x[0])
    found = attack(query, AttackOptions(steps=20, restarts=4))
    if found.x_adv is not None:
        assert run(proto, found.x_adv[None], "k")[0][0] != query.label


def test_maps_at_the_end(tmp_path: Path) -> None:
    """`label` and a ZipMap of probabilities, as sklearn's exporter writes them."""
    nodes = [
        *body(), SOFTMAX, helper.make_node("ArgMax", ["p"], ["k"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["p"], ["maps"], domain=ML, classlabels_int64s=[0, 1, 2, 3]),
    ]  # fmt: skip
    row = helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F, []))
    maps = helper.make_value_info("maps", helper.make_sequence_type_proto(row))
    proto = file(nodes, X, [tensor("k", ["N"], I64), maps], mlp(9), ml=1)
    model = load_model(proto)
    assert (model.own_output, model.own.tensor, model.output) == ("maps", "p", "z")
    assert len(model.notes) == 3
    x = points(1, 4, (6,))
    np.testing.assert_allclose(Runtime(model).raw(x), [list(row.values()) for row in run(proto, x, "maps")[0]], rtol=1e-6)


def test_the_checker_takes_the_form() -> None:
    from onnx import checker

    nodes = [*body(), helper.make_node("ArgMax", ["z"], ["k"], axis=1, keepdims=0)]
    form = load_model(file(nodes, X, [tensor("k", ["N"], I64)], mlp(0))).form
    checker.check_model(form, full_check=True)
    assert [v.name for v in form.graph.output] == ["z"]


ONE = {"C": points(1, 10, (1,)) - np.float32(0.5), "half": np.array(0.5, np.float32), "zero": np.zeros(1, np.float32)}
DECIDED: dict[str, tuple[list[tuple[str, list[str]]], int]] = {
    "of a probability": ([("Sigmoid", ["w"]), ("Greater", ["", "half"])], TensorProto.BOOL),
    "as a number": ([("Sigmoid", ["w"]), ("Greater", ["", "half"]), ("Cast", [""])], I64),
    "as a float": ([("Sigmoid", ["w"]), ("GreaterOrEqual", ["", "half"]), ("Cast", [""])], F),
    "rounded": ([("Sigmoid", ["w"]), ("Round", [""])], F),
    "of a logit": ([("Greater", ["w", "zero"]), ("Cast", [""])], TensorProto.INT32),
}


@pytest.mark.parametrize("name", DECIDED)
def test_whether_one_score_is_above_its_boundary(name: str) -> None:
    """Not a score with two values, of which 0 would be a tie everywhere."""
    steps, kind = DECIDED[name]
    nodes, last = [*body(), helper.make_node("MatMul", ["r", "C"], ["w"])], ""
    for k, (op, inputs) in enumerate(steps):
        made = "y" if k == len(steps) - 1 else f"y{k}"
        nodes.append(helper.make_node(op, [i or last for i in inputs], [made], **({"to": kind} if op == "Cast" else {})))
        last = made
    proto = file(nodes, X, [tensor("y", ["N", 1], kind)], mlp(0) | ONE)
    model = load_model(proto)
    assert (model.output, model.outputs, model.own.tensor) == ("w", 1, "y")
    x = points(2, 40, (6,))
    said = np.concatenate([run(proto, row[None])[0].reshape(-1) for row in x]).astype(int)
    assert set(said) == {0, 1}
    for label in (0, 1):
        query = make_query(model, x[np.flatnonzero(said == label)[0]])
        assert query.predicted == label
        found = attack(query, AttackOptions(steps=20, restarts=4))
        assert found.x_adv is not None
        assert int(run(proto, found.x_adv[None])[0].reshape(-1)[0]) == 1 - label
        assert verify(query, found.d_adv / 20).status == "proved"
        assert verify(query, 1.01 * found.d_adv).status == "violated"


def test_a_score_that_is_compared_with_another_number_is_refused() -> None:
    nodes = [*body(), helper.make_node("MatMul", ["r", "C"], ["w"]), helper.make_node("Greater", ["w", "half"], ["y"])]
    proto = file(nodes, X, [tensor("y", ["N", 1], TensorProto.BOOL)], mlp(0) | ONE)
    with pytest.raises(ModelError, match=r"above 0.5 \(Greater.*export the score, less that number"):
        load_model(proto)


def test_the_largest_probability_is_no_score_of_classes() -> None:
    """`p.max(1)` gives it and the class: the scores are those that the class is chosen from."""
    nodes = [
        *body(), SOFTMAX, helper.make_node("ReduceMax", ["p"], ["most"], axes=[1], keepdims=0),
        helper.make_node("ArgMax", ["p"], ["k"], axis=1, keepdims=0),
    ]  # fmt: skip
    proto = file(nodes, X, [tensor("most", ["N"]), tensor("k", ["N"], I64)], mlp(0))
    model = load_model(proto)
    assert (model.own_output, model.output, model.outputs) == ("k", "z", 4)
    x = points(5, 3, (6,))
    assert [make_query(model, row).predicted for row in x] == run(proto, x, "k")[0].tolist()
