"""Readers of reductions and windows that are made of products, powers and logarithms: ReduceProd, ReduceLogSum, LpPool."""

from __future__ import annotations

import math

import numpy as np

from onnxsub.ops.base import Operator
from onnxsub.ops.broadcast import only_variable
from onnxsub.ops.compose import Composer
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.node import Node
from onnxsub.ops.partial import Log
from onnxsub.ops.reduce import reduced_axes
from onnxsub.ops.sliding import read_sliding
from onnxsub.ops.steps import Root

__all__ = ["read_global_lp_pool", "read_lp_pool", "read_reduce_log_sum", "read_reduce_prod"]

_MOST = 64
"""Factors of one product: bounds of longer ones say nothing."""


def read_reduce_log_sum(node: Node) -> tuple[Operator, ...]:
    """The logarithm of a sum, which must be positive."""
    source, steps = only_variable(node), Composer(node)
    axes = reduced_axes(node)  # () where it works on single elements
    y = steps.apply(Log, steps.reduce(source, axes, mean=False) if axes else source)
    steps.reshape(y, node.sample_shape(node.outputs[0]), steps.output)
    return steps.done()


def read_reduce_prod(node: Node) -> tuple[Operator, ...]:
    """Products of pairs, and of these, until one is left."""
    source, steps, axes = only_variable(node), Composer(node), reduced_axes(node)
    shape, after = steps.shapes[source], node.sample_shape(node.outputs[0])
    rest = [i for i in range(len(shape)) if i not in axes]
    count = math.prod(shape[a] for a in axes)
    if count > _MOST:
        raise node.refuse(f"products of {count} numbers; up to {_MOST} are read")
    table = np.arange(math.prod(shape)).reshape(shape).transpose(*rest, *axes).reshape(-1, count)
    y = source
    while table.shape[1] > 1:
        half, size = table.shape[1] // 2, len(table)
        first, second = (steps.picked(y, table[:, k * half : (k + 1) * half].reshape(-1)) for k in (0, 1))
        parts = [steps.product(first, second)]
        columns = [np.arange(size * half).reshape(size, half)]
        if table.shape[1] % 2:
            parts.append(steps.picked(y, table[:, -1]))
            columns.append(size * half + np.arange(size).reshape(size, 1))
        y = parts[0] if len(parts) == 1 else steps.together(tuple(parts))
        table = np.concatenate(columns, axis=1)
    steps.reshape(steps.picked(y, table[:, 0]), after, steps.output)
    return steps.done()


def _lp(node: Node, steps: Composer, source: str) -> tuple[str, int]:
    """What is summed, `|x|` or `x^p`, and how many square roots the sum is given."""
    p = int(node.attributes.get("p", 2))
    if p not in (1, 2, 4):
        raise node.refuse(f"p is {p}; 1, 2 and 4 are read")
    if p == 1:
        return steps.apply(Leaky, source, slope=np.array(-1.0)), 0
    square = steps.square(source)
    return (square, 1) if p == 2 else (steps.square(square), 2)


def _rooted(steps: Composer, y: str, roots: int) -> tuple[Operator, ...]:
    for left in reversed(range(roots)):
        y = steps.apply(Root, y, None if left else steps.output)
    return steps.done()


def read_lp_pool(node: Node) -> tuple[Operator, ...]:
    """`(sum of |x|^p)^(1/p)` over windows, p 1, 2 or 4."""
    source, steps = only_variable(node), Composer(node)
    terms, roots = _lp(node, steps, source)
    kernel = tuple(int(k) for k in node.attributes["kernel_shape"])
    sliding = read_sliding(node, kernel, node.outputs[0], source)
    y = steps.summed(terms, sliding, node.sample_shape(node.outputs[0]), None if roots else steps.output)
    return _rooted(steps, y, roots)


def read_global_lp_pool(node: Node) -> tuple[Operator, ...]:
    """The same over all spatial axes."""
    source, steps = only_variable(node), Composer(node)
    terms, roots = _lp(node, steps, source)
    axes = tuple(range(1, len(steps.shapes[source])))
    y = steps.reduce(terms, axes, mean=False, into=None if roots else steps.output)
    return _rooted(steps, y, roots)
