"""Forms of arithmetic that the table of cases has none of: one tensor twice, rows of blocks, a variance that may be 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from onnx import helper

from onnxsub.lower import lower_nodes
from onnxsub.network import Network
from onnxsub.propagate import compute_bounds
from tests.ops.test_spelled import Graph
from tests.ops.tools import Case, nodes_of, random, run

SHAPE = (3, 5)


def sampled(network: Network, centre: np.ndarray, radius: float) -> float:
    """Asserts that bounds hold at 200 points of a box; the width of the widest output."""
    low, high = centre - radius, centre + radius
    x = np.clip(low + (high - low) * np.random.default_rng(1).uniform(-0.5, 1.5, (200, *centre.shape)), low, high)
    f = network.forward(torch.from_numpy(x))
    widest = math.inf
    for method in ("ibp", "crown"):
        least, most = compute_bounds(network, low, high, method).output
        assert ((f >= least) & (f <= most)).all()
        widest = float((most - least).max())
    return widest


@pytest.mark.parametrize("kind", ["MatMul", "Div", "Mul", "Pow"])
def test_a_tensor_with_itself(kind: str) -> None:
    case = Case(kind, ((3, 3), (3, 3)))
    model = case.model(13)
    model.graph.node[0].input[1] = "x0"
    del model.graph.input[1]
    network = lower_nodes(nodes_of(model), "x0", (3, 3), "y0")
    x = np.abs(random((1, 3, 3))) + np.float32(0.5)
    np.testing.assert_allclose(network.values(torch.from_numpy(x).double())["y0"].numpy(), run(model, {"x0": x})[0], rtol=1e-5)
    assert sampled(network, x[0].astype(np.float64), 1e-3) < 0.1


@pytest.mark.parametrize(("kind", "mode"), [("DepthToSpace", "DCR"), ("DepthToSpace", "CRD"), ("SpaceToDepth", "")])
def test_blocks_of_rows_that_are_no_batch(kind: str, mode: str) -> None:
    """Frames of one sample, stacked along the batch axis."""
    first = (4, 8, 2, 2)
    nodes = [
        helper.make_node("Reshape", ["x", "frames"], ["f"], name="frames"),
        helper.make_node(kind, ["f"], ["g"], name="blocks", blocksize=2, **({"mode": mode} if mode else {})),
        helper.make_node("Reshape", ["g", "flat"], ["y"], name="flat"),
    ]
    g = Graph()
    g.tensor("frames", np.array(first, np.int64))
    g.tensor("flat", np.array([1, -1], np.int64))
    ends = [helper.make_tensor_value_info(n, 1, [1, 128]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], g.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    network = lower_nodes(nodes_of(model), "x", (128,), "y")
    x = random((1, 128))
    np.testing.assert_array_equal(network.forward(torch.from_numpy(x)).numpy(), run(model, {"x": x})[0])


def test_a_variance_that_may_be_zero_claims_nothing() -> None:
    case = Case("LayerNormalization", ((1, 4), np.ones(4, np.float32)), {"epsilon": 0.0}, (17,))
    ops = case.ops(17)
    network = Network("x0", (1, 4), ops[-1].output, ops)
    centre = np.array([[0.1, 0.9, -0.4, 0.2]])
    assert sampled(network, centre, 1e-3) < 0.1
    most = compute_bounds(network, np.full((1, 4), -1.0), np.full((1, 4), 1.0), "crown").output[1]
    # the limit of what is normalised holds wherever there is a value
    assert float(most.max()) <= math.sqrt(3) * (1 + 1e-6)


@pytest.mark.parametrize("opset", [7, 11, 13])
def test_products_of_an_axis(opset: int) -> None:
    case = Case("ReduceProd", ((2, 5),), {"axes": [2]}, (opset,))
    ops = case.ops(opset)
    network = Network("x0", (2, 5), ops[-1].output, ops)
    assert sampled(network, random((2, 5), 3).astype(np.float64), 0.1) < 2.0
