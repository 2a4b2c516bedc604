"""Operators written as ONNX nodes: a file of one operator computes what the operator does, under onnxruntime and read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import ModelProto, helper

from onnxsub.layouts.compact import OPSET
from onnxsub.layouts.emit import Writer
from onnxsub.lower import lower_nodes
from onnxsub.ops.base import Operator
from onnxsub.ops.substituted import Substituted
from tests.ops.cases import CASES
from tests.ops.made import MADE
from tests.ops.tools import Case, nodes_of, random, run

F32 = np.float32
OPS = [(f"{case} {i}", op) for case in CASES for i, op in enumerate(case.ops(case.opsets[-1]))] + list(MADE.items())
ALL = pytest.mark.parametrize("op", [op for _, op in OPS], ids=[name for name, _ in OPS])


def file_of(op: Operator, batch: int | str = 1, dtype: type[np.floating] = F32) -> ModelProto:
    writer = Writer(np.dtype(dtype), (*op.inputs, "out"))
    writer.add(op, op.inputs, "out")
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [helper.make_tensor_value_info(n, kind, [batch, *s]) for n, s in zip(op.inputs, op.in_shapes, strict=True)]
    last = helper.make_tensor_value_info("out", kind, [batch, *op.out_shape])
    graph = helper.make_graph(writer.nodes, "g", ends, [last], initializer=writer.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def value(op: Operator, feeds: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(op.forward(*[torch.from_numpy(feeds[n].astype(np.float64)) for n in op.inputs]))


@ALL
@pytest.mark.parametrize("batch", [1, 3])
def test_the_file_computes_the_operator(op: Operator, batch: int) -> None:
    feeds = {n: random((batch, *s), i, 2.0) for i, (n, s) in enumerate(zip(op.inputs, op.in_shapes, strict=True))}
    (found,) = run(file_of(op, "N" if batch > 1 else 1), feeds)
    expected = value(op, feeds)
    assert found.shape == expected.shape == (batch, *op.out_shape)
    # float32 inference of sums of up to a hundred terms
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(expected).max(initial=0.0))))


@pytest.mark.parametrize("op", [op for _, op in OPS if len(op.inputs) == 1], ids=[n for n, op in OPS if len(op.inputs) == 1])
def test_the_operator_table_reads_it_back(op: Operator) -> None:
    network = lower_nodes(nodes_of(file_of(op)), op.inputs[0], op.in_shapes[0], "out")
    x = random((1, *op.in_shapes[0]), 5, 2.0)
    with torch.no_grad():
        found = network.values(torch.from_numpy(x.astype(np.float64)))[network.output].numpy()
    # weights are rounded to float32, here on both sides
    np.testing.assert_allclose(found.reshape(-1), value(op, {op.inputs[0]: x}).reshape(-1), rtol=1e-5, atol=1e-5)


def test_a_leaky_unit_in_float64_has_relus() -> None:
    for case in (Case("LeakyRelu", ((4,),), {"alpha": 0.3}), Case("PRelu", ((4,), random((4,), 1)))):
        op = case.op1()
        x = random((1, 4), 2).astype(np.float64)
        (found,) = run(file_of(op, dtype=np.float64), {"x0": x})
        np.testing.assert_allclose(found, value(op, {"x0": x}), rtol=1e-14, atol=1e-14)


def test_lines_alone_need_no_function() -> None:
    op = MADE["Substituted"]
    assert isinstance(op, Substituted)
    none = Substituted.of(op.base, np.zeros_like(op.kept), op.slope, op.offset)
    assert [node.op_type for node in file_of(none).graph.node] == ["Mul", "Add"]
    feeds = {"x0": random((1, *op.in_shapes[0]))}
    np.testing.assert_allclose(run(file_of(none), feeds)[0], value(none, feeds), rtol=1e-6, atol=1e-6)
