"""Importance scores: the program's rows, its optimum, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from onnxsub.compress.importance import SCORES, annotated, importance, scores_in
from onnxsub.compress.options import ImportanceOptions
from onnxsub.compress.solve import importance_scores
from onnxsub.errors import InputError, OptionError, UnsupportedOperatorError
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from tests.handmade import Net

Array = np.ndarray[Any, np.dtype[Any]]


def dense(kind: str = "Relu") -> Model:
    net = Net(4, seed=3)
    h = net.node(kind, [net.gemm("x", 4, 5)])
    return load_model(net.model(net.gemm(h, 5, 3, "logits"), 3))


def images(model: Model, count: int = 4) -> tuple[Array, Array]:
    x = np.random.default_rng(1).random((count, *model.input_shape)).astype(np.float32)
    return x, np.arange(count) % 3


def test_one_layer_against_all_choices() -> None:
    """h = s max(0, z) on points: the program is convex in s, and no corner of the cube is below its optimum."""
    model = dense()
    x, y = images(model)
    network = lower(model)
    options = ImportanceOptions(gap=1e-4)
    solved = importance_scores(network, x, y, options)
    assert solved.status == "optimal"
    assert solved.bound <= solved.value <= solved.bound + 1e-4 * max(1.0, abs(solved.value))
    (w1, b1), (w2, b2) = [(op.weight, op.bias) for op in network.ops if hasattr(op, "weight")]
    h = np.maximum(x.astype(np.float64) @ w1.T + b1, 0)

    def cost(s: Array) -> float:
        f = (h * s) @ w2.T + b2
        return float(5.0 * (logsumexp(f, axis=1) - f[np.arange(len(y)), y]).mean() + (s - 2).sum() / len(s))

    assert cost(solved.layers[0].scores) == pytest.approx(solved.value, abs=1e-6)
    corners = [cost(np.array(s)) for s in itertools.product((0.0, 1.0), repeat=5)]
    assert solved.value <= min(corners) + 1e-4 * max(1.0, abs(min(corners)))


@pytest.mark.parametrize("solver", ["highs", "scip", "gurobi"])
def test_two_layers_with_every_solver(solver: str) -> None:
    from onnxsub.verifiers.programs.solvers import SOLVERS

    if not SOLVERS[solver].is_available():
        pytest.skip(f"{solver} is not installed")
    net = Net(4, seed=5)
    h = net.node("Relu", [net.gemm("x", 4, 4)])
    h = net.node("Relu", [net.gemm(h, 4, 4)])
    model = load_model(net.model(net.gemm(h, 4, 3, "logits"), 3))
    x, y = images(model, 2)
    values = {}
    for binaries in ("relaxed", "exact"):
        solved = importance_scores(lower(model), x, y, ImportanceOptions(solver=solver, binaries=binaries))
        assert solved.status == "optimal"
        assert solved.size["binaries"] == (8 if binaries == "exact" else 0)
        values[binaries] = solved
    assert values["relaxed"].bound <= values["exact"].value + 1e-3 * max(1.0, abs(values["exact"].value))


def test_channels_share_a_score_and_the_file_holds_them() -> None:
    net = Net(1, 6, 6, seed=2)
    h = net.node("Relu", [net.filters("x", 1, 3, 3)])
    h = net.node("Flatten", [h], axis=1)
    model = load_model(net.model(net.gemm(h, 48, 3, "logits"), 3))
    x, y = images(model, 3)
    result = importance(model, x, y, ImportanceOptions())
    (layer,) = result.layers
    assert (layer.kind, len(layer.scores)) == ("channel", 3)
    assert ((layer.scores >= 0) & (layer.scores <= 1)).all()
    proto = annotated(model, result)
    assert scores_in(proto)[layer.name] == pytest.approx(layer.scores, abs=1e-6)
    assert [p.key for node in proto.graph.node for p in node.metadata_props] == [SCORES]
    assert result.to_json()["layers"][0]["units"] == 3


def test_what_is_refused() -> None:
    model = dense()
    x, y = images(model)
    with pytest.raises(OptionError, match="every score is 0"):
        ImportanceOptions(weight=0.0)
    with pytest.raises(InputError, match="no class"):
        importance(model, x, y + 5, ImportanceOptions())
    with pytest.raises(InputError, match="holds no scores"):
        scores_in(model.source)
    smooth = dense("Tanh")
    with pytest.raises(UnsupportedOperatorError, match="Tanh"):
        importance(smooth, x, y, ImportanceOptions())


def test_a_program_that_is_too_large_says_its_size() -> None:
    net = Net(4)
    h = net.node("Relu", [net.gemm("x", 4, 5)])
    h = net.node("Relu", [net.gemm(h, 5, 6)])
    model = load_model(net.model(net.gemm(h, 6, 3, "logits"), 3))
    x, y = images(model)
    with pytest.raises(InputError, match=r"4 images has 24 binaries.*fewer --images"):
        importance(model, x, y, ImportanceOptions(limit=20))
