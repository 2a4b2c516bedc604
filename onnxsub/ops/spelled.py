r"""Functions that files spell out in several nodes: Gelu (with erf or tanh), SiLU and Swish, HardSwish, Mish, Softplus.

Each is a product `k u (c F(p(x)) + d)` of one tensor x with a function of it: u and p polynomials of x, F one node. What a product
is made of is read back from its nodes through additions and multiplications by single numbers; where the numbers are those of a
known function, to 2.4e-7, which is what float32 rounds a product of two of them by at the most, the last node becomes one node
of that function. The nodes before it stay for whoever else reads them, and are dropped where nobody does. A Softplus that gives
way to x beyond a threshold (a Where, as PyTorch writes it) is one where both agree to the same 2.4e-7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxsub.ops.base import Shape
from onnxsub.ops.node import Node
from onnxsub.ops.spelled_norm import layer_normalised
from onnxsub.ops.spelled_where import TESTS, pieces

__all__ = ["recognised"]

Polynomial = tuple[float, ...]
"""Coefficients, the constant first; without zeros at the end."""

_CLOSE = 2.0**-22  # two numbers of float32, each rounded, multiplied
_DEPTH = 12  # nodes between a product and the tensor that it is a function of
_CUBIC = 0.044715
_LARGE = 700.0  # exp of its negative is a number


@dataclass(frozen=True)
class _Form:
    """`factor(x) (scale F(inner(x)) + shift)`; F is None for `factor(x)` alone."""

    factor: Polynomial
    function: str | None = None
    inner: Polynomial = ()
    scale: float = 1.0
    shift: float = 0.0


def recognised(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes, the last ones of spelled functions replaced by one node each."""
    by_output = {n.outputs[0]: n for n in nodes if n.outputs}
    shapes: dict[str, Shape] = {}
    for node in nodes:
        shapes |= node.shapes
    found = []
    for node in nodes:
        match = _match(node, by_output, shapes) if node.op_type in ("Mul", "Div", "Where") else None
        if match is not None:
            kind, attributes, source = match
            own = {t: shapes[t] for t in (source, node.outputs[0])}
            node = replace(node, op_type=kind, attributes=attributes, inputs=(source,), constants={}, shapes=own)
        else:
            node = layer_normalised(node, by_output, shapes) or node
        found.append(node)
    return tuple(found)


def _match(node: Node, by_output: Mapping[str, Node], shapes: Mapping[str, Shape]) -> tuple[str, Mapping[str, Any], str] | None:
    """Function, attributes and source of a node that ends a spelled function."""
    output = node.outputs[0]
    for source in _sources(node, by_output):
        if output not in shapes or shapes.get(source) != shapes[output]:
            continue  # shapes are unknown behind operators that ONNX does not know
        if node.op_type != "Div" and (hinge := pieces(node, source, by_output, _liner(source, by_output))) is not None:
            return *hinge, source
        form = _form(output, source, by_output, _DEPTH) if node.op_type != "Where" else _switched(node, source, by_output)
        if form is not None and form.function is not None and (known := _known(form)) is not None:
            return *known, source
    return None


def _sources(node: Node, by_output: Mapping[str, Node]) -> Iterator[str]:
    """Tensors that both factors of the product may be functions of: those on the way to it, nearest first."""
    layer, seen = list(node.variables), set[str]()
    for _ in range(_DEPTH):
        following: list[str] = []
        for tensor in layer:
            if tensor in seen:
                continue
            seen.add(tensor)
            yield tensor
            producer = by_output.get(tensor)
            if producer is not None and producer.op_type in (*_PASSED, *TESTS, "Cast"):
                following += producer.variables
        layer = following


def _liner(source: str, by_output: Mapping[str, Node]) -> Callable[[Node, int], tuple[float, float] | None]:
    """Reads an input of a node as a number or an affine function of the source: offset and slope."""

    def line(node: Node, i: int) -> tuple[float, float] | None:
        if node.inputs[i] in node.constants:
            value = _number(node, i)
            return None if value is None else (value, 0.0)
        form = _form(node.inputs[i], source, by_output, _DEPTH)
        return None if form is None or form.function is not None or len(form.factor) != 2 else (form.factor[0], form.factor[1])

    return line


_FUNCTIONS = ("Erf", "Sigmoid", "Tanh", "HardSigmoid", "Clip")
_PASSED = (*_FUNCTIONS, "Add", "Sub", "Mul", "Div", "Neg", "Pow", "Identity", "Softplus")


