"""Operators of ai.onnx.ml as those of the default operator set.

| operator | what it becomes |
|---|---|
| Scaler | `(x - offset) * scale`: Sub, Mul |
| LinearRegressor | `x C^T + b`: Gemm |
| LinearClassifier | the same, and Softmax or Sigmoid behind it where it has one; one row of two classes: Softmax of `(0, s)` |
| ArrayFeatureExtractor | the features by constant indices: Gather |
| Normalizer | L1, L2: LpNormalization; MAX: Div by ReduceMax (which is no magnitude: what is 0 at most has no bounds) |
| Imputer | Identity, where it replaces what is no number: every input of a domain is one |
| Binarizer | Greater and Cast |

Others stay as they are, and are refused by the operator table; `WHY` says why of those that are no networks, and of a few others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from onnxsub.errors import ModelError
from onnxsub.ops.base import Array
from onnxsub.reading.graphs import Names, attribute, constant_value, name_of, replace_nodes

__all__ = ["DOMAIN", "WHY", "without_ml"]

DOMAIN = "ai.onnx.ml"

_TREES = "trees have no bounds here, only networks have; use a tool for tree ensembles, or train a network on their answers"
_KERNELS = "support vectors have no bounds here, only networks have; use a linear or a neural model"

_DRAWN = "it draws random numbers; export the model in evaluation mode"

_RECURRENT = "recurrent layers are not read; write it as steps of a cell (LSTMCell, GRUCell, RNNCell), which exporters unroll"

WHY: dict[str, str] = {
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _RECURRENT),
    **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), _DRAWN),
    **{f"{DOMAIN}.{name}": _TREES for name in ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")},
    **{f"{DOMAIN}.{name}": _KERNELS for name in ("SVMClassifier", "SVMRegressor")},
}
"""Why an operator that cannot be written by others is not supported, by its name in the operator table."""


class _Made:
    """Nodes and constants that take the place of one node."""

    def __init__(self, node: NodeProto, names: Names, wide: bool, features: int | None, where: str, opset: int) -> None:
        self.node, self.where, self.features, self.opset = node, where, features, opset
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._names = names
        self._wide = wide

    def weight(self, name: str, value: Array) -> str:
        full = self._names.fresh(f"{self.node.output[0]}/{name}")
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), full))
        return full

    def step(self, kind: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = output or self._names.fresh(f"{self.node.output[0]}/{kind.lower()}")
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{name_of(self.node)}/{kind}", **attributes))
        return name

    def source(self) -> str:
        """The node's input as float32, which these operators compute in."""
        name = str(self.node.input[0])
        return self.step("Cast", [name], to=TensorProto.FLOAT) if self._wide else name

    def floats(self, name: str) -> Array:
        return np.asarray(attribute(self.node, name, ()), dtype=np.float32)

    def refuse(self, why: str) -> ModelError:
        return ModelError(f"{self.where}: {self.node.op_type} (node {name_of(self.node)!r}) {why}")


def without_ml(graph: GraphProto, where: str, opset: int) -> None:
    """Writes the operators of ai.onnx.ml that the table above has by those of the default operator set `opset`, in place.

    Raises:
        ModelError: an attribute that they have no form for.
    """
    names = Names(graph)
    wide = any(v.type.tensor_type.elem_type != TensorProto.FLOAT for v in graph.input)
    widths = {v.name: v.type.tensor_type.shape.dim[-1].dim_value for v in graph.input if v.type.tensor_type.shape.dim}
    nodes: list[NodeProto] = []
    for node in graph.node:
        write = _WRITERS.get(node.op_type) if node.domain == DOMAIN else None
        if write is None:
            nodes.append(node)
            continue
        made = _Made(node, names, wide, widths.get(node.input[0]) or None, where, opset)
        if write(made, graph):
            nodes.extend(made.nodes)
            graph.initializer.extend(made.weights)
        else:
            nodes.append(node)
    replace_nodes(graph, nodes)


def _scaler(made: _Made, _: GraphProto) -> bool:
    offset, scale = made.floats("offset"), made.floats("scale")
    value = made.source()
    if offset.size:
        value = made.step("Sub", [value, made.weight("offset", offset)])
    made.step("Mul", [value, made.weight("scale", scale if scale.size else np.ones(1, np.float32))], made.node.output[0])
    return True


