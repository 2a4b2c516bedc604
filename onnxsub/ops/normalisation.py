r"""Normalisations and Softmax inside a network, as the operators that they are made of.

| node | is |
|---|---|
| Layer-, Instance-, GroupNormalization | `(x - mean) (var + eps)^-1/2 gamma + beta`, over axes of one sample |
| RMSNormalization | `x (mean x^2 + eps)^-1/2 gamma` |
| LpNormalization | `x / |x|_p`, p 1 or 2; 0 where the norm is 0 |
| LRN | `x (bias + alpha / n sum of x^2 over n channels)^-beta` |
| Softmax, LogSoftmax | `exp(x - LSE(x))`, `x - LSE(x)` |
| ReduceL1, ReduceL2, ReduceSumSquare, ReduceLogSumExp | sums over axes of `|x|`, `x^2`, `exp x` |
"""

from __future__ import annotations

import math

import numpy as np

from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.broadcast import of_sample, only_variable, required, sample_axes
from onnxsub.ops.compose import Composer
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.node import Node
from onnxsub.ops.partial import Power, Reciprocal
from onnxsub.ops.reduce import reduced_axes
from onnxsub.ops.steps import InverseNorm, InversePower, Probability, Root

__all__ = [
    "read_group_normalization", "read_instance_normalization", "read_layer_normalization", "read_log_softmax",
    "read_lp_normalization", "read_lrn", "read_reduce_l1", "read_reduce_l2", "read_reduce_log_sum_exp", "read_reduce_sum_square",
    "read_rms_normalization", "read_softmax",
]  # fmt: skip

def _epsilon(node: Node) -> float:
    value = float(node.attributes.get("epsilon", 1e-5))
    if not 0 <= value < math.inf:
        raise node.refuse(f"its epsilon is {value}")
    return value


def _normalised(
    steps: Composer, x: str, axes: tuple[int, ...], epsilon: float, *, centred: bool = True, parts: tuple[str, str] = ("", "")
) -> str:
    """`(x - mean) / sqrt(var + epsilon)`, or without the mean.

    Args:
        parts: names for the mean and for `(var + epsilon)^-1/2`, or "".
    """
    count = math.prod(steps.shapes[x][a] for a in axes)
    limit = math.sqrt(count - 1 if centred else count)
    if centred:
        x = steps.minus(x, steps.reduce(x, axes, mean=True, into=parts[0] or None))
    spread = steps.reduce(steps.square(x), axes, mean=True)
    if epsilon > 0:
        factor = steps.apply(InversePower, spread, parts[1] or None, power=0.5, shift=epsilon)
    else:  # equal numbers have no value: functions that claim nothing there
        factor = steps.apply(Reciprocal, steps.apply(Power, spread, exponent=0.5), parts[1] or None)
    return steps.normalised(x, factor, limit)


def _parameter(node: Node, i: int, what: str, shape: Shape) -> Array:
    value = required(node, i, what).astype(np.float64)
    if not np.isfinite(value).all():
        raise node.refuse(f"{what} is not finite")
    if value.size != math.prod(shape):
        raise node.refuse(f"{what} has {value.size} numbers and not {math.prod(shape)}")
    return value.reshape(shape)


def _tail_axes(node: Node, source: str) -> tuple[int, ...]:
    """The axes of the sample from `axis` on."""
    rank = len(node.shapes[source])
    first = sample_axes(node, [int(node.attributes.get("axis", -1))], rank)[0]
    return tuple(range(first, rank - 1))


def read_layer_normalization(node: Node) -> tuple[Operator, ...]:
    """LayerNormalization of opset 17: over the axes from `axis` on; the other outputs are the mean and `(var + eps)^-1/2`."""
    return _layer(node, centred=True)


def read_rms_normalization(node: Node) -> tuple[Operator, ...]:
    """RMSNormalization of opset 23: over the axes from `axis` on."""
    return _layer(node, centred=False)


def _layer(node: Node, *, centred: bool) -> tuple[Operator, ...]:
    source = only_variable(node)
    if not node.outputs[0]:
        raise node.refuse("its first output is not used")
    mean, deviation = (node.outputs[i] if len(node.outputs) > i else "" for i in (1, 2))
    axes, steps, rank = _tail_axes(node, source), Composer(node), len(node.shapes[source])
    y = _normalised(steps, source, axes, _epsilon(node), centred=centred, parts=(mean, deviation))
    gamma = of_sample(node, required(node, 1, "the scale"), rank)
    beta = None if node.constant(2) is None else of_sample(node, required(node, 2, "the bias"), rank)
    steps.scale(y, gamma, beta, steps.output)
    return steps.done()


def read_instance_normalization(node: Node) -> tuple[Operator, ...]:
    """InstanceNormalization: over the spatial axes of every channel."""
    source = only_variable(node)
    shape, steps = node.sample_shape(source), Composer(node)
    per_channel = (shape[0], *[1] * (len(shape) - 1))
    gamma, beta = (_parameter(node, i, what, per_channel) for i, what in ((1, "the scale"), (2, "the bias")))
    y = _normalised(steps, source, tuple(range(1, len(shape))), _epsilon(node))
    steps.scale(y, gamma, beta, steps.output)
    return steps.done()


