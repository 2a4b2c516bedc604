r"""Functions that files spell out in several nodes: Gelu (with erf or tanh), SiLU and Swish, HardSwish, Mish, Softplus.

Each is a product `k u (c F(p(x)) + d)` of one tensor x with a function of it: u and p polynomials of x, F one node. What a product
is made of is read back from its nodes through additions and multiplications by single numbers, in exact rational numbers; where
the numbers are nearly those of a known function (to 2.4e-7, which is what float32 rounds a product of two of them by at the
most), the last node becomes one node of that function *with the file's own numbers*: a Gelu of `1.0000001 x`, times
0.9999999. Nothing is rounded to the function that was meant, since a layer behind it may look at the difference. The nodes
before it stay for whoever else reads them, and are dropped where nobody does. A Softplus that gives way to x beyond a threshold (a
Where, as PyTorch writes it) is one that its bounds take as known but for the jump there (`apart`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from onnxsub.ops.base import Shape
from onnxsub.ops.node import Node
from onnxsub.ops.spelled_dynamic import dynamically_quantised
from onnxsub.ops.spelled_forms import CLOSE, ONE, ZERO, Form, known, plus, product, scaled
from onnxsub.ops.spelled_norm import layer_normalised
from onnxsub.ops.spelled_where import TESTS, pieces

__all__ = ["recognised"]

_WAY = 24  # tensors between a product and the tensor that it is a function of
_TERMS = 5  # of a polynomial: known functions have cubic ones at the most
_LARGE = 700.0  # exp of its negative is a number


def recognised(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes, the last ones of spelled functions replaced by one node each; layers quantised as they run in real numbers."""
    nodes = dynamically_quantised(nodes)
    by_output = {n.outputs[0]: n for n in nodes if n.outputs}
    place = {n.outputs[0]: i for i, n in enumerate(nodes) if n.outputs}
    shapes: dict[str, Shape] = {}
    for node in nodes:
        shapes |= node.shapes
    found = []
    for node in nodes:
        match = _match(node, by_output, place, shapes) if node.op_type in ("Mul", "Div", "Where") else None
        if match is not None:
            kind, attributes, source = match
            own = {t: shapes[t] for t in (source, node.outputs[0])}
            node = replace(node, op_type=kind, attributes=attributes, inputs=(source,), constants={}, shapes=own)
        else:
            node = layer_normalised(node, by_output, shapes) or node
        found.append(node)
    return tuple(found)


def _match(
    node: Node, by_output: Mapping[str, Node], place: Mapping[str, int], shapes: Mapping[str, Shape]
) -> tuple[str, Mapping[str, Any], str] | None:
    """Function, attributes and source of a node that ends a spelled function."""
    output = node.outputs[0]
    for source in _sources(node, by_output, place):
        if output not in shapes or shapes.get(source) != shapes[output]:
            continue  # shapes are unknown behind operators that ONNX does not know
        reader = _Reader(source, by_output)
        if node.op_type != "Div" and (hinge := pieces(node, source, by_output, reader.line)) is not None:
            return *hinge, source
        if node.op_type == "Where":
            named = _switched(node, reader)
        else:
            form = reader.form(output)
            named = None if form is None or form.function is None else known(form)
        if named is not None:
            return *named, source
    return None


def _sources(node: Node, by_output: Mapping[str, Node], place: Mapping[str, int]) -> Iterator[str]:
    """Tensors that a node is a function of alone, nearest first: every way back from it passes them.

    Of the tensors on the way the last one that is computed is replaced by what it is computed from; whenever one alone is left,
    all ways pass it.
    """
    left = set(node.variables)
    for _ in range(_WAY):
        if len(left) == 1:
            yield from left
        if not left:
            return
        last = max(left, key=lambda t: place.get(t, -1))
        producer = by_output.get(last)
        if producer is None or producer.op_type not in (*_PASSED, *TESTS, "Cast"):
            return
        left.remove(last)
        left.update(producer.variables)


_FUNCTIONS = ("Erf", "Sigmoid", "Tanh", "HardSigmoid", "Clip")
_PASSED = (*_FUNCTIONS, "Add", "Sub", "Mul", "Div", "Neg", "Pow", "Identity", "Softplus")


class _Reader:
    """Reads tensors as functions of one source, each once."""

    def __init__(self, source: str, by_output: Mapping[str, Node]) -> None:
        self.source, self.by_output = source, by_output
        self._known: dict[str, Form | None] = {}

    def line(self, node: Node, i: int) -> tuple[Fraction, Fraction] | None:
        """An input of a node as a number or an affine function of the source: offset and slope."""
        if node.inputs[i] in node.constants:
            value = _number(node, i)
            return None if value is None else (value, ZERO)
        form = self.form(node.inputs[i])
        return None if form is None or form.function is not None or len(form.factor) != 2 else (form.factor[0], form.factor[1])

    def form(self, tensor: str) -> Form | None:
        """The tensor as a function of the source; None also where it does not depend on it, or not as its numbers came out."""
        if tensor not in self._known:
            self._known[tensor] = None  # of a circle, which no file has
            form = self._read(tensor)
            if form is not None and ((form.function is None and len(form.factor) < 2) or form.factor[-1] == 0):
                form = None
            if form is not None and max(len(form.factor), len(form.inner)) > _TERMS:
                form = None
            self._known[tensor] = form
        return self._known[tensor]

    def _read(self, tensor: str) -> Form | None:
        if tensor == self.source:
            return Form((ZERO, ONE))
        node = self.by_output.get(tensor)
        if node is None or node.op_type not in _PASSED:
            return None
        parts = [_number(node, i) if t in node.constants else self.form(t) for i, t in enumerate(node.inputs)]
        if node.op_type == "Clip":
            return _clip(node, parts[0])
        if not parts or any(p is None for p in parts):
            return None
        if node.op_type in _FUNCTIONS or node.op_type == "Softplus":
            (inner,) = parts
            return _applied(node, inner) if isinstance(inner, Form) else None
        return _combined(node.op_type, parts)


