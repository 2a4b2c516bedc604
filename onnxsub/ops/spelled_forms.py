"""What a tensor is as a function of another one, in exact rational numbers, and the functions that are known by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

__all__ = ["CLOSE", "ONE", "ZERO", "Form", "known", "plus", "product", "scaled"]

Polynomial = tuple[Fraction, ...]
"""Coefficients, the constant first; without zeros at the end."""

CLOSE = 2.0**-22  # two numbers of float32, each rounded, multiplied
ZERO, ONE = Fraction(0), Fraction(1)
_CUBIC = 0.044715


@dataclass(frozen=True)
class Form:
    """`factor(x) (scale F(inner(x)) + shift)`; F is None for `factor(x)` alone."""

    factor: Polynomial
    function: str | None = None
    inner: Polynomial = ()
    scale: Fraction = ONE
    shift: Fraction = ZERO


def trimmed(p: Sequence[Fraction]) -> Polynomial:
    size = len(p)
    while size > 1 and p[size - 1] == 0:
        size -= 1
    return tuple(p[:size])


def scaled(p: Polynomial, k: Fraction) -> Polynomial:
    """`k p`."""
    return trimmed([c * k for c in p])


def plus(p: Polynomial, q: Polynomial) -> Polynomial:
    """`p + q`."""
    return trimmed([sum((r[i] for r in (p, q) if i < len(r)), ZERO) for i in range(max(len(p), len(q)))])


def product(p: Polynomial, q: Polynomial) -> Polynomial:
    """`p q`."""
    found = [ZERO] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            found[i + j] += a * b
    return trimmed(found)


def _near(p: Sequence[Fraction], q: Sequence[float]) -> bool:
    """Whether each coefficient is that of q, to what float32 rounds; where q has 0, exactly."""
    return len(p) == len(q) and all(abs(a - Fraction(b)) <= Fraction(CLOSE) * abs(Fraction(b)) for a, b in zip(p, q, strict=True))


def known(form: Form) -> tuple[str, Mapping[str, Any]] | None:
    """The function that a product of x is, and its attributes; `times` is what it is multiplied by, where that is not 1."""
    inner = form.inner
    rate = float(inner[1]) if len(inner) == 2 and inner[0] == 0 and 1e-30 < inner[1] < 1e30 else None
    if form.function == "Softplus" and form.factor == (ONE,):
        same = rate is not None and form.shift == 0 and _near((form.scale * inner[1],), (1.0,))
        return ("Softplus", {"beta": rate} | _times_of(form.scale * inner[1])) if same else None
    if len(form.factor) != 2 or form.factor[0] != 0:
        return None
    k = form.factor[1]
    scale, shift = k * form.scale, k * form.shift
    outer = math.sqrt(2 / math.pi)
    tanh = (0.0, outer, 0.0, outer * _CUBIC)
    half = scale == shift and _near((scale,), (0.5,))
    one = shift == 0 and _near((scale,), (1.0,))
    if form.function == "Erf" and half and _near(inner, (0.0, math.sqrt(0.5))):
        return "Gelu", {"approximate": "none", "rate": float(inner[1]) * math.sqrt(2)} | _times_of(2 * scale)
    if form.function == "Tanh" and half and _near(inner, tanh):
        return "Gelu", _cubic(inner, outer) | _times_of(2 * scale)
    if form.function == "Tanh" and half and rate is not None:
        return "Swish", {"alpha": 2 * rate} | _times_of(2 * scale)  # (1 + tanh(z)) / 2 is the logistic function of 2 z
    if form.function == "Sigmoid" and one and _near(inner, tuple(2 * c for c in tanh)):
        return "Gelu", _cubic(inner, 2 * outer) | _times_of(scale)
    if form.function == "Sigmoid" and one and rate is not None:
        return "Swish", {"alpha": rate} | _times_of(scale)
    if form.function == "Clip" and one and _near(inner, (0.5, 1 / 6)):
        return "HardSwish", {"alpha": float(inner[1]), "beta": float(inner[0])} | _times_of(scale)
    if form.function == "TanhSoftplus" and one and inner == (ZERO, ONE):
        return "Mish", _times_of(scale)
    return None


def _times_of(factor: Fraction) -> dict[str, Any]:
    return {} if factor == 1 else {"times": float(factor)}


def _cubic(inner: Polynomial, outer: float) -> dict[str, Any]:
    """A Gelu of `rate x`, over rate, with a cubic term of its own."""
    rate = float(inner[1]) / outer
    return {"approximate": "tanh", "rate": rate, "cubic": float(inner[3]) / float(inner[1]) / rate**2}
