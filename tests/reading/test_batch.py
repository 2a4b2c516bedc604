"""Models without a batch axis, with a fixed one of several samples, and with open lengths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.checker import check_model
from scipy.special import softmax

from onnxsub.errors import ModelError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.query import make_query
from onnxsub.reading import Reading
from onnxsub.runtime import Runtime
from tests.reading.files import Array, body, file, mlp, points, run, tensor

N = helper.make_node


def network_values(proto: ModelProto, x: Array) -> Array:
    model = load_model(proto)
    with torch.no_grad():
        return np.asarray(lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy())


BARE: dict[str, tuple[list[NodeProto], tuple[int, ...], tuple[int, ...], dict[str, Array]]] = {
    "vector": (body(), (6,), (4,), {}),
    "softmax over the vector": ([*body("x", "q"), N("Softmax", ["q"], ["z"], axis=0)], (6,), (4,), {}),
    "softmax from behind": ([*body("x", "q"), N("Softmax", ["q"], ["z"], axis=-1)], (6,), (4,), {}),
    "matrix made a row": ([N("Reshape", ["x", "row"], ["f"]), *body("f")], (2, 3), (1, 4), {"row": np.array([1, 6])}),
    "matrix made a vector": ([N("Reshape", ["x", "flat"], ["f"]), *body("f")], (2, 3), (4,), {"flat": np.array([-1])}),
    "unsqueezed": ([N("Unsqueeze", ["x", "front"], ["f"]), *body("f", "q"), N("Squeeze", ["q", "front"], ["z"])], (6,), (4,),
                   {"front": np.array([0])}),
    "weights on the left": ([N("MatMul", ["W", "x"], ["f"]), *body("f")], (5,), (4,), {"W": points(3, 6, (5,))}),
    "means of columns": ([N("ReduceMean", ["x"], ["f"], axes=[0], keepdims=0), *body("f")], (6, 6), (4,), {}),
    "image": ([N("Unsqueeze", ["x", "zero"], ["i"]), N("Conv", ["i", "K"], ["c"]), N("Relu", ["c"], ["r0"]),
               N("Squeeze", ["r0", "zero"], ["s0"]), N("ReduceMean", ["s0"], ["f"], axes=[1, 2], keepdims=0), *body("f")],
              (3, 7, 8), (4,), {"zero": np.array([0]), "K": points(5, 6, (3, 3, 3)) - np.float32(0.5)}),
    "image of one channel": ([N("Unsqueeze", ["x", "zero"], ["i"]), N("Conv", ["i", "K"], ["c"]), N("Relu", ["c"], ["r0"]),
                              N("ReduceMean", ["r0"], ["s0"], axes=[2, 3], keepdims=0), N("Squeeze", ["s0", "zero"], ["f"]),
                              *body("f")],
                             (1, 7, 8), (4,), {"zero": np.array([0]), "K": points(5, 6, (1, 3, 3)) - np.float32(0.5)}),
    "normalised": ([N("LayerNormalization", ["x", "g"], ["n"]), N("Transpose", ["n"], ["t"]), N("Softmax", ["t"], ["u"], axis=0),
                    N("Flatten", ["u"], ["f"], axis=0), *body("f")], (3, 2), (1, 4), {"g": points(4, 1, (2,))[0]}),
    "one sum": ([*body("x", "q"), N("ReduceSum", ["q"], ["s"], keepdims=1), N("Mul", ["s", "v"], ["z"])], (6,), (4,),
                {"v": points(4, 1, (4,))[0]}),
    "joined": ([N("Relu", ["x"], ["u"]), N("Concat", ["x", "u"], ["f"], axis=0), *body("f")], (3,), (4,), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", BARE)
def test_without_a_batch_axis(name: str) -> None:
    nodes, shape, out, more = BARE[name]
    weights = mlp(1) | {k: v.astype(np.int64) if v.dtype.kind == "i" else v for k, v in more.items()}
    proto = file(nodes, tensor("x", shape), [tensor("z", out)], weights)
    model = load_model(proto)
    assert model.feed.bare
    assert model.input_shape == shape
    x = points(2, 5, shape) - np.float32(0.5)
    want = np.stack([run(proto, row)[0].reshape(-1) for row in x])
    runtime = Runtime(model)
    np.testing.assert_allclose(runtime.raw(x).reshape(5, -1), want, rtol=1e-6)
    found = runtime.logits(x)
    assert (found.argmax(1) == want.argmax(1)).all()
    np.testing.assert_allclose(network_values(proto, x), found, rtol=1e-4, atol=1e-5)


def test_rows_made_of_a_vector_are_no_classes() -> None:
    nodes, weights = [N("Add", ["x", "wide"], ["f"]), *body("f")], mlp(0) | {"wide": points(0, 2, (6,))}
    with pytest.raises(ModelError, match="is not one score per class"):
        lower(load_model(file(nodes, tensor("x", (6,)), [tensor("z", (2, 4))], weights, opset=13)))


def test_axes_of_a_matrix_that_are_turned() -> None:
    proto = file([N("Transpose", ["x"], ["f"]), *body("f")], tensor("x", (6, 6)), [tensor("z", (6, 4))], mlp(0), opset=13)
    with pytest.raises(ModelError, match="fixed batch of 6"):
        lower(load_model(proto))


@pytest.mark.parametrize("flat", [False, True])
def test_a_fixed_batch(flat: bool) -> None:
    nodes = [N("Reshape", ["x", "s"], ["f"]), *body("f")] if flat else body()
    shape = (5, 2, 3) if flat else (5, 6)
    proto = file(nodes, tensor("x", shape), [tensor("z", [5, 4])], mlp(2) | {"s": np.array([5, 6], np.int64)})
    model = load_model(proto)
    assert model.feed.copies == 5
    assert model.input_shape == shape[1:]
    x = points(1, 5, shape[1:])
    np.testing.assert_allclose(Runtime(model).logits(x), run(proto, x)[0], rtol=1e-6)
    np.testing.assert_allclose(network_values(proto, x), run(proto, x)[0], rtol=1e-4, atol=1e-5)
    query = make_query(model, x[0])
    found = attack(query, AttackOptions(steps=20, restarts=4))
    assert found.x_adv is not None
    assert run(proto, np.repeat(found.x_adv[None], 5, axis=0))[0][0].argmax() != query.label


def test_a_fixed_batch_of_parts_whose_lengths_are_computed() -> None:
    """Windows of each sample as rows, lengths put together by a Concat (an exporter that folds nothing), constants for all rows."""
    nodes = [
        N("Add", ["x", "positions"], ["p"]), N("Concat", ["rows", "two", "three"], ["s"], axis=0), N("Reshape", ["p", "s"], ["w"]),
        N("MatMul", ["w", "M"], ["m"]), N("Concat", ["batch", "six"], ["back"], axis=0), N("Reshape", ["m", "back"], ["f"]),
        *body("f"),
    ]  # fmt: skip
    lengths = {"rows": 15, "two": 2, "three": 1, "batch": 5, "six": 6}
    weights = mlp(2) | {k: np.array([v], np.int64) for k, v in lengths.items()}
    weights |= {"positions": np.repeat(points(0, 1, (6,)), 5, axis=0), "M": np.array([[0.7]], np.float32)}
    proto = file(nodes, tensor("x", [5, 6]), [tensor("z", [5, 4])], weights)
    model = load_model(proto)
    assert model.feed.copies == 5
    x = points(1, 5, (6,))
    np.testing.assert_allclose(Runtime(model).logits(x), run(proto, x)[0], rtol=1e-5)
    np.testing.assert_allclose(network_values(proto, x), run(proto, x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [*BARE, "fixed", "fixed, a class"])
def test_the_form_of_one_sample_is_a_file(name: str) -> None:
    """It is written by `info -o` and by substitutes in place: it states its output, as it is computed."""
    if name in BARE:
        nodes, shape, outputs, more = BARE[name]
        weights = mlp(1) | {k: v.astype(np.int64) if v.dtype.kind == "i" else v for k, v in more.items()}
        proto = file(nodes, tensor("x", shape), [tensor("z", outputs)], weights)
    elif name == "fixed":
        proto = file(body(), tensor("x", (7, 6)), [tensor("z", [7, 4])], mlp(1))
    else:
        choice = N("ArgMax", ["z"], ["k"], axis=1, keepdims=0)
        proto = file([*body(), choice], tensor("x", (7, 6)), [tensor("k", [7], TensorProto.INT64)], mlp(1))
    form = load_model(proto).form
    check_model(form, full_check=True)
    stated = [d.dim_value for d in form.graph.output[0].type.tensor_type.shape.dim]
    x = points(2, 1, tuple(d.dim_value for d in form.graph.input[0].type.tensor_type.shape.dim)[1:])
    assert stated == list(run(form, x)[0].shape)


def test_a_pair_of_scores_of_a_fixed_batch() -> None:
    """What leaves the pair out copies the input; its lengths are those of the copy."""
    weights = mlp(3, classes=1) | {"one": np.ones((1, 1), np.float32)}
    nodes = [
        *body(), N("Sigmoid", ["z"], ["p"]), N("Sub", ["one", "p"], ["q"]), N("Concat", ["q", "p"], ["pair"], axis=-1),
    ]  # fmt: skip
    proto = file(nodes, tensor("x", (4, 6)), [tensor("pair", [4, 2])], weights)
    model = load_model(proto)
    assert (model.feed.copies, model.outputs) == (4, 2)
    x = points(5, 4, (6,))
    want = run(proto, x)[0]
    np.testing.assert_allclose(Runtime(model).raw(x), want, rtol=1e-6)
    np.testing.assert_allclose(softmax(network_values(proto, x), axis=1), want, atol=1e-6)


def test_samples_that_mix_are_refused() -> None:
    """A Reshape that takes rows apart, which at batch 1 looks like one that does nothing."""
    nodes = [N("Transpose", ["x"], ["t"]), N("Reshape", ["t", "s"], ["f"]), *body("f")]
    proto = file(nodes, tensor("x", [5, 6]), [tensor("z", [5, 4])], mlp(2) | {"s": np.array([5, 6], np.int64)})
    model = load_model(proto)
    with pytest.raises(ModelError, match="samples are mixed"):
        Runtime(model)


def test_one_score_of_several_samples_or_one_sample_of_several_classes() -> None:
    nodes = [N("MatMul", ["x", "w"], ["z"])]
    proto = file(nodes, tensor("x", [5, 6]), [tensor("z", [5])], {"w": points(0, 1, (6,))[0]})
    with pytest.raises(ModelError, match="scores of 5 samples, or of 5 classes"):
        load_model(proto)


def pooled(dims: list[int | str | None], kind: int = TensorProto.FLOAT) -> ModelProto:
    nodes = [N("Conv", ["x", "K"], ["c"]), N("GlobalAveragePool", ["c"], ["e"]), N("Flatten", ["e"], ["f"])]
    weights = mlp(0) | {"K": points(5, 6, (3, 3, 3)) - np.float32(0.5)}
    return file([*nodes, *body("f")], tensor("x", dims, kind), [tensor("z", ["n", 4])], weights)


@pytest.mark.parametrize("dims", [["n", 3, "h", "w"], ["?", 3, "?", "?"], [None, 3, None, None], [None, None, None, None]])
@pytest.mark.parametrize("stated", [(3, 7, 8), (1, 3, 7, 8)])
def test_open_lengths_are_stated(dims: list[int | str | None], stated: tuple[int, ...]) -> None:
    proto = pooled(dims)
    with pytest.raises(ModelError, match="--input-shape"):
        load_model(proto)
    model = load_model(proto, Reading(input_shape=stated))
    assert model.input_shape == (3, 7, 8)
    x = points(1, 2, (3, 7, 8))
    np.testing.assert_allclose(Runtime(model).logits(x), np.concatenate([run(proto, row[None])[0] for row in x]), rtol=1e-5)


def test_lengths_that_do_not_fit_are_refused() -> None:
    proto = pooled(["n", 3, "h", "w"])
    with pytest.raises(ModelError, match="contradicts input 'x' of shape nx3xhxw"):
        load_model(proto, Reading(input_shape=(1, 8, 8)))
    with pytest.raises(ModelError, match="does not fit input 'x'"):
        load_model(proto, Reading(input_shape=(8, 8)))


def token(batch: int, kind: str) -> ModelProto:
    """A class token before four others, as exports of a fixed batch hold it: repeated, or as a constant of `batch` rows."""
    weights = {"W": points(1, 3, (3,)), "v": points(2, 15, (4,)), "p": points(3, 1, (5, 3)), "t": points(4, 1, (1, 3))}
    nodes = []
    if kind == "repeated":
        weights["shape"] = np.array([batch, 1, 3])
        nodes = [N("Expand", ["t", "shape"], ["c"])]
    else:
        weights["c"] = np.repeat(weights["t"], batch, axis=0)
        if kind == "unequal":
            weights["c"][0] += 1
    nodes += [
        N("MatMul", ["x", "W"], ["e"]), N("Concat", ["c", "e"], ["k"], axis=1), N("Add", ["k", "p"], ["q"]),
        N("Relu", ["q"], ["r"]), N("Flatten", ["r"], ["f"]), N("MatMul", ["f", "v"], ["z"]),
    ]  # fmt: skip
    return file(nodes, tensor("x", (batch, 4, 3)), [tensor("z", (batch, 4))], weights)


@pytest.mark.parametrize("kind", ["repeated", "constant"])
def test_a_class_token_of_a_fixed_batch(kind: str) -> None:
    proto = token(5, kind)
    model = load_model(proto)
    assert model.feed.copies == 5
    x = points(6, 3, (4, 3))
    want = np.stack([run(proto, np.repeat(row[None], 5, axis=0))[0][0] for row in x])
    np.testing.assert_allclose(network_values(proto, x), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(Runtime(model).logits(x), want, rtol=1e-5, atol=1e-5)


def test_tokens_that_differ_between_samples_are_refused() -> None:
    with pytest.raises(ModelError, match="of its fixed batch of 5 one sample is read"):
        load_model(token(5, "unequal"))


def test_the_only_element_of_a_first_axis() -> None:
    """The last state of a stack of one, as Keras exports recurrent layers."""
    weights = mlp(1) | {"front": np.array([0]), "last": np.array(-1)}
    stack = [N("Unsqueeze", ["x", "front"], ["u"]), N("Concat", ["u"], ["c"], axis=0)]
    nodes = [*stack, N("Gather", ["c", "last"], ["g"], axis=0), *body("g")]
    proto = file(nodes, tensor("x", ("N", 6)), [tensor("z", ("N", 4))], weights)
    x = points(2, 5, (6,))
    want = np.stack([run(proto, row[None])[0][0] for row in x])
    np.testing.assert_allclose(network_values(proto, x), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", [12, 13, 15, 16])
@pytest.mark.parametrize("kind", ["LessOrEqual", "GreaterOrEqual"])
def test_shapes_behind_comparisons_that_are_functions(kind: str, opset: int) -> None:
    """A choice as tf2onnx writes it: truths as numbers, and a sum."""
    weights = mlp(1) | {"a": np.full((), 0.4, dtype=np.float32)}
    truth = [N(kind, ["x", "a"], ["t"]), N("Not", ["t"], ["u"]), N("Cast", ["u"], ["g"], to=TensorProto.FLOAT)]
    nodes = [*truth, N("Mul", ["x", "g"], ["m"]), *body("m")]
    proto = file(nodes, tensor("x", ("N", 6)), [tensor("z", ("N", 4))], weights, opset=opset)
    x = points(2, 9, (6,))
    want = np.stack([run(proto, row[None])[0][0] for row in x])
    np.testing.assert_allclose(network_values(proto, x), want, rtol=1e-5, atol=1e-5)


def test_the_example_of_open_lengths_fits_the_input() -> None:
    proto = file([N("Flatten", ["x"], ["f"]), *body("f")], tensor("x", ["N", 3, "time"]), [tensor("z", ["N", 4])], mlp(2))
    with pytest.raises(ModelError, match=r"leaves 'time' open.*--input-shape 3,64 "):
        load_model(proto)


def test_a_second_input_is_named_before_a_second_output() -> None:
    proto = file([*body("x"), N("Relu", ["s"], ["t"])], tensor("x", ["N", 6]), [tensor("z", ["N", 4]), tensor("t", [2, 7])], mlp(2))
    proto.graph.input.append(tensor("s", [2, 7]))
    with pytest.raises(ModelError, match=r"2 inputs \('x', 's'\)"):
        load_model(proto)
