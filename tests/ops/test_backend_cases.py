"""The node tests that come with onnx, an oracle from outside: the right value, or a refusal, never another value.

Input 0 (input 1 for some products and sums) is taken as the variable tensor, its first axis as the batch; the others are constants.
"""

from __future__ import annotations

import functools
import math
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops import READERS
from onnxsub.ops.base import Array
from tests.ops.tools import nodes_of

ELEMENTWISE = {
    "Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
    "Mish", "Mul", "Neg", "PRelu", "Reciprocal", "Sqrt", "Relu", "Round", "Selu", "Sigmoid", "Softplus", "Softsign", "Sub", "Swish",
    "Tanh", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Sign", "ThresholdedRelu", "Floor", "Ceil",
}  # fmt: skip

OTHERWISE = ("test_resize_downsample_scales_cubic_align_corners", "test_resize_downsample_scales_linear_align_corners")
"""Cases that onnxruntime itself computes otherwise: a scale that leads to no whole number of elements."""

LEAST_RUN = 180
"""Cases that must be computed, not refused: a table that refuses everything would pass otherwise."""


@functools.cache
def _cases() -> tuple[tuple[str, onnx.ModelProto, list[Array], list[Array]], ...]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        # building the data of operators that are none of ours overflows
        warnings.simplefilter("ignore")
        every = load_model_tests(kind="node")
    found = []
    for case in every:
        model = case.model
        assert model is not None
        assert case.data_sets is not None
        if len(model.graph.node) != 1 or model.graph.node[0].op_type not in READERS or model.graph.node[0].domain:
            continue
        for inputs, outputs in case.data_sets:
            if all(isinstance(a, np.ndarray | np.generic) for a in (*inputs, *outputs)):
                found.append((case.name, model, [np.asarray(a) for a in inputs], [np.asarray(a) for a in outputs]))
    return tuple(found)


def _sample_model(model: onnx.ModelProto, inputs: list[Array], variable: int, version: int) -> onnx.ModelProto:
    """The model at batch 1, everything but input `variable` constant."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.opset_import[:]
    result.opset_import.append(onnx.helper.make_opsetid("", version))
    kept = result.graph.input[variable]
    name = kept.name
    given = list(zip(inputs, model.graph.input, strict=True))
    constants = [numpy_helper.from_array(v, i.name) for k, (v, i) in enumerate(given) if k != variable]
    shape = [1, *inputs[variable].shape[1:]]
    del result.graph.input[:]
    kind = onnx.helper.np_dtype_to_tensor_dtype(inputs[variable].dtype)
    result.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    result.graph.initializer.extend(constants)
    for output in result.graph.output:
        output.type.tensor_type.ClearField("shape")
    return result


def _outcome(model: onnx.ModelProto, inputs: list[Array], outputs: list[Array], variable: int) -> str:
    x = inputs[variable]
    if x.dtype not in (np.float32, np.bool_) or x.ndim == 0 or x.size == 0 or outputs[0].dtype.kind not in "fb":
        return "no float tensor with a batch axis"
    version = next(o.version for o in model.opset_import if o.domain == "")
    try:
        (node,) = nodes_of(_sample_model(model, inputs, variable, version))
    except onnx.shape_inference.InferenceError:
        return "no meaning at batch 1"
    if node.op_type == "Reshape" and len({math.prod(node.shapes[n]) for n in (node.inputs[0], node.outputs[0])}) > 1:
        return "no meaning at batch 1"
    if node.op_type == "ScatterND" and x.shape[0] != 1:
        return "no meaning at batch 1"  # its indices count along the first axis
    try:
        ops = READERS[node.op_type](node)
    except UnsupportedOperatorError as error:
        message = str(error)
        return "refused" if node.op_type in message and "\n" not in message else f"badly refused: {message}"
    values = {v: torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)) for v in node.variables}
    for op in ops:
        values[op.output] = op.forward(*[values[n] for n in op.inputs])
    for output, want in zip(node.outputs, outputs, strict=True):
        got = values[output].numpy()
        if len(x) == 1 and got.shape == (1, *want.shape):
            got = got[0]  # no batch axis in front: the tensor is one sample as a whole
        if got.shape != want.shape and x.shape[0] != 1:
            # a fixed target shape, or a batch axis that is moved: the same file at batch 1 is another function
            assert node.op_type in ("Reshape", "Slice", "Flatten", "Squeeze", "Unsqueeze")
            return "no meaning at batch 1"
        # the tolerance of the cases themselves: some expected values are typed in with four digits
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-7)
    return "run"


def _run(name: str, model: onnx.ModelProto, inputs: list[Array], outputs: list[Array]) -> list[str]:
    op = model.graph.node[0].op_type
    both = op in ("Add", "Sub", "Mul", "Div", "MatMul", "Greater") and len(inputs) == 2
    found = [_outcome(model, inputs, outputs, variable) for variable in ((0, 1) if both else (0,))]
    if op in ELEMENTWISE:
        # no axis has a meaning: the whole case is one sample
        found.append(_outcome(model, [inputs[0][None], *inputs[1:]], [outputs[0][None]], 0))
    return found


def test_onnx_node_cases() -> None:
    counts: dict[str, int] = {}
    ran = set()
    for name, model, inputs, outputs in _cases():
        if name in OTHERWISE:
            continue
        for outcome in _run(name, model, inputs, outputs):
            counts[outcome] = counts.get(outcome, 0) + 1
            if outcome == "run":
                ran.add(model.graph.node[0].op_type)
    assert not [outcome for outcome in counts if outcome.startswith("badly")]
    assert counts["run"] >= LEAST_RUN, counts
    # operators for which onnx has a case with the batch axis in front
    # (cases of LayerNormalization use all three outputs, those of Einsum and ReduceLogSumExp are in float64; those of `along` work
    # along axis 0, are missing, are of integers, of two truths or have a condition first; onnxruntime is held against their cases)
    along = {"Expand", "GatherElements", "GatherND", "ScatterND", "Tile", "Trilu", "Where"}
    along |= {"And", "Equal", "GlobalLpPool", "Mod", "Or", "Xor"}
    integer = {n for n in READERS if "Integer" in n or "uantize" in n or "." in n or n.startswith("QLinear")}  # tests of their own
    allowed = {"Cast", "Concat", "Einsum", "LayerNormalization", "ReduceLogSumExp", "Reshape"} | integer | along
    assert set(READERS) - ran <= allowed, sorted(set(READERS) - ran - allowed)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN", "NonMaxSuppression"])
def test_operators_outside_the_table(op: str) -> None:
    assert op not in READERS