def _number(node: Node, i: int) -> Fraction | None:
    value = node.constants[node.inputs[i]]
    if value.size != 1 or not np.issubdtype(value.dtype, np.number):
        return None
    number = float(value.reshape(-1)[0])
    return Fraction(number) if math.isfinite(number) else None


def _applied(node: Node, inner: Form) -> Form | None:
    if node.op_type == "Tanh" and inner.function == "Softplus" and (inner.factor, inner.scale, inner.shift) == ((ONE,), ONE, ZERO):
        return Form((ONE,), "TanhSoftplus", inner.inner)
    if inner.function is not None:
        return None
    if node.op_type == "HardSigmoid":
        # min(max(alpha z + beta, 0), 1) is a Clip
        line = scaled(inner.factor, Fraction(float(node.attributes.get("alpha", 0.2))))
        return Form((ONE,), "Clip", plus(line, (Fraction(float(node.attributes.get("beta", 0.5))),)))
    return Form((ONE,), node.op_type, inner.factor)


def _clip(node: Node, inner: Fraction | Form | None) -> Form | None:
    """A Clip from 0 to some h, as h times one from 0 to 1."""
    ends = []
    for i, name in ((1, "min"), (2, "max")):
        value = node.constant(i)
        if value is None and (node.has(i) or name not in node.attributes):
            return None
        ends.append(float(node.attributes[name]) if value is None else float(np.asarray(value).reshape(-1)[0]))
    low, high = ends
    if low != 0 or not 0 < high < math.inf or not isinstance(inner, Form) or inner.function is not None:
        return None
    top = Fraction(high)
    return Form((ONE,), "Clip", scaled(inner.factor, 1 / top), top)


def _combined(kind: str, parts: list[Any]) -> Form | None:
    if kind == "Identity":
        return parts[0] if isinstance(parts[0], Form) else None
    if kind == "Neg":
        return _times(parts[0], -ONE)
    first, second = parts
    if kind == "Pow":
        if not isinstance(first, Form) or first.function is not None or second not in (2, 3):
            return None
        square = product(first.factor, first.factor)
        return Form(square if second == 2 else product(square, first.factor))
    if kind == "Div":
        return None if not isinstance(second, Fraction) or second == 0 else _times(first, 1 / second)
    if kind == "Mul":
        return _times(first, second)
    if kind == "Sub":
        second = -second if isinstance(second, Fraction) else _times(second, -ONE)
    return _sum(first, second)


def _times(a: Fraction | Form, b: Fraction | Form | None) -> Form | None:
    if isinstance(a, Fraction):
        a, b = b, a  # type: ignore[assignment]
    if not isinstance(a, Form) or b is None:
        return None
    if isinstance(b, Fraction):
        if a.function is None or a.factor != (ONE,):
            return replace(a, factor=scaled(a.factor, b))
        return replace(a, scale=a.scale * b, shift=a.shift * b)
    if a.function is None:
        a, b = b, a
    if b.function is not None:
        return None
    return replace(a, factor=product(a.factor, b.factor))


def _sum(a: Fraction | Form, b: Fraction | Form | None) -> Form | None:
    if isinstance(a, Fraction):
        a, b = b, a  # type: ignore[assignment]
    if not isinstance(a, Form) or b is None:
        return None
    if isinstance(b, Fraction):
        if a.function is None:
            return Form(plus(a.factor, (b,)))
        return replace(a, shift=a.shift + b) if a.factor == (ONE,) else None
    if a.function is None and b.function is None:
        return Form(plus(a.factor, b.factor))
    # x F(x) + x = x (F(x) + 1)
    plain, other = (a, b) if a.function is None else (b, a)
    if plain.function is None and len(plain.factor) == len(other.factor) and plain.factor[-1] != 0:
        share = plain.factor[-1] / other.factor[-1]
        if plain.factor == scaled(other.factor, share):
            return replace(other, shift=other.shift + share)
    return None


def _switched(node: Node, reader: _Reader) -> tuple[str, Mapping[str, Any]] | None:
    """`x` where `beta x` is greater than a threshold, `Softplus(beta x) / beta` elsewhere: they are no farther apart than there."""
    test = reader.by_output.get(node.inputs[0])
    if test is None or test.op_type not in ("Greater", "GreaterOrEqual") or test.inputs[1] not in test.constants:
        return None
    before, source = reader.by_output.get(test.inputs[0]), reader.source
    if test.inputs[0] != source and (before is None or before.op_type not in ("Mul", "Div") or before.variables != (source,)):
        return None  # what float32 rounds in sums before the test may decide far from the threshold
    threshold, (asked, line, curve) = _number(test, 1), [reader.form(t) for t in (test.inputs[0], *node.inputs[1:])]
    if asked is None or line is None or curve is None or threshold is None or not 0 < threshold < _LARGE:
        return None
    named = None if curve.function != "Softplus" or curve.inner != asked.factor else known(curve)
    plain = asked.function is None and line.function is None and line.factor == (ZERO, ONE)
    if not plain or named is None or "times" in named[1]:
        return None
    apart = math.log1p(math.exp(-float(threshold)))
    if apart > CLOSE * threshold:
        return None
    return named[0], {**named[1], "apart": apart / named[1]["beta"]}
