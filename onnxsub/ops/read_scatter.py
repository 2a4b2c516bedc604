"""ScatterElements and ScatterND with a reduction: sums, products and extremes of what is there and what is written.

Every place is taken once, what is there combined with the first update that is meant for it, the result with the second one, and
so on: the four reductions do not depend on the order.
"""

from __future__ import annotations

import math

import numpy as np

from onnxsub.ops.base import Array, Operator
from onnxsub.ops.compose import Composer
from onnxsub.ops.node import Node
from onnxsub.ops.relu import Relu

__all__ = ["reduced"]

_REDUCTIONS = ("add", "mul", "max", "min")

Value = Array | str
"""Constants `(k,)`, or the name of a tensor of that shape."""


def reduced(node: Node, places: Array, reduction: str) -> tuple[Operator, ...]:
    """The elements number `places` of the first input combined with those of the third one.

    Raises:
        UnsupportedOperatorError: another reduction; a constant that is not finite.
    """
    if reduction not in _REDUCTIONS:
        raise node.refuse(f"reduction {reduction!r}")
    steps, shape = Composer(node), node.sample_shape(node.outputs[0])
    written, place = np.unique(places.reshape(-1), return_inverse=True)
    data, updates = (_value(node, k) for k in (0, 2))
    order = np.argsort(place, kind="stable")
    # how many updates of the same place come before
    rank = np.arange(len(order)) - np.searchsorted(place[order], place[order])
    value = _picked(steps, data, written)
    for turn in range(int(rank.max(initial=-1)) + 1):
        own = order[rank == turn]  # in the order of their places
        which = place[own]
        new = _combined(steps, reduction, _picked(steps, value, which), _picked(steps, updates, own))
        value = new if turn == 0 else _put(steps, value, which, new)
    here = np.full(math.prod(shape), -1)
    here[written] = np.arange(len(written))
    if isinstance(value, str) and isinstance(data, str):
        both = steps.together((data, value))
        index = np.where(here >= 0, len(here) + here, np.arange(len(here)))
        steps.reshape(steps.picked(both, index), shape, steps.output)
    else:
        names, constant = [], np.zeros(len(here))
        sources: list[Array] = []
        for part, mask, at in ((data, here < 0, np.arange(len(here))), (value, here >= 0, np.maximum(here, 0))):
            if isinstance(part, str):
                names.append(steps.reshape(steps.picked(part, at), shape))
                sources.append(mask)
            elif mask.any():
                constant[mask] = part[at[mask]]
        source = np.full(len(here), -1)
        for k, mask in enumerate(sources):
            source[mask] = k
        steps.chosen(tuple(names), source.reshape(shape), constant.reshape(shape), steps.output)
    return steps.done()


def _value(node: Node, number: int) -> Value:
    constant = node.constant(number)
    if constant is None:
        return node.inputs[number]
    values = np.asarray(constant, dtype=np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise node.refuse("a constant operand is not finite")
    return values


def _picked(steps: Composer, value: Value, index: Array) -> Value:
    return steps.picked(value, index) if isinstance(value, str) else value[index]


def _put(steps: Composer, value: Value, which: Array, new: Value) -> Value:
    """`value` with `new` at the places `which`; both variable, for the first update of every place has come before."""
    assert isinstance(value, str)
    assert isinstance(new, str)
    size = math.prod(steps.shapes[value])
    index = np.arange(size)
    index[which] = size + np.arange(len(which))
    return steps.picked(steps.together((value, new)), index)


def _combined(steps: Composer, reduction: str, x: Value, y: Value) -> Value:
    if not isinstance(x, str):
        x, y = y, x  # all four are symmetric
    assert isinstance(x, str), "a node of constants alone is folded"
    if isinstance(y, str):
        if reduction == "add":
            return steps.minus(x, steps.scale(y, -1.0))
        if reduction == "mul":
            return steps.product(x, y)
        sign = 1.0 if reduction == "max" else -1.0
        # max(x, y) = y + relu(x - y), min(x, y) = y - relu(y - x)
        rise = steps.apply(Relu, steps.minus(x, y) if sign > 0 else steps.minus(y, x))
        return steps.minus(y, steps.scale(rise, -sign))
    if reduction == "add":
        return steps.scale(x, shift=y)
    if reduction == "mul":
        return steps.scale(x, y)
    sign = 1.0 if reduction == "max" else -1.0
    return steps.scale(steps.apply(Relu, steps.scale(x, sign, -sign * y)), sign, y)