def read_group_normalization(node: Node) -> tuple[Operator, ...]:
    """GroupNormalization: with a scale and a bias per channel, which opset 18 states per group."""
    source = only_variable(node)
    shape, steps = node.sample_shape(source), Composer(node)
    groups = int(node.attributes["num_groups"])
    if groups < 1 or shape[0] % groups:
        raise node.refuse(f"its {shape[0]} channels make no {groups} groups")
    grouped = steps.reshape(source, (groups, math.prod(shape) // groups))
    y = _normalised(steps, grouped, (1,), _epsilon(node))
    per_channel = (shape[0], *[1] * (len(shape) - 1))
    each, times = (per_channel, 1) if node.opset >= 21 else ((groups, *per_channel[1:]), shape[0] // groups)
    parameters = (_parameter(node, i, what, each) for i, what in ((1, "the scale"), (2, "the bias")))
    gamma, beta = (np.repeat(value, times, axis=0) for value in parameters)
    steps.scale(steps.reshape(y, shape), gamma, beta, steps.output)
    return steps.done()


def read_lp_normalization(node: Node) -> tuple[Operator, ...]:
    """LpNormalization: along one axis."""
    source, p = only_variable(node), int(node.attributes.get("p", 2))
    if p not in (1, 2):
        raise node.refuse(f"p is {p}; 1 and 2 are read")
    axes = sample_axes(node, [int(node.attributes.get("axis", -1))], len(node.shapes[source]))
    steps = Composer(node)
    terms = steps.square(source) if p == 2 else _magnitude(steps, source)
    norm = steps.apply(InverseNorm, steps.reduce(terms, axes, mean=False), power=1 / p)
    steps.normalised(source, norm, 1.0, steps.output)
    return steps.done()


def _magnitude(steps: Composer, x: str, into: str | None = None) -> str:
    return steps.apply(Leaky, x, into, slope=np.array(-1.0))


def read_lrn(node: Node) -> tuple[Operator, ...]:
    """LRN: the squares are summed over neighbouring channels."""
    source = only_variable(node)
    shape, steps, size = node.sample_shape(source), Composer(node), int(node.attributes["size"])
    alpha, beta, bias = (float(node.attributes.get(k, v)) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    if not (alpha >= 0 and beta > 0 and bias > 0):
        raise node.refuse(f"alpha {alpha}, beta {beta}, bias {bias}: only alpha >= 0 and positive beta and bias are read")
    channel = np.arange(shape[0])
    away = channel[None, :] - channel[:, None]
    band = ((away >= -((size - 1) // 2)) & (away <= size // 2)).astype(np.float64)
    sums = steps.left_product(steps.reshape(steps.square(source), (shape[0], math.prod(shape[1:]))), alpha / size * band)
    factor = steps.apply(InversePower, sums, power=beta, shift=bias)
    steps.product(source, steps.reshape(factor, shape), steps.output)
    return steps.done()


def _softmax_axes(node: Node, source: str) -> tuple[int, ...]:
    """One axis, from opset 13 on; before, all from `axis` on."""
    rank = len(node.shapes[source])
    axis = int(node.attributes.get("axis", -1 if node.opset >= 13 else 1))
    first = sample_axes(node, [axis], rank)[0]
    return (first,) if node.opset >= 13 else tuple(range(first, rank - 1))


def read_log_softmax(node: Node) -> tuple[Operator, ...]:
    """LogSoftmax."""
    source, steps = only_variable(node), Composer(node)
    steps.minus(source, steps.log_sum_exp(source, _softmax_axes(node, source)), steps.output)
    return steps.done()


def read_softmax(node: Node) -> tuple[Operator, ...]:
    """Softmax."""
    source, steps = only_variable(node), Composer(node)
    logarithm = steps.minus(source, steps.log_sum_exp(source, _softmax_axes(node, source)))
    steps.apply(Probability, logarithm, steps.output)
    return steps.done()


def _reduced(node: Node, kind: str) -> tuple[Operator, ...]:
    source, steps = only_variable(node), Composer(node)
    found = reduced_axes(node)
    if not found:  # of single elements
        if kind == "log_sum_exp":
            steps.reshape(source, steps.shapes[source], steps.output)
        else:
            _ = steps.square(source, steps.output) if kind == "square" else _magnitude(steps, source, steps.output)
        return steps.done()
    if kind == "log_sum_exp":
        y = steps.log_sum_exp(source, found)
    else:
        y = steps.reduce(_magnitude(steps, source) if kind == "l1" else steps.square(source), found, mean=False)
        y = steps.apply(Root, y) if kind == "l2" else y
    steps.reshape(y, node.sample_shape(node.outputs[0]), steps.output)
    return steps.done()


def read_reduce_l1(node: Node) -> tuple[Operator, ...]:
    """The sum of magnitudes."""
    return _reduced(node, "l1")


def read_reduce_l2(node: Node) -> tuple[Operator, ...]:
    """The Euclidean norm."""
    return _reduced(node, "l2")


def read_reduce_sum_square(node: Node) -> tuple[Operator, ...]:
    """The sum of squares."""
    return _reduced(node, "square")


def read_reduce_log_sum_exp(node: Node) -> tuple[Operator, ...]:
    """The logarithm of the sum of exponentials."""
    return _reduced(node, "log_sum_exp")
