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
    if x == y:
        raise node.refuse("it divides a tensor by itself")
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
    if x == y:
        raise node.refuse("it multiplies a matrix by itself")
    steps = Composer(node)
    steps.bilinear(MatrixProduct, x, y, node.sample_shape(node.outputs[0]), steps.output)
    return steps.done()


def read_pow(node: Node) -> tuple[Operator, ...]:
    """`x^p` with one constant number p."""
    source = only_variable(node)
    exponents = np.unique(required(node, 1, "the exponent").astype(np.float64))
    if exponents.size != 1 or not np.isfinite(exponents).all():
        raise node.refuse("its exponent is not one finite number")
    p, steps = float(exponents[0]), Composer(node)
    if node.shapes[source] != node.shapes[node.outputs[0]]:
        raise node.refuse("its exponent widens the tensor")
    if p == 0:
        raise node.refuse("its exponent is 0; write the constant 1")
    base = source
    if abs(p) != 1:
        into = steps.output if p > 0 else None
        base = steps.square(source, into) if abs(p) == 2 else steps.apply(Power, source, into, exponent=abs(p))
    elif p == 1:
        steps.reshape(source, node.sample_shape(source), steps.output)
    if p < 0:
        steps.apply(Reciprocal, base, steps.output)
    return steps.done()


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