def _linear(made: _Made, rows: int, twice: bool, output: str | None) -> str:
    """`x C^T + b` with `rows` rows of coefficients; `twice`: one row s as `(0, s)`, logits of `(1 - sigmoid(s), sigmoid(s))`."""
    matrix, bias = made.floats("coefficients"), made.floats("intercepts")
    if made.features is not None and matrix.size > rows * made.features:
        matrix = matrix[: rows * made.features]  # onnxruntime reads as many as it needs, row by row, from the front
    if rows < 1 or matrix.size % rows or bias.size not in (0, rows):
        raise made.refuse(f"has {matrix.size} coefficients and {bias.size} intercepts for {rows} rows; export the model again")
    matrix = matrix.reshape(rows, -1)
    bias = bias if bias.size else np.zeros(rows, np.float32)
    if twice:
        matrix, bias = (np.concatenate([np.zeros_like(part), part]) for part in (matrix, bias))
    inputs = [made.source(), made.weight("coefficients", matrix), made.weight("intercepts", bias)]
    return made.step("Gemm", inputs, output, transB=1)


def _regressor(made: _Made, _: GraphProto) -> bool:
    after = attribute(made.node, "post_transform", "NONE")
    if after != "NONE":
        raise made.refuse(f"has post_transform {after}, of which only NONE is read; export it without")
    _linear(made, int(attribute(made.node, "targets", 1)), False, made.node.output[0])
    return True


def _classifier(made: _Made, _: GraphProto) -> bool:
    node = made.node
    labels = attribute(node, "classlabels_ints") or attribute(node, "classlabels_strings") or ()
    rows = made.floats("intercepts").size or len(labels)
    if len(labels) not in (rows, rows + 1) or (len(labels) > rows and rows != 1):
        raise made.refuse(f"has {rows} rows for {len(labels)} classes; export the model again")
    after = attribute(node, "post_transform", "NONE")
    if len(node.output) < 2 or not node.output[1]:
        raise made.refuse("gives no scores; export the model with its scores as an output")
    heads = {"NONE": None, "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}
    if after not in heads:
        raise made.refuse(f"has post_transform {after}, of which NONE, SOFTMAX and LOGISTIC are read; export it without")
    twice = len(labels) == 2 and rows == 1
    head = "Softmax" if twice else heads[after]
    if twice and after != "LOGISTIC":  # onnxruntime: the label by s > 0, the scores 1 - s and s
        raise made.refuse(f"has one row for two classes and post_transform {after}: label and scores disagree; use LOGISTIC")
    scores = _linear(made, rows, twice, None if head else node.output[1])
    if head == "Softmax":
        made.step(head, [scores], node.output[1], axis=1)
    elif head is not None:
        made.step(head, [scores], node.output[1])
    return True


def _features(made: _Made, graph: GraphProto) -> bool:
    indices = constant_value(graph, made.node.input[1])
    if indices is None:
        return False
    chosen = made.weight("indices", indices.reshape(-1).astype(np.int64))
    made.step("Gather", [made.node.input[0], chosen], made.node.output[0], axis=1)
    return True


def _normalizer(made: _Made, _: GraphProto) -> bool:
    norm = attribute(made.node, "norm", "MAX")
    if norm not in ("L1", "L2", "MAX"):
        raise made.refuse(f"has norm {norm}, of which L1, L2 and MAX are read; export it with one of them")
    value = made.source()
    if norm != "MAX":
        made.step("LpNormalization", [value], made.node.output[0], axis=-1, p=int(norm[1]))
        return True
    # axes are an input from opset 18 on
    axes = [] if made.opset < 18 else [made.weight("axes", np.array([-1], np.int64))]
    attributes: dict[str, Any] = {} if axes else {"axes": [-1]}
    largest = made.step("ReduceMax", [value, *axes], keepdims=1, **attributes)
    made.step("Div", [value, largest], made.node.output[0])
    return True


def _imputer(made: _Made, _: GraphProto) -> bool:
    replaced = attribute(made.node, "replaced_value_float", 0.0)
    if attribute(made.node, "imputed_value_int64s") or not np.isnan(replaced):
        raise made.refuse("replaces numbers that inputs may have; of Imputers that is read which replaces NaN")
    made.step("Identity", [made.source()], made.node.output[0])
    return True


def _binarizer(made: _Made, _: GraphProto) -> bool:
    threshold = made.weight("threshold", np.array(attribute(made.node, "threshold", 0.0), dtype=np.float32))
    above = made.step("Greater", [made.source(), threshold])
    made.step("Cast", [above], made.node.output[0], to=TensorProto.FLOAT)
    return True


_WRITERS: dict[str, Callable[[_Made, GraphProto], bool]] = {
    "ArrayFeatureExtractor": _features,
    "Binarizer": _binarizer,
    "Imputer": _imputer,
    "LinearClassifier": _classifier,
    "LinearRegressor": _regressor,
    "Normalizer": _normalizer,
    "Scaler": _scaler,
}
