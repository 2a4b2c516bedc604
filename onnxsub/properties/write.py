"""Writing a property as VNN-LIB text that reads back exactly.

Numbers are plain decimals without an exponent, since the reference reader of VNN-LIB 2.0 knows no other. The decimal of a lower
bound is never above the float64 it stands for, that of an upper bound never below, and both read back as that
float64. Rounding to nearest is monotone, so a reader that works in exact, float64 or float32 arithmetic gets a box that
contains every float32 point of the original one.
"""

from __future__ import annotations

import decimal
from decimal import Decimal

import numpy as np

from onnxsub.errors import InputError
from onnxsub.ops.base import Array
from onnxsub.properties.property import Case, Clause, Property
from onnxsub.properties.vnnlib2 import element

__all__ = ["DOWN", "UP", "number", "write_property"]

DOWN, UP = decimal.ROUND_FLOOR, decimal.ROUND_CEILING


def number(value: float, rounding: str | None = None) -> str:
    """The shortest decimal that reads back as the float64 `value`, without exponent; `ROUND_FLOOR`: and is not above it,
    `ROUND_CEILING`: and is not below it. Raises ValueError for another rounding."""
    if rounding not in (None, DOWN, UP):
        raise ValueError(f"unknown rounding {rounding!r}; choose {DOWN} or {UP}")
    value = float(value) + 0.0
    exact, best = Decimal(value), Decimal(repr(value))
    if (rounding == DOWN and best > exact) or (rounding == UP and best < exact):
        for digits in range(17, 800):
            best = decimal.Context(prec=digits, rounding=rounding).plus(exact)
            if float(best) == value:
                break
    text = f"{best:f}"
    return text if "." in text else f"{text}.0"


def write_property(found: Property, version: str = "1.0", *, comment: str = "") -> str:
    """The text of a property.

    Args:
        version: `1.0` or `2.0`.
        comment: lines for the head of the file.

    Raises:
        InputError: unknown version, or a number that is not finite.
    """
    if version not in ("1.0", "2.0"):
        raise InputError(f"VNN-LIB version {version!r} is unknown; choose 1.0 or 2.0")
    _check_finite(found)
    names = _Names(found, version)
    lines = [f"; {line}".rstrip() for line in comment.splitlines()]
    lines += names.declarations()
    if len(found.cases) == 1:
        case = found.cases[0]
        lines += [f"(assert {atom})" for atom in _box(case, names)]
        clauses = [_rows(clause, names) for clause in case.clauses]
        if len(clauses) == 1:
            lines += [f"(assert {row})" for row in clauses[0]]
        else:
            lines += ["(assert (or", *(f"    (and {' '.join(rows)})" for rows in clauses), "))"]
    else:
        lines.append("(assert (or")
        for case in found.cases:
            box = " ".join(_box(case, names))
            lines += [f"    (and {box} {' '.join(_rows(clause, names))})" for clause in case.clauses]
        lines.append("))")
    return "\n".join(lines) + "\n"


class _Names:
    """How a version declares and names inputs and outputs."""

    def __init__(self, found: Property, version: str) -> None:
        self._found = found
        self._version = version
        if version == "1.0":
            self.x = [f"X_{i}" for i in range(found.inputs)]
            self.y = [f"Y_{j}" for j in range(found.outputs)]
        else:
            self.x = [element(found.input_name, found.input_shape, i) for i in range(found.inputs)]
            self.y = [element(found.output_name, found.output_shape, j) for j in range(found.outputs)]

    def declarations(self) -> list[str]:
        if self._version == "1.0":
            return [f"(declare-const {name} Real)" for name in (*self.x, *self.y)]
        f = self._found
        shapes = [", ".join(str(n) for n in shape) for shape in (f.input_shape, f.output_shape)]
        return [
            "(vnnlib-version <2.0>)",
            "(declare-network N",
            # bounds are real numbers; a float type would say that they were rounded
            f"    (declare-input {f.input_name} real [{shapes[0]}])",
            f"    (declare-output {f.output_name} real [{shapes[1]}])",
            ")",
        ]


def _box(case: Case, names: _Names) -> list[str]:
    atoms = []
    for name, lower, upper in zip(names.x, case.lower.tolist(), case.upper.tolist(), strict=True):
        atoms += [f"(<= {name} {number(upper, UP)})", f"(>= {name} {number(lower, DOWN)})"]
    return atoms


def _rows(clause: Clause, names: _Names) -> list[str]:
    return [_row(a, float(b), bool(s), names) for a, b, s in zip(clause.A, clause.b, clause.strict, strict=True)]


def _row(a: Array, b: float, strict: bool, names: _Names) -> str:
    """`a y <= b`, in its shortest form."""
    used = np.flatnonzero(a)
    less, more = ("<", ">") if strict else ("<=", ">=")
    coefficients = a[used].tolist()
    if b == 0 and sorted(coefficients) == [-1.0, 1.0]:
        big, small = used[int(coefficients[0] > 0)], used[int(coefficients[0] < 0)]
        return f"({less} {names.y[small]} {names.y[big]})"
    if coefficients == [1.0]:
        return f"({less} {names.y[used[0]]} {number(b, UP)})"
    if coefficients == [-1.0]:
        return f"({more} {names.y[used[0]]} {number(-b, DOWN)})"
    terms = [names.y[j] if c == 1 else f"(* {number(c)} {names.y[j]})" for j, c in zip(used, coefficients, strict=True)]
    left = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
    return f"({less} {left} {number(b, UP)})"


def _check_finite(found: Property) -> None:
    for case in found.cases:
        arrays = [case.lower, case.upper, *(m for c in case.clauses for m in (c.A, c.b))]
        if not all(np.isfinite(a).all() for a in arrays):
            raise InputError(f"{found.where}: it holds numbers that are not finite, which VNN-LIB cannot say")
        if any((c.A == 0).all(axis=1).any() for c in case.clauses):
            raise InputError(f"{found.where}: a row of a clause has no coefficient, which VNN-LIB cannot say")