def _form(tensor: str, source: str, by_output: Mapping[str, Node], depth: int) -> _Form | None:
    """The tensor as a function of the source; None also where it does not depend on it, or only as a number that came out so."""
    form = _read(tensor, source, by_output, depth)
    return None if form is None or (form.function is None and len(form.factor) < 2) or form.factor[-1] == 0 else form


def _read(tensor: str, source: str, by_output: Mapping[str, Node], depth: int) -> _Form | None:
    if tensor == source:
        return _Form((0.0, 1.0))
    node = by_output.get(tensor)
    if node is None or depth == 0 or node.op_type not in _PASSED:
        return None
    parts = [_number(node, i) if t in node.constants else _form(t, source, by_output, depth - 1) for i, t in enumerate(node.inputs)]
    if node.op_type == "Clip":
        return _clip(node, parts[0])
    if not parts or any(p is None for p in parts):
        return None
    if node.op_type in _FUNCTIONS or node.op_type == "Softplus":
        (inner,) = parts
        return _applied(node, inner) if isinstance(inner, _Form) else None
    return _combined(node.op_type, parts)


def _number(node: Node, i: int) -> float | None:
    value = node.constants[node.inputs[i]]
    return float(value.reshape(-1)[0]) if value.size == 1 and np.issubdtype(value.dtype, np.number) else None


def _applied(node: Node, inner: _Form) -> _Form | None:
    if node.op_type == "Tanh" and inner.function == "Softplus" and (inner.factor, inner.scale, inner.shift) == ((1.0,), 1.0, 0.0):
        return _Form((1.0,), "TanhSoftplus", inner.inner)
    if inner.function is not None:
        return None
    if node.op_type == "HardSigmoid":
        # min(max(alpha z + beta, 0), 1) is a Clip
        line = _scaled(inner.factor, float(node.attributes.get("alpha", 0.2)))
        return _Form((1.0,), "Clip", _plus(line, (float(node.attributes.get("beta", 0.5)),)))
    return _Form((1.0,), node.op_type, inner.factor)


def _clip(node: Node, inner: float | _Form | None) -> _Form | None:
    """A Clip from 0 to some h, as h times one from 0 to 1."""
    ends = []
    for i, name in ((1, "min"), (2, "max")):
        value = node.constant(i)
        if value is None and (node.has(i) or name not in node.attributes):
            return None
        ends.append(float(node.attributes[name]) if value is None else float(np.asarray(value).reshape(-1)[0]))
    low, high = ends
    if low != 0 or not 0 < high < math.inf or not isinstance(inner, _Form) or inner.function is not None:
        return None
    return _Form((1.0,), "Clip", _scaled(inner.factor, 1 / high), high)


def _combined(kind: str, parts: list[Any]) -> _Form | None:
    if kind == "Identity":
        return parts[0] if isinstance(parts[0], _Form) else None
    if kind == "Neg":
        return _times(parts[0], -1.0)
    first, second = parts
    if kind == "Pow":
        if not isinstance(first, _Form) or first.function is not None or second not in (2.0, 3.0):
            return None
        square = _product(first.factor, first.factor)
        return _Form(square if second == 2.0 else _product(square, first.factor))
    if kind == "Div":
        return None if not isinstance(second, float) or second == 0 else _times(first, 1 / second)
    if kind == "Mul":
        return _times(first, second)
    if kind == "Sub":
        second = -second if isinstance(second, float) else _times(second, -1.0)
    return _sum(first, second)


def _times(a: float | _Form, b: float | _Form | None) -> _Form | None:
    if isinstance(a, float):
        a, b = b, a  # type: ignore[assignment]
    if not isinstance(a, _Form) or b is None:
        return None
    if isinstance(b, float):
        if a.function is None or a.factor != (1.0,):
            return replace(a, factor=_scaled(a.factor, b))
        return replace(a, scale=a.scale * b, shift=a.shift * b)
    if a.function is None:
        a, b = b, a
    if b.function is not None:
        return None
    return replace(a, factor=_product(a.factor, b.factor))


def _sum(a: float | _Form, b: float | _Form | None) -> _Form | None:
    if isinstance(a, float):
        a, b = b, a  # type: ignore[assignment]
    if not isinstance(a, _Form) or b is None:
        return None
    if isinstance(b, float):
        if a.function is None:
            return _Form(_plus(a.factor, (b,)))
        return replace(a, shift=a.shift + b) if a.factor == (1.0,) else None
    if a.function is None and b.function is None:
        return _Form(_plus(a.factor, b.factor))
    # x F(x) + x = x (F(x) + 1)
    plain, other = (a, b) if a.function is None else (b, a)
    if plain.function is None and len(plain.factor) == len(other.factor) and plain.factor[-1] != 0:
        share = plain.factor[-1] / other.factor[-1]
        if _near(plain.factor, _scaled(other.factor, share)):
            return replace(other, shift=other.shift + share)
    return None


