"""Layout `chain`: `Flatten, Gemm, Relu, Gemm, ..., Relu, Gemm` and nothing else, which every known verifier reads.

Opset 13, IR 8, batch 1, `alpha = beta = 1`, weights and biases as initializers, everything in the element type of the
original's input. Exact on the domain of the inputs, or on the ball where the file of a network with windows (MaxPool) would
become far larger than the model, or the element type cannot hold the shifts that the domain takes; the metadata says which. What a
later layer needs of the input or of earlier units travels through each Relu with a shift that keeps it non-negative there. The file
is compared with layout `compact` under onnxruntime before it is handed out.

The network is folded once: on its folded form bounds, and rows on a box, cost next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, helper

from onnxsub.budget import Budget
from onnxsub.layouts.chain_relus import check_relu_forms
from onnxsub.layouts.chain_rows import TooManyError, relu_rows_on
from onnxsub.layouts.chain_stages import Stage, stages
from onnxsub.layouts.compact import OPSET, write
from onnxsub.layouts.context import LayoutContext, PrecisionError
from onnxsub.layouts.emit import Writer
from onnxsub.layouts.folded import folded
from onnxsub.model import Model, load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import flatten
from onnxsub.ops.relu import Relu
from onnxsub.results import VERSION
from onnxsub.runtime import Runtime
from onnxsub.surgery import annotate

__all__ = ["TOLERANCE", "chain", "chain_network"]

TOLERANCE = 1e-4
"""The logits may differ from those of layout `compact` by this share of `1 + max |logit|`."""

_IR = 8
_GROWTH, _SMALL = 10, 2**16  # times the model's bytes, and bytes in any case, that exactness on the whole domain may cost
_SAMPLES = 24  # of each kind: inside the domain, at its corners, inside the ball, at its corners


def chain(model: Model, network: Network, context: LayoutContext, *, budget: Budget | None = None) -> ModelProto:
    """`network` as a chain that equals it on the context's box, or on its ball where the box is not affordable.

    Raises:
        UnsupportedOperatorError: a kept unit is smooth.
        InputError: the domain is unbounded and the context states no box.
        PrecisionError: the model's element type cannot hold the chain to within `TOLERANCE`.
        OutOfTime: the budget ended.
    """
    budget = budget or Budget()
    check_relu_forms(network)  # before the fold, which may take minutes
    context.exact_box(network.input_shape)
    form = folded(network, budget)
    reference = Runtime(load_model(write(model, form, budget=budget)), threads=1)
    room, most = math.inf, None
    if network.windows and context.fallback is not None:
        # a form that travels and a unit have a row each, so the first Gemm alone has as many weights as rows times inputs
        room = max(_GROWTH * model.source.ByteSize(), _SMALL)
        most = min(network.units_and_windows, room // model.input_dtype.itemsize // network.input_size)
    try:
        proto = _on_box(model, form, reference, context, budget, most)
    except TooManyError:
        proto = None
    except PrecisionError:
        if context.fallback is None:
            raise
        proto = None
    if proto is not None and proto.ByteSize() <= room:
        return proto
    assert context.fallback is not None  # else there is no limit
    return _on_box(model, form, reference, context.on_ball(context.fallback), budget, None)


def _on_box(
    model: Model, network: Network, reference: Runtime, context: LayoutContext, budget: Budget, most: int | None
) -> ModelProto:
    """The chain of a folded network, no worse than `reference`, its file in layout `compact`."""
    box = context.exact_box(network.input_shape)
    rows = relu_rows_on(network, context.fed(box[0]), context.fed(box[1]), budget=budget, most=most)
    tries = tuple(_points(context, box))
    samples = np.concatenate([context.fed(x) for _, x in tries]).reshape(-1, network.input_size)
    complaint = ""
    # a single shift must pass with room to spare, since points that were not tried may be a little worse
    for inside, share in ((None, 0.5), (samples, 1.0)):
        proto = _write(model, _row_of(stages(rows, inside, budget), network, context.flat_input), budget)
        complaint = _complaint(reference, Runtime(load_model(proto), threads=1), context, tries, share * TOLERANCE, budget)
        if not complaint:
            props = {} if context.valid_radius is None else {"onnxsub.chain.valid_radius": repr(context.valid_radius)}
            return annotate(proto, props, {})
    raise PrecisionError(model.where, f"{model.input_dtype} cannot hold layout chain, {complaint}")


def chain_network(network: Network, lower: Array, upper: Array, *, flat_input: bool = False) -> Network:
    """`network` as Flatten, Dense and Relu operators in a row: the same function on the box.

    Args:
        lower, upper: the box, `(*input_shape)`, in the units of the network's input.
        flat_input: the result takes flat rows and has no Flatten.
    """
    return _row_of(stages(relu_rows_on(network, lower, upper)), network, flat_input)


def _row_of(plan: tuple[Stage, ...], network: Network, flat_input: bool) -> Network:
    ops: list[Operator] = []
    source = "x"
    if not flat_input:
        ops.append(flatten(source, network.input_shape, "flat"))
        source = "flat"
    for k, stage in enumerate(plan[:-1], start=1):
        width = (len(stage.bias),)
        ops.append(_gemm(stage, source, f"z{k}"))
        ops.append(Relu(op_type="Relu", node=f"relu{k}", inputs=(f"z{k}",), output=f"h{k}", in_shapes=(width,), out_shape=width))
        source = f"h{k}"
    ops.append(_gemm(plan[-1], source, "logits"))
    return Network("x", (network.input_size,) if flat_input else network.input_shape, "logits", tuple(ops))


def _gemm(stage: Stage, source: str, output: str) -> Dense:
    out, width = stage.weight.shape
    return Dense(
        op_type="Gemm", node=output, inputs=(source,), output=output, in_shapes=((width,),), out_shape=(out,),
        weight=stage.weight, bias=stage.bias,
    )  # fmt: skip


def _write(model: Model, network: Network, budget: Budget) -> ModelProto:
    writer = Writer(model.input_dtype, (model.input, model.raw_output))
    rename = {network.input: model.input}
    for op in network.ops:
        budget.check()
        rename[op.output] = model.raw_output if op.output == network.output else writer.fresh(op.output)
        writer.add(op, tuple(rename[n] for n in op.inputs), rename[op.output])
    kind = helper.np_dtype_to_tensor_dtype(model.input_dtype)
    values = [
        helper.make_tensor_value_info(model.input, kind, [1, *network.input_shape]),
        helper.make_tensor_value_info(model.raw_output, kind, [1, network.classes]),
    ]
    graph = helper.make_graph(writer.nodes, "substitute", values[:1], values[1:], initializer=writer.weights)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR, producer_name="onnxsub", producer_version=VERSION
    )


def _complaint(
    reference: Runtime,
    runtime: Runtime,
    context: LayoutContext,
    tries: tuple[tuple[str, Array], ...],
    tolerance: float,
    budget: Budget,
) -> str:
    """Where and by how much two files differ by more than is allowed, both under onnxruntime; empty where they do not."""
    for where, x in tries:
        budget.check()
        fed = context.fed(x).astype(reference.model.input_dtype)
        expected = reference.logits(fed).astype(np.float64)
        got = runtime.logits(fed.reshape(len(fed), *runtime.model.input_shape)).astype(np.float64)
        limit = tolerance * (1 + np.abs(expected).max(axis=1))
        off = np.abs(got - expected).max(axis=1)
        worst = int(np.argmax(off / limit))
        if not off[worst] <= limit[worst]:
            return f"its logits are off by {off[worst]:.2g} {where} where {limit[worst]:.2g} is allowed"
    return ""


def _points(context: LayoutContext, box: tuple[Array, Array]) -> Iterator[tuple[str, Array]]:
    rng = np.random.default_rng(0)
    yield "at the anchor or the adversarial point", context.points
    for where, ends in (("on the domain", box), ("on the ball", context.ball)):
        if ends is not None:
            lower, upper = ends
            share = rng.random((2 * _SAMPLES, *lower.shape))
            share[_SAMPLES:] = share[_SAMPLES:].round()
            yield where, lower + share * (upper - lower)
