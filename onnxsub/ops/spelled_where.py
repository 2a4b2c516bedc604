"""Functions of two straight pieces that files spell with a comparison: Relu, LeakyRelu, Abs, Clip, ThresholdedRelu.

    Where(x > t, p(x), q(x))    or    x * Cast(x > t)

with one number t, p and q affine, in exact rational numbers: pieces that nearly meet are a jump.
The test reads x itself, or `x + s > r` with `|r| <= |t|`: float32 rounds such a sum by
`|r|` 2^-24 at the most where it decides, which is no more than it rounds t by. Where the pieces meet at t it then does not matter
which of them has t itself, nor which side float32 takes. `x + 1e6 > 1e6` decides 0.03 beside 0: that, and what is none of these,
stays a Where, which is read as it is (`either.py`), with room for what float32 rounds before the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from onnxsub.ops.node import Node

__all__ = ["TESTS", "pieces"]

TESTS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")

Line = tuple[Fraction, Fraction]
"""Offset and slope."""

_LARGE = 1e30  # numbers beyond, or of which 0 is nearer than its inverse, are left alone
_X: Line = (Fraction(0), Fraction(1))
_NOTHING: Line = (Fraction(0), Fraction(0))


def pieces(
    node: Node, source: str, by_output: Mapping[str, Node], line: Callable[[Node, int], Line | None]
) -> tuple[str, Mapping[str, Any]] | None:
    """Function and attributes of a Where or a Mul that is one of these functions of the tensor `source`.

    Args:
        line: input i of a node as an affine function of the source, also a number; None where it is neither.
    """
    if node.op_type == "Where":
        test, branches = by_output.get(node.inputs[0]), (line(node, 1), line(node, 2))
    else:
        test, branches = _gate(node, source, by_output), (_X, _NOTHING)
    if test is None or test.op_type not in TESTS:
        return None
    asked, limit = line(test, 0), line(test, 1)
    first, second = branches
    if asked is None or limit is None or first is None or second is None:
        return None
    # asked - limit > 0: of x itself, or of a number less x
    k, c = asked[1] - limit[1], limit[0] - asked[0]
    if k not in (1, -1):
        return None
    asks = _asks(test, source, by_output)
    if asks not in ("x", "sum") or (asks == "sum" and abs(asked[0] if asked[1] == 0 else limit[0]) > abs(c)):
        return None
    above, strict = (test.op_type in ("Greater", "GreaterOrEqual")) == (k > 0), test.op_type in ("Greater", "Less")
    over, under = (first, second) if above else (second, first)
    # where the pieces do not meet, what float32 rounds before the test decides: then x itself has to be tested
    return _known(k * c, over, under, jumps=asks == "x" and above == strict)


def _gate(node: Node, source: str, by_output: Mapping[str, Node]) -> Node | None:
    """The test whose truth, cast to a number, the source is multiplied by."""
    if source not in node.inputs or len(node.inputs) != 2:
        return None
    cast = by_output.get(node.inputs[1 - node.inputs.index(source)])
    return by_output.get(cast.inputs[0]) if cast is not None and cast.op_type == "Cast" else None


def _asks(test: Node, source: str, by_output: Mapping[str, Node]) -> str | None:
    """What a test compares with a number: "x" where it is x or -x as they are, "sum" of x and a number, None if anything else."""
    found, tensors = "x", test.variables
    while tensors != (source,):
        node = by_output.get(tensors[0]) if len(tensors) == 1 else None
        if node is None or node.op_type not in ("Identity", "Neg", "Add", "Sub"):
            return None
        if node.op_type in ("Add", "Sub"):
            if found == "sum":
                return None  # each of two sums rounds by its own size, which may be larger
            found = "sum"
        tensors = node.variables
    return found


def _known(t: Fraction, over: Line, under: Line, *, jumps: bool) -> tuple[str, Mapping[str, Any]] | None:
    """The function that is `over` above t and `under` below it.

    Args:
        jumps: x itself is tested, and `under` has t: only then may the pieces be apart.
    """
    if over[0] + over[1] * t != under[0] + under[1] * t:
        return ("ThresholdedRelu", {"alpha": float(t)}) if jumps and (over, under) == (_X, _NOTHING) else None
    if t == 0 and over == _X:
        slope = under[1]
        if slope in (0, -1):
            return ("Abs" if slope else "Relu"), {}
        return ("LeakyRelu", {"alpha": float(slope)}) if 1 / _LARGE < abs(slope) < _LARGE else None
    for pair, name in (((over, under), "min"), ((under, over), "max")):
        if pair == (_X, (t, Fraction(0))) and abs(t) < _LARGE:
            # both, so that no version of Clip takes the other end from somewhere else
            return "Clip", {"min": -math.inf, "max": math.inf} | {name: float(t)}
    return None
