"""The distance as users ask for it, on models whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsub.model import load_model
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import make_query
from onnxsub.verifiers.distance import DistanceOptions, DistanceResult, distance, without_substitute
from onnxsub.verifiers.options import MilpOptions
from onnxsub.verifiers.programs.solvers import SOLVERS


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1.0, 1e4, 1e6])
@pytest.mark.parametrize("solver", ["highs", "scip"])
def test_the_size_of_the_logits_changes_nothing(size: float, solver: str) -> None:
    """y = size (0, relu(x0 + x1) - relu(x0 - x1) - 0.9) at (0.3, 0.1): the distance is 0.35 for every size."""
    if not SOLVERS[solver].is_available():
        pytest.skip(f"{solver} is not installed")
    weights = [np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[0.0, 0.0], [size, -size]])]
    nodes = [
        helper.make_node("Gemm", ["x", "W"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("Gemm", ["h", "V", "c"], ["y"], transB=1),
    ]
    constants = [numpy_helper.from_array(w.astype(np.float32), n) for w, n in zip(weights, "WV", strict=True)]
    constants.append(numpy_helper.from_array(np.array([0.0, -0.9 * size], dtype=np.float32), "c"))
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "xy"]
    graph = helper.make_graph(nodes, "scaled", infos[:1], infos[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    query = make_query(load_model(proto), np.array([0.3, 0.1], dtype=np.float32))
    result = distance(query, DistanceOptions(milp=MilpOptions(solver=solver)))
    assert result.status == "exact"
    assert result.lower <= 0.35 + 1e-6
    assert result.upper == pytest.approx(0.35, abs=1e-6)
    assert result.witness is not None
    assert result.witness.margin >= -1e-5 * size


def test_via_answers_on_the_model_where_the_attack_finds_nothing() -> None:
    """A constant margin: there is no boundary, so there is no radius to prune for."""
    nodes = [
        helper.make_node("Gemm", ["x", "W"], ["z"], transB=1),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("Gemm", ["h", "V", "c"], ["y"], transB=1),
    ]
    arrays = {"W": np.eye(2), "V": np.zeros((2, 2)), "c": np.array([1.0, 0.0])}
    constants = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "xy"]
    graph = helper.make_graph(nodes, "constant", infos[:1], infos[1:], constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    query = make_query(load_model(proto), np.array([0.3, 0.1], dtype=np.float32))
    result = distance(query, DistanceOptions(via=PruneOptions()))
    assert result.status == "none"
    assert result.original is not None
    assert result.original.exact
    assert result.reason is not None


@pytest.mark.parametrize("status", ["exact", "none", "bracket"])
def test_the_claim_of_another_tool_proves_nothing_of_the_original(status: str) -> None:
    claim = DistanceResult(status, 0.2, 0.3, None, "marabou", None, {}, 0, 0, False, {}, {}, reason="its claim, not proved here")
    found = without_substitute(claim, proved=False)
    assert found.original is not None
    assert found.original.lower == 0.0
    assert not found.original.exact
    assert found.reason is not None
    assert "its claim, not proved here" in found.reason
    own = without_substitute(claim, proved=True).original
    assert own is not None
    assert own.lower == 0.2
    assert own.exact == (status != "bracket")
