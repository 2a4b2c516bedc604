"""Layout `compact`: every affine stretch folded; `Flatten`, then `Concat`, `Gemm` and activation per layer with kept units.

Written at opset 13 and IR 8, which old readers know. The file has the input and the output of the original (a head such as Softmax
is left out, the logits are the output) and works for any batch where the original does. Weights are rounded once, from
float64 to the type of the original's output, with a Cast at either end where that needs one; for a float16 output to that of its
input, to float32 at least: runtimes without kernels of that type compute in float32 too, and round folded weights once more.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, ValueInfoProto, helper

from onnxsub.budget import Budget
from onnxsub.layouts.emit import Writer
from onnxsub.layouts.folded import folded
from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.results import VERSION

__all__ = ["OPSET", "compact", "write"]

OPSET = 13
_IR = 8


def compact(model: Model, network: Network, *, budget: Budget | None = None) -> ModelProto:
    """The folded form of `network` as a file. Raises OutOfTime where the budget ends."""
    return write(model, folded(network, budget), budget=budget)


def write(model: Model, form: Network, *, budget: Budget | None = None) -> ModelProto:
    """A network of `Dense`, `Concat`, reshaping, activation and pooling operators as a file with the model's input and output.

    Raises:
        OutOfTime: the budget ended; it is looked at before every operator.
    """
    budget = budget or Budget()
    declared = np.dtype(helper.tensor_dtype_to_np_dtype(model.form.graph.output[0].type.tensor_type.elem_type))
    dtype = np.promote_types(model.input_dtype, np.float32) if declared == np.float16 else declared
    target = model.raw_output
    writer = Writer(dtype, (model.input, target))
    rename = {form.input: model.input}
    if dtype != model.input_dtype:
        rename[form.input] = writer.fresh("folded:input")
        writer.cast(model.input, rename[form.input], dtype)
    flat = model.output_shape == form.output_shape
    for op in form.ops:
        budget.check()
        last = op.output == form.output and flat and dtype == declared
        rename[op.output] = target if last else writer.fresh(op.output)
        writer.add(op, tuple(rename[n] for n in op.inputs), rename[op.output])
    logits = rename[form.output]
    if not flat:
        source, logits = logits, target if dtype == declared else writer.fresh("folded:shaped")
        writer.reshape(source, logits, model.output_shape)
    if dtype != declared:
        writer.cast(logits, target, declared)
    graph = helper.make_graph(writer.nodes, "substitute", [_input(model)], [_output(model, target)], initializer=writer.weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR, producer_name="onnxsub", producer_version=VERSION
    )


def _input(model: Model) -> ValueInfoProto:
    for value in model.form.graph.input:
        if value.name == model.input:
            copy = ValueInfoProto()
            copy.CopyFrom(value)
            return copy
    raise ValueError(f"the model has no input {model.input!r}")


def _output(model: Model, name: str) -> ValueInfoProto:
    kind = model.form.graph.output[0].type.tensor_type.elem_type
    batch = 1 if model.batch_fixed else _input(model).type.tensor_type.shape.dim[0].dim_param or None
    return helper.make_tensor_value_info(name, kind, [batch, *model.output_shape])