def _switched(node: Node, source: str, by_output: Mapping[str, Node]) -> _Form | None:
    """`x` where `beta x` is greater than a threshold, `Softplus(beta x) / beta` elsewhere: both are alike beyond the threshold."""
    test = by_output.get(node.inputs[0])
    if test is None or test.op_type not in ("Greater", "GreaterOrEqual") or test.inputs[1] not in test.constants:
        return None
    scaled = by_output.get(test.inputs[0])
    if test.inputs[0] != source and (scaled is None or scaled.op_type not in ("Mul", "Div") or scaled.variables != (source,)):
        return None  # what float32 rounds in sums before the test may decide far from the threshold
    forms = [_form(t, source, by_output, _DEPTH) for t in (test.inputs[0], *node.inputs[1:])]
    threshold, (asked, line, curve) = _number(test, 1), forms
    if asked is None or line is None or curve is None or threshold is None:
        return None
    plain = asked.function is None and line.function is None and line.factor == (0.0, 1.0)
    if not plain or curve.function != "Softplus" or curve.inner != asked.factor or not threshold > 0:
        return None
    # the difference is largest at the threshold
    return curve if math.log1p(math.exp(-min(threshold, _LARGE))) <= _CLOSE * threshold else None


def _trimmed(p: Sequence[float]) -> Polynomial:
    size = len(p)
    while size > 1 and p[size - 1] == 0:
        size -= 1
    return tuple(float(c) for c in p[:size])


def _scaled(p: Polynomial, k: float) -> Polynomial:
    return _trimmed([c * k for c in p])


def _plus(p: Polynomial, q: Polynomial) -> Polynomial:
    return _trimmed([sum(r[i] for r in (p, q) if i < len(r)) for i in range(max(len(p), len(q)))])


def _product(p: Polynomial, q: Polynomial) -> Polynomial:
    return _trimmed(np.convolve(p, q).tolist())


def _near(p: Polynomial, q: Polynomial) -> bool:
    size = max(map(abs, (*p, *q)), default=0.0)
    return len(p) == len(q) and all(abs(a - b) <= _CLOSE * max(abs(a), abs(b)) + 1e-9 * size for a, b in zip(p, q, strict=True))


def _known(form: _Form) -> tuple[str, Mapping[str, Any]] | None:
    """The function that a product of x is, and its attributes."""
    inner = form.inner
    if form.function == "Softplus" and form.factor == (1.0,):
        same = len(inner) == 2 and inner[0] == 0 and inner[1] > 0 and form.shift == 0 and _near((form.scale,), (1 / inner[1],))
        return ("Softplus", {"beta": inner[1]}) if same else None
    if len(form.factor) != 2 or form.factor[0] != 0:
        return None
    k = form.factor[1]
    scale, shift = k * form.scale, k * form.shift
    outer = math.sqrt(2 / math.pi)
    tanh = (0.0, outer, 0.0, outer * _CUBIC)
    half = _near((scale, shift), (0.5, 0.5))
    one = _near((scale, 1.0), (1.0, 1.0)) and abs(shift) <= 1e-9
    if form.function == "Erf" and half and _near(inner, (0.0, math.sqrt(0.5))):
        return "Gelu", {"approximate": "none"}
    if form.function == "Tanh" and half and _near(inner, tanh):
        return "Gelu", {"approximate": "tanh"}
    if form.function == "Tanh" and half and len(inner) == 2 and inner[0] == 0 and inner[1] > 0:
        return "Swish", {"alpha": 2 * inner[1]}  # (1 + tanh(z)) / 2 is the logistic function of 2 z
    if form.function == "Sigmoid" and one and _near(inner, _scaled(tanh, 2.0)):
        return "Gelu", {"approximate": "tanh"}
    if form.function == "Sigmoid" and one and len(inner) == 2 and inner[0] == 0 and inner[1] > 0:
        return "Swish", {"alpha": inner[1]}
    if form.function == "Clip" and one and _near(inner, (0.5, 1 / 6)):
        return "HardSwish", {}
    if form.function == "TanhSoftplus" and one and inner == (0.0, 1.0):
        return "Mish", {}
    return None
