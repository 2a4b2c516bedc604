"""Values of nodes whose inputs are all constants.

ONNX's reference implementation computes what it is known to be right for; onnxruntime, where it is installed, computes other cheap
operators, one node at a time and as they stand: what it says is what the file computes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Literal

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper

from onnxsub.contrib import DOMAIN
from onnxsub.errors import ModelError
from onnxsub.files import one_line
from onnxsub.ops.base import Array, Shape

__all__ = ["COMPUTED", "RESHAPING", "by_reference", "by_runtime", "computable"]

RESHAPING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
COMPUTED = (
    frozenset({"Abs", "Add", "And", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Cos", "CumSum", "DequantizeLinear"})
    | {"Div", "Equal", "Exp", "Expand", "Floor", "Gather", "GatherElements", "GatherND", "Gemm", "Greater", "GreaterOrEqual"}
    | {"Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "Pow"}
    | {"QuantizeLinear", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSumExp"}
    | {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu"}
    | {"Round", "ScatterND", "Sigmoid", "Sign", "Sin", "Slice", "Split", "Sqrt", "Sub", "Sum"}
    | {"Tanh", "Tile", "Transpose", "Trilu", "Where", "Xor"}
)
"""What the reference implementation is trusted with: the tests hold each against onnxruntime at every opset. It is not right for
all (Softmax of opset 7 to 12, Clip with attributes)."""
_BY_RUNTIME = (
    frozenset({"ArgMax", "ArgMin", "Atan", "BatchNormalization", "Celu", "Clip", "DepthToSpace", "Einsum", "Elu", "Erf", "EyeLike"})
    | {"Gelu", "HardSigmoid", "HardSwish", "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu"}
    | {"LogSoftmax", "LpNormalization", "Mean", "Mish", "OneHot", "PRelu", "Pad", "QLinearMatMul", "ReduceLogSum", "Resize"}
    | {"ScatterElements"}
    | {"Selu", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Swish", "Tan", "ThresholdedRelu", "TopK", "Upsample"}
)
_IR = 8


def computable(node: NodeProto) -> Literal["reference", "runtime"] | None:
    """What computes a node; None: nothing does, and it stays in the graph."""
    if node.domain not in ("", "ai.onnx"):
        return "runtime" if node.domain == DOMAIN and node.op_type.startswith("QLinear") else None
    if node.op_type in RESHAPING or (node.op_type in COMPUTED and not (node.op_type == "Clip" and node.attribute)):
        return "reference"
    return "runtime" if node.op_type in _BY_RUNTIME else None


def by_reference(node: NodeProto, opset: int, constants: Mapping[str, Array], shape: Shape | None, at: str) -> list[Array]:
    """Outputs of a node by ONNX's reference implementation.

    Args:
        shape: of the first output, where it is known.
        at: how messages call the node.

    Raises:
        ModelError: it has no value.
    """
    from onnx.reference import ReferenceEvaluator

    if node.op_type in RESHAPING and shape is not None:
        value = constants[node.input[0]]
        if value.size == math.prod(shape):
            return [value.reshape(shape)]
        raise ModelError(f"{at} turns {list(value.shape)} into {list(shape)}, which does not fit; check the model")
    try:
        with np.errstate(all="ignore"):  # overflow shows as a value that is not finite, and is refused as such
            evaluator = ReferenceEvaluator(node, opsets={"": opset})
            values = evaluator.run(None, {n: constants[n] for n in node.input if n})
    except Exception as error:  # whatever the reference raises, the node has no value: say which one
        raise ModelError(f"{at} cannot be computed beforehand ({one_line(error)}); fold it with another tool first") from error
    if not all(isinstance(v, np.ndarray | np.generic) for v in values):
        raise ModelError(f"{at} gives something other than tensors, which onnxsub does not read; remove it")
    return [np.array(v) for v in values]


def by_runtime(node: NodeProto, opset: int, constants: Mapping[str, Array]) -> list[Array] | None:
    """Outputs of a node by onnxruntime, which is given nothing but that node; None where it is missing or does not run it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        return None
    weights = [numpy_helper.from_array(constants[name], name) for name in dict.fromkeys(n for n in node.input if n)]
    graph = helper.make_graph([node], "node", [], [ValueInfoProto(name=name) for name in node.output if name], weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)], ir_version=_IR)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        values = iter(session.run(None, {}))
    except Exception:  # onnxruntime raises many unrelated classes; the node stays, and is refused by its name
        return None
    return [np.asarray(next(values)) if name else np.zeros(0) for name in node.output]
