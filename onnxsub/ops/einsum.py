"""Einsum, as permutations, sums and products of matrices, two tensors at a time.

Of two tensors an axis is either in both and in the result (they are matched along it), in both and not (it is summed over), or in
one only. With the first kind in front and the others merged that is a product of matrices `(*matched, rows, summed)` and
`(*matched, summed, columns)`; by a constant it is affine. An axis that only one of them has and that nothing reads is summed
before, and an axis of length 1 against a longer one is broadcast, hence left out.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.bilinear import MatrixProduct
from onnxsub.ops.compose import Composer
from onnxsub.ops.node import Node

__all__ = ["behind", "in_front", "read_einsum"]

_ROWS = "*"
"""The label of an axis that `behind` puts in front of all tensors; no equation of a file has it."""


def _labels(node: Node) -> tuple[tuple[str, ...], str]:
    """One label per axis of every input, and those of the output; axes of an ellipsis get digits, the last one 0."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(node.inputs):
        raise node.refuse(f"equation {equation!r} is of {len(terms)} tensors, and there are {len(node.inputs)}")
    if not arrow:
        counts = Counter(left.replace(",", "").replace(".", ""))
        if not left.replace(",", "").replace(".", "").islower():
            raise node.refuse(f"equation {equation!r} does not state its result")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c, n in counts.items() if n == 1))
    most, found = 0, []
    for term, name in zip(terms, node.inputs, strict=True):
        hidden = len(node.shapes[name]) - len(term.replace("...", ""))
        if hidden < 0 or (hidden and "..." not in term) or hidden > 10:
            raise node.refuse(f"{term!r} does not name the axes of a tensor of shape {list(node.shapes[name])}")
        most = max(most, hidden)
        found.append(term.replace("...", "9876543210"[10 - hidden :]))
    result = right.replace("...", "9876543210"[10 - most :])
    if any(len(set(term)) != len(term) for term in (*found, result)):
        raise node.refuse(f"equation {equation!r} names an axis twice in one tensor")
    if most and "..." not in right:
        raise node.refuse(f"equation {equation!r} sums over its ellipsis")
    return tuple(found), result


def in_front(node: Node) -> bool:
    """Whether all tensors have the batch axis in front, and only there."""
    terms, result = _labels(node)
    moving = [t for t, n in zip(terms, node.inputs, strict=True) if n not in node.constants]
    first = result[:1]
    if not first or any(t[:1] != first for t in moving):
        return False
    pairs = zip(terms, node.inputs, strict=True)
    return all(first not in t or node.shapes[n][t.index(first)] == 1 for t, n in pairs if n in node.constants)


def behind(node: Node) -> str:
    """The equation for tensors with one more axis in front, constants as they are."""
    terms, result = _labels(node)
    new = [t if n in node.constants else _ROWS + t for t, n in zip(terms, node.inputs, strict=True)]
    return f"{','.join(new)}->{_ROWS}{result}"


@dataclass(frozen=True, eq=False)
class _Part:
    """A tensor and the labels of its axes: a constant, or the name of one that depends on the network's input."""

    labels: str
    value: Array | str


