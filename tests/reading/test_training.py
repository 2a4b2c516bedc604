"""Files that were exported in training mode: their statistics are those of the batch, their numbers random."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.lower import lower, unsupported
from onnxsub.model import load_model
from tests.reading.files import body, file, mlp, points, run, tensor

N = helper.make_node
MORE = ("mean", "variance", "saved_mean", "saved_variance")


def normalised(outputs: tuple[str, ...], opset: int) -> ModelProto:
    statistics = {"s": np.ones(6), "o": np.zeros(6), "m": np.full(6, 0.5), "v": np.full(6, 2.0)}
    nodes = [N("BatchNormalization", ["x", "s", "o", "m", "v"], ["n", *outputs]), *body("n")]
    weights = mlp(0) | {k: v.astype(np.float32) for k, v in statistics.items()}
    return file(nodes, tensor("x", ("N", 6)), [tensor("z", ("N", 4))], weights, opset=opset)


@pytest.mark.parametrize("opset", [7, 9, 13])
def test_normalisation_with_the_statistics_of_the_batch_is_refused(opset: int) -> None:
    stored, batch = normalised((), opset), normalised(MORE, opset)
    x = points(1, 2, (6,))
    # five outputs, none of which but the first is read, and yet another function
    assert np.abs(run(batch, x, "z")[0] - run(stored, x)[0]).max() > 0.1
    assert lower(load_model(stored)).classes == 4
    with pytest.raises(UnsupportedOperatorError, match=r"BatchNormalization.*training mode.*evaluation mode"):
        lower(load_model(batch))


def test_info_lists_it() -> None:
    model = load_model(normalised(MORE, 9))
    assert [line.split()[1] for line in unsupported(model.nodes, model.output)] == ["BatchNormalization"]


def test_masks_and_indices_that_nobody_reads_are_no_matter() -> None:
    nodes: list[NodeProto] = [N("Dropout", ["x"], ["d", "mask"]), *body("d")]
    proto = file(nodes, tensor("x", ("N", 6)), [tensor("z", ("N", 4))], mlp(0), opset=10)
    assert lower(load_model(proto)).classes == 4


def test_random_numbers_are_what_is_in_the_way() -> None:
    """Stochastic depth: the numbers of a batch of two give an output of two rows."""
    nodes = [N("RandomUniformLike", ["two"], ["u"]), N("Mul", ["x", "u"], ["d"]), *body("d")]
    proto = file(nodes, tensor("x", ("N", 6)), [tensor("z", (2, 4))], mlp(0) | {"two": np.ones((2, 1), np.float32)}, opset=12)
    with pytest.raises(UnsupportedOperatorError, match=r"RandomUniformLike.*draws random numbers"):
        load_model(proto)
