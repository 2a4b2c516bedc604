r"""The same function with hidden tensors in other units: every tensor t multiplied by 2^e(t), its weights by what that asks for.

Relu, LeakyRelu, Abs and maxima commute with positive factors, so a layer may be multiplied by 2^k where the next one is
multiplied by 2^-k. Powers of two round nothing: `scaled` is the same function, value for value. A network is *balanced* when no
tensor is far from 1: there float32 and a solver's absolute tolerances mean what they say. Weights that overflow on the way become
infinite: no bound comes of them (`rounding.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.average import AveragePool
from onnxsub.ops.base import Activation, Array, Operator
from onnxsub.ops.clip import Clip
from onnxsub.ops.combine import Concat, Sum
from onnxsub.ops.conv import Conv, ConvTranspose
from onnxsub.ops.dense import Dense, LeftProduct
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.movement import Pad, Selection
from onnxsub.ops.picked import Picked
from onnxsub.ops.reduce import Reduce
from onnxsub.ops.relu import Relu
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.propagate.rounding import Scales

__all__ = ["NEAR", "InexactError", "balancing", "groups", "scaled"]

NEAR = 20
"""Tensors whose scale lies within 2^-NEAR and 2^NEAR need no other unit."""


class InexactError(ArithmeticError):
    """The range of float64 is too small for a network in these units."""


_FREE = (Dense, LeftProduct, Conv, ConvTranspose, Scale)  # their output may have a unit of its own
_TIED = (Selection, Sum, Concat, AveragePool, Reduce, Relu, Leaky, Clip, Picked, Windows)  # all that they touch has one unit


def groups(network: Network) -> list[tuple[str, ...]]:
    """Tensors that must have one unit, group by group; without those whose unit is fixed, like the input's and the output's."""
    above: dict[str, str] = {}

    def root(name: str) -> str:
        while above.get(name, name) != name:
            name = above[name]
        return name

    fixed = [network.input, network.output]
    for op in network.ops:
        kind = op.base if isinstance(op, Substituted | SubstitutedMax) else op
        touched = (*op.inputs, op.output)
        if isinstance(kind, _TIED):
            for name in touched:
                above[root(name)] = root(op.output)
        elif not isinstance(kind, _FREE):
            fixed += touched
    still = {root(name) for name in fixed}
    found: dict[str, list[str]] = {}
    for name in network.shapes:
        if root(name) not in still:
            found.setdefault(root(name), []).append(name)
    return [tuple(g) for g in found.values()]


def balancing(network: Network, scales: Scales) -> dict[str, int]:
    """Exponents that bring every group's largest finite scale to between 1/2 and 1; empty where all are near 1 already."""
    found: dict[str, int] = {}
    for group in groups(network):
        size = max(float(scales.finite[n].max()) for n in group if scales[n].numel())
        found |= dict.fromkeys(group, -math.frexp(size)[1] if size > 0 else 0)
    if max(map(abs, found.values()), default=0) <= NEAR:
        return {}
    try:
        scaled(network, found)
    except InexactError:
        return {}
    return found


def scaled(network: Network, exponents: Mapping[str, int]) -> Network:
    """The network whose tensor t is 2^e(t) times that of `network`.

    Args:
        exponents: equal within each of the `groups`; a tensor that is not named keeps its unit.

    Raises:
        ValueError: tensors of one group have different exponents, or the unit of one is fixed.
        InexactError: a weight would be another number.
    """
    allowed = {name for group in groups(network) for name in group}
    if any(e and n not in allowed for n, e in exponents.items()):
        raise ValueError("an exponent for a tensor whose unit is fixed")
    if any(len({exponents.get(n, 0) for n in group}) > 1 for group in groups(network)):
        raise ValueError("different exponents within one group of tensors")
    return network.replace({op.output: _scaled(op, exponents) for op in network.ops})


def _scaled(op: Operator, exponents: Mapping[str, int]) -> Operator:
    e = exponents.get(op.output, 0)
    d = e - exponents.get(op.inputs[0], 0)
    if isinstance(op, Substituted):
        base = _scaled(op.base, exponents)
        assert isinstance(base, Activation)
        return replace(op, base=base, offset=_times(op.offset, e)) if e else op
    if isinstance(op, Dense | Conv | ConvTranspose):
        return replace(op, weight=_times(op.weight, d), bias=None if op.bias is None else _times(op.bias, e)) if e or d else op
    if isinstance(op, LeftProduct):
        return replace(op, weight=_times(op.weight, d)) if d else op
    if isinstance(op, Scale):
        scale = _times(np.ones(()) if op.scale is None else op.scale, d)
        shift = None if op.shift is None else _times(op.shift, e)
        # a single 1 is none, so that a network scaled back is the one that it was
        return replace(op, scale=None if scale.ndim == 0 and scale == 1 else scale, shift=shift) if e or d else op
    if not e:
        return op
    if isinstance(op, SubstitutedMax):
        return replace(op, picked=replace(op.picked, shift=_times(op.picked.shift, e)))
    if isinstance(op, Picked):
        return replace(op, shift=_times(op.shift, e))
    if isinstance(op, Clip):
        return replace(op, lo=float(_times(op.lo, e)), hi=float(_times(op.hi, e)))
    if isinstance(op, Sum):
        return replace(op, shift=None if op.shift is None else _times(op.shift, e))
    if isinstance(op, Concat):
        return replace(op, constant=None if op.constant is None else _times(op.constant, e))
    return replace(op, value=float(_times(op.value, e))) if isinstance(op, Pad) else op


def _times(values: Array | float, exponent: int) -> Array:
    with np.errstate(over="ignore", under="ignore"):
        given = np.asarray(values, dtype=np.float64)
        found = np.ldexp(given, exponent)
        back = np.ldexp(found, -exponent)
    # what falls out of the range of float64, or among its subnormal numbers, would make it another function
    if not np.array_equal(back, given, equal_nan=True):
        raise InexactError
    return found