class _Contraction:
    def __init__(self, node: Node, sizes: dict[str, int]) -> None:
        self.steps, self.sizes = Composer(node), sizes

    def shape(self, labels: str) -> Shape:
        return tuple(self.sizes[c] for c in labels)

    def ordered(self, part: _Part, labels: str) -> str | Array:
        """The tensor with its axes in the order of `labels`, which are its own."""
        order = tuple(part.labels.index(c) for c in labels)
        if isinstance(part.value, np.ndarray):
            return part.value.transpose(order)
        return part.value if labels == part.labels else self.steps.permute(part.value, order)

    def without(self, part: _Part, gone: str, *, summed: bool) -> _Part:
        """Axes summed over, or (of length 1) left out."""
        axes = tuple(part.labels.index(c) for c in gone)
        left = "".join(c for c in part.labels if c not in gone)
        if not axes:
            return part
        if isinstance(part.value, np.ndarray):
            return _Part(left, np.asarray(part.value.sum(axes)))
        shape = tuple(n for i, n in enumerate(self.steps.shapes[part.value]) if i not in axes)
        value = self.steps.reduce(part.value, tuple(sorted(axes)), mean=False) if summed else part.value
        return _Part(left, self.steps.reshape(value, shape))

    def fitted(self, part: _Part) -> _Part:
        """Without the axes along which it is broadcast."""
        shape = part.value.shape if isinstance(part.value, np.ndarray) else self.steps.shapes[part.value]
        gone = "".join(c for c, n in zip(part.labels, shape, strict=True) if n != self.sizes[c])
        return self.without(part, gone, summed=False)

    def contracted(self, a: _Part, b: _Part, needed: str) -> _Part:
        """The product of two tensors, summed over the axes that are not needed."""
        a, b = (
            self.without(p, "".join(c for c in p.labels if c not in q.labels and c not in needed), summed=True)
            for p, q in ((a, b), (b, a))
        )
        if isinstance(a.value, np.ndarray):
            a, b = b, a
        both = [c for c in a.labels if c in b.labels]
        matched, summed = ("".join(c for c in both if (c in needed) == kept) for kept in (True, False))
        rows, columns = ("".join(c for c in p.labels if c not in q.labels) for p, q in ((a, b), (b, a)))
        result = matched + rows + columns
        if isinstance(a.value, np.ndarray):
            assert isinstance(b.value, np.ndarray)
            number = {c: i for i, c in enumerate(rows + columns + matched + summed)}
            axes = [[number[c] for c in labels] for labels in (a.labels, b.labels, result)]
            return _Part(result, np.asarray(np.einsum(a.value, axes[0], b.value, axes[1], axes[2])))
        return _Part(result, self.product(a, b, matched, rows, columns, summed))

    def product(self, a: _Part, b: _Part, matched: str, rows: str, columns: str, summed: str) -> str:
        steps, m = self.steps, self.shape(matched)
        r, c, s = (math.prod(self.shape(labels)) for labels in (rows, columns, summed))
        x, y = self.ordered(a, matched + rows + summed), self.ordered(b, matched + summed + columns)
        assert isinstance(x, str)
        if not columns and not summed and isinstance(y, np.ndarray):
            return steps.scale(x, y.reshape((*y.shape, *[1] * len(rows))))
        if not columns and not summed and not rows:
            assert isinstance(y, str)
            return steps.square(x) if x == y else steps.product(x, y)
        whole = self.shape(matched + rows + columns)
        if isinstance(y, np.ndarray):
            # one row of one sample stays a vector, as a Gemm reads it
            flat = (s,) if not matched and not rows else (*m, r, s)
            weight = np.swapaxes(y.reshape(*m, s, c), -1, -2)
            return self.to(steps.dense(self.to(x, flat), weight), whole)
        made = steps.bilinear(MatrixProduct, self.to(x, (*m, r, s)), self.to(y, (*m, s, c)), (*m, r, c))
        return self.to(made, whole)

    def to(self, x: str, shape: Shape) -> str:
        return x if self.steps.shapes[x] == shape else self.steps.reshape(x, shape)


def read_einsum(node: Node) -> tuple[Operator, ...]:
    """Einsum of opset 12, without diagonals."""
    terms, result = _labels(node)
    if not in_front(node):
        raise node.refuse(f"equation {node.attributes['equation']!r} moves the batch axis")
    first, sizes = result[0], dict[str, int]()
    parts = []
    for term, name in zip(terms, node.inputs, strict=True):
        value = node.constants.get(name)
        if value is not None and not np.isfinite(value).all():
            raise node.refuse("a constant operand is not finite")
        shape, labels = list(node.shapes[name]), term
        if first in labels:
            at = labels.index(first)
            shape.pop(at)
            labels = labels.replace(first, "")
            value = None if value is None else value.reshape(shape)
        for c, n in zip(labels, shape, strict=True):
            sizes[c] = max(n, sizes.get(c, 1))
        parts.append(_Part(labels, name if value is None else np.asarray(value, dtype=np.float64)))
    work = _Contraction(node, sizes)
    parts = [work.fitted(p) for p in parts]
    wanted = result[1:]
    while len(parts) > 1:
        needed = "".join(itertools.chain(wanted, *(p.labels for p in parts[2:])))
        parts[:2] = [work.contracted(parts[0], parts[1], needed)]
    (last,) = parts
    last = work.without(last, "".join(c for c in last.labels if c not in wanted), summed=True)
    if set(wanted) - set(last.labels):
        raise node.refuse(f"equation {node.attributes['equation']!r} names an axis in its result alone")
    made = work.ordered(last, wanted)
    assert isinstance(made, str)
    work.steps.reshape(made, node.sample_shape(node.outputs[0]), work.steps.output)
    return work.steps.done()
