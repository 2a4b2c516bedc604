"""Layout `compact`: every affine stretch folded; `Flatten`, then `Concat`, `Gemm` and activation per layer with kept units.

Written at opset 13 and IR 8, which old readers know. The file has the input and the output of the original (a head such as Softmax
is left out, the logits are the output) and works for any batch where the original does. Weights are rounded from
float64 to the model's own type once.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from onnxsub.layouts.emit import Writer
from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.passes.fold import fold
from onnxsub.results import VERSION

__all__ = ["OPSET", "compact", "write"]

OPSET = 13
_IR = 8


def compact(model: Model, network: Network) -> ModelProto:
    """The folded form of `network` as a file."""
    return write(model, fold(network))


def write(model: Model, folded: Network) -> ModelProto:
    """A network of `Dense`, `Concat`, reshaping, activation and pooling operators as a file with the model's input and output."""
    writer = Writer(model.input_dtype)
    rename = {folded.input: model.input}
    target = model.raw_output
    for op in folded.ops:
        last = op.output == folded.output
        flat = model.output_shape == op.out_shape
        rename[op.output] = target if last and flat else op.output
        writer.add(op, tuple(rename[n] for n in op.inputs), rename[op.output])
        if last and not flat:
            writer.reshape(op.output, target, model.output_shape)
    graph = helper.make_graph(writer.nodes, "substitute", [_input(model)], [_output(model, target)], initializer=writer.weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR, producer_name="onnxsub", producer_version=VERSION
    )


def _input(model: Model) -> ValueInfoProto:
    for value in model.source.graph.input:
        if value.name == model.input:
            copy = ValueInfoProto()
            copy.CopyFrom(value)
            return copy
    raise ValueError(f"the model has no input {model.input!r}")


def _output(model: Model, name: str) -> ValueInfoProto:
    kind = TensorProto.DataType.Value(_TYPES[np.dtype(model.input_dtype).name])
    batch = _input(model).type.tensor_type.shape.dim[0]
    first: int | str | None = batch.dim_param or None if batch.WhichOneof("value") != "dim_value" else 1
    return helper.make_tensor_value_info(name, kind, [1 if model.batch_fixed else first, *model.output_shape])


_TYPES = {"float32": "FLOAT", "float64": "DOUBLE", "float16": "FLOAT16"}
