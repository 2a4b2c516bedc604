"""Products, quotients and powers of tensors that depend on the input, roots, exponentials and logarithms.

The functions among them are arithmetic, not activations: their elements are no units of the model.
"""

from __future__ import annotations

import numpy as np

from onnxsub.ops import dense, elementwise
from onnxsub.ops.base import Activation, Operator
from onnxsub.ops.bilinear import MatrixProduct
from onnxsub.ops.broadcast import of_sample, only_variable, required
from onnxsub.ops.compose import Composer
from onnxsub.ops.convex import Exp
from onnxsub.ops.node import Node
from onnxsub.ops.partial import Log, Power, Reciprocal

__all__ = ["read_div", "read_exp", "read_log", "read_matmul", "read_mul", "read_pow", "read_reciprocal", "read_sqrt"]


def _same_rank(node: Node) -> None:
    if len({len(node.shapes[n]) for n in node.inputs}) != 1:
        raise node.refuse("its tensors have different numbers of axes: the batch axis of one meets another axis of the other")


def read_mul(node: Node) -> tuple[Operator, ...]:
    """A tensor times a constant or another tensor; a tensor times itself is its square."""
    if len(node.variables) == 1:
        return elementwise.read_mul(node)
    steps, (x, y) = Composer(node), node.inputs
    if x == y:
        steps.square(x, steps.output)
        return steps.done()
    _same_rank(node)
    steps.product(x, y, steps.output)
    return steps.done()


def read_div(node: Node) -> tuple[Operator, ...]:
    """`x / y`: x times the reciprocal of y where y depends on the input, which then must stay away from 0."""
    if node.variables == (node.inputs[0],):
        return elementwise.read_div(node)
    steps, (x, y) = Composer(node), node.inputs
    if x in node.constants:
        value = of_sample(node, required(node, 0, "the dividend"), len(node.shapes[y]))
        steps.scale(steps.apply(Reciprocal, y), scale=value, into=steps.output)
        return steps.done()
    _same_rank(node)
    steps.product(x, steps.apply(Reciprocal, y), steps.output)
    return steps.done()


def read_matmul(node: Node) -> tuple[Operator, ...]:
    """`A B`, of which one may be a constant."""
    if len(node.variables) == 1:
        return dense.read_matmul(node)
    _same_rank(node)
    x, y = node.inputs
    if len(node.shapes[x]) < 3:
        raise node.refuse("it sums over the batch axis")
    steps = Composer(node)
    steps.bilinear(MatrixProduct, x, y, node.sample_shape(node.outputs[0]), steps.output)
    return steps.done()


def read_pow(node: Node) -> tuple[Operator, ...]:
    """`x^p`, p a constant for every element; `c^x`, c positive; or `x^y = exp(y log x)`, which is known for positive x."""
    steps, (x, y) = Composer(node), node.inputs
    if len(node.variables) == 2:
        _same_rank(node)
        steps.apply(Exp, steps.product(y, steps.apply(Log, x)), steps.output)
        return steps.done()
    shape = node.sample_shape(node.outputs[0])
    if y not in node.constants:
        base = of_sample(node, required(node, 0, "the base"), len(node.shapes[y]))
        if not (base > 0).all():
            raise node.refuse("its base is not positive")
        steps.apply(Exp, steps.scale(y, np.log(base)), steps.output)
        return steps.done()
    exponents = of_sample(node, required(node, 1, "the exponent"), len(node.shapes[x]))
    known = np.unique(exponents)
    if len(known) == 1 and steps.shapes[x] == shape:
        _power(steps, x, float(known[0]), steps.output)
        return steps.done()
    if steps.shapes[x] != shape:
        x = steps.scale(x, shift=np.zeros(shape))
    flat = np.broadcast_to(exponents, shape).reshape(-1)
    places = [np.flatnonzero(flat == p) for p in known]
    parts = tuple(_power(steps, steps.picked(x, at), float(p)) for p, at in zip(known, places, strict=True))
    steps.reshape(steps.picked(steps.together(parts), np.argsort(np.concatenate(places), kind="stable")), shape, steps.output)
    return steps.done()


def _power(steps: Composer, x: str, p: float, into: str | None = None) -> str:
    """`x^p`, elementwise; 1 where p is 0."""
    if p == 0:
        return steps.scale(x, 0.0, 1.0, into)
    if p == 1:
        return steps.reshape(x, steps.shapes[x], into)
    if p < 0:
        base = x if p == -1 else _power(steps, x, -p)
        return steps.apply(Reciprocal, base, into)
    return steps.square(x, into) if p == 2 else steps.apply(Power, x, into, exponent=p)


def _one(node: Node, kind: type[Activation], **fields: float) -> tuple[Operator, ...]:
    steps = Composer(node)
    steps.apply(kind, only_variable(node), steps.output, **fields)
    return steps.done()


def read_exp(node: Node) -> tuple[Operator, ...]:
    """Exp."""
    return _one(node, Exp)


def read_log(node: Node) -> tuple[Operator, ...]:
    """Log, of numbers above 0."""
    return _one(node, Log)


def read_sqrt(node: Node) -> tuple[Operator, ...]:
    """Sqrt, of numbers that are not negative."""
    return _one(node, Power, exponent=0.5)


def read_reciprocal(node: Node) -> tuple[Operator, ...]:
    """Reciprocal, of numbers away from 0."""
    return _one(node, Reciprocal)
