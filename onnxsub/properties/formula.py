"""Assertions as linear constraints: terms, comparisons, and the disjunctive normal form of `and` and `or`.

Both versions of VNN-LIB share this; they differ in how variables are declared and named.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from onnxsub.properties.sexpr import Source, Tree

__all__ = ["Constraint", "Formula", "Variables"]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMPARISONS = {"<=": (1.0, False), ">=": (-1.0, False), "<": (1.0, True), ">": (-1.0, True)}
_EQUAL = ("=", "==")
_CLAUSES = 100_000
_ROWS = 4_000_000  # of all clauses together, each of which has a copy of what they share
_BITS = 2**14  # of a numerator or a denominator: a sum of float64 numbers has 2,100, and only products have more


@dataclass(frozen=True, eq=False)
class Variables:
    """What names mean.

    Attributes:
        inputs, outputs: how many there are; input i is variable i, output j is variable `inputs + j`.
        lookup: the variable of a token, None for what is no variable at all; may raise for one that is out of range.
        known: names to put into a message.
    """

    inputs: int
    outputs: int
    lookup: Callable[[int], int | None]
    known: str


class Constraint(NamedTuple):
    """`sum_v coefficients[v] v <= bound` (`<` where strict); `token` is where it stands."""

    coefficients: dict[int, float]
    bound: float
    strict: bool
    token: int


_Term = tuple[dict[int, Fraction], Fraction]  # linear part and constant, exact: what cancels leaves what was meant


class Formula:
    """Reads boolean expressions of one source."""

    def __init__(self, source: Source, variables: Variables) -> None:
        self._source = source
        self._tokens = source.tokens
        self._variables = variables
        self._looks = 0

    def conjunctions(self, tree: Tree) -> list[list[Constraint]]:
        """The disjunctive normal form: a list of conjunctions.

        Raises:
            InputError: anything but comparisons of linear terms under `and` and `or`.
        """
        head, name = self._head(tree, "a comparison, (and ...) or (or ...)")
        assert isinstance(tree, list)
        if name in _COMPARISONS or name in _EQUAL:
            return [self._comparison(tree, name)]
        if name == "or":
            return [c for part in self._parts(tree, name) for c in self.conjunctions(part)]
        if name == "and":
            parts = [self.conjunctions(part) for part in self._parts(tree, name)]
            return self.product(parts, head)
        hints = {
            "not": "write the negated comparison",
            "=>": "write (or ...) with the negated premise",
            "!=": "write (or (< a b) (> a b))",
            "distinct": "write (or (< a b) (> a b))",
        }
        what = hints.get(name, "use <=, >=, <, >, ==, and, or")
        raise self._source.error(head, f"{name!r} is not supported in an assertion; {what}")

    def product(self, parts: list[list[list[Constraint]]], token: int) -> list[list[Constraint]]:
        """The conjunction of disjunctive normal forms."""
        if math.prod(len(p) for p in parts) > _CLAUSES:
            raise self._source.error(token, f"the property has more than {_CLAUSES} cases; split it into several files")
        count = math.prod(len(p) for p in parts)
        self.check_rows(sum(count // max(len(p), 1) * sum(map(len, p)) for p in parts), token)
        found = []
        for i, choice in enumerate(itertools.product(*parts)):
            self._source.look(i)
            found.append(list(itertools.chain.from_iterable(choice)))
        return found

    def together(self, trees: list[Tree]) -> list[Tree]:
        """Assertions, an `(and ...)` among them taken apart: what is said of every case then stands by itself."""
        found: list[Tree] = []
        waiting = trees[::-1]
        while waiting:
            tree = waiting.pop()
            if isinstance(tree, list) and len(tree) > 2 and isinstance(tree[1], int) and self._tokens[tree[1]] == "and":
                waiting += tree[:1:-1]
            else:
                found.append(tree)
        return found

    def check_rows(self, count: int, token: int) -> None:
        """Refuses a property whose cases would take more memory than any that is asked.

        Raises:
            InputError: with the place of the token.
        """
        if count > _ROWS:
            what = f"the cases of the property have {count:.3g} rows, more than {_ROWS}"
            raise self._source.error(token, f"{what}; split it into several files")

    def _parts(self, tree: list[Tree], name: str) -> list[Tree]:
        if len(tree) < 3:
            assert isinstance(tree[0], int)
            raise self._source.error(tree[0], f"({name}) is empty; give it at least one expression")
        return tree[2:]

    def _head(self, tree: Tree, expected: str) -> tuple[int, str]:
        """The token of a list's first word, and the word."""
        if isinstance(tree, int):
            raise self._source.error(tree, f"expected {expected}, found {self._tokens[tree]!r}")
        if len(tree) < 2:
            assert isinstance(tree[0], int)
            raise self._source.error(tree[0], f"expected {expected}, found ()")
        head = tree[1]
        if not isinstance(head, int):
            assert isinstance(head[0], int)
            raise self._source.error(head[0], f"expected {expected}, found a list")
        return head, self._tokens[head]

    def _comparison(self, tree: list[Tree], name: str) -> list[Constraint]:
        """`(<= a b)`, or the chain `(<= a b c)` of SMT-LIB."""
        self._looks += 1
        self._source.look(self._looks)
        head = tree[1]
        assert isinstance(head, int)
        if len(tree) < 4:
            raise self._source.error(head, f"{name!r} compares at least two terms, found {len(tree) - 2}")
        terms = [self._term(t) for t in tree[2:]]
        found = []
        for (left, a), (right, b) in itertools.pairwise(terms):
            exact = dict(left)
            for v, c in right.items():
                exact[v] = exact.get(v, 0) - c
            coefficients = {v: _float(c) for v, c in exact.items() if c}
            bound = _float(b - a)
            self._check(coefficients, name, bound, head)
            if name in _EQUAL:
                found.append(Constraint(coefficients, bound, False, head))
                found.append(Constraint({v: -c for v, c in coefficients.items()}, -bound, False, head))
                continue
            sign, strict = _COMPARISONS[name]
            if sign < 0:
                coefficients, bound = {v: -c for v, c in coefficients.items()}, -bound
            found.append(Constraint(coefficients, bound, strict, head))
        return found

    def _check(self, coefficients: dict[int, float], name: str, bound: float, token: int) -> None:
        if not coefficients:
            raise self._source.error(token, "this comparison has no variable in it; remove it or check the names")
        if not (math.isfinite(bound) and all(math.isfinite(c) for c in coefficients.values())):
            raise self._source.error(token, "a number of this comparison is too large for float64; scale the constraint")
        if 0 in coefficients.values():
            raise self._source.error(token, "a factor of this comparison is too small for float64; scale the constraint")
        n = self._variables.inputs
        reads_inputs = min(coefficients) < n
        if reads_inputs and max(coefficients) >= n:
            raise self._source.error(
                token,
                "this comparison mixes inputs and outputs, which is not supported; "
                "constrain inputs by a box and outputs by linear comparisons",
            )
        if reads_inputs and len(coefficients) > 1:
            raise self._source.error(token, "this comparison relates inputs to each other; only a box of inputs is supported")
        if reads_inputs and _COMPARISONS.get(name, (1.0, False))[1]:
            raise self._source.error(token, f"{name!r} on an input: boxes are closed; write {name}= instead")

    def _term(self, tree: Tree) -> _Term:
        if isinstance(tree, int):
            return self._atom(tree)
        head, name = self._head(tree, "a number, a variable or a sum")
        parts = [self._term(t) for t in tree[2:]]
        if not parts:
            raise self._source.error(head, f"({name}) has nothing to work on; give it a term")
        if name == "+":
            return self._checked(_sum(parts), head)
        if name == "-":
            first = parts[:1] if len(parts) > 1 else []
            return self._checked(_sum([*first, *(_scaled(p, Fraction(-1)) for p in parts[len(first) :])]), head)
        if name == "*":
            return self._product(parts, head)
        if name == "/" and len(parts) == 2 and not parts[1][0] and parts[1][1] != 0:
            return self._checked(_scaled(parts[0], 1 / parts[1][1]), head)
        what = "only a division by a constant other than 0 is linear" if name == "/" else "terms are made of +, - and *"
        raise self._source.error(head, f"{name!r} is not supported here; {what}")

    def _product(self, parts: list[_Term], token: int) -> _Term:
        variable = [p for p in parts if p[0]]
        if len(variable) > 1:
            raise self._source.error(token, "a product of variables is not linear and not supported; only constants may be factors")
        factor = Fraction(1)
        for linear, value in parts:
            if not linear:
                factor = self._checked(({}, factor * value), token)[1]
        return self._checked(_scaled(variable[0], factor), token) if variable else ({}, factor)

    def _checked(self, term: _Term, token: int) -> _Term:
        """The term, where its numbers are not so long that working on takes time."""
        for c in (term[1], *term[0].values()):
            if max(c.numerator.bit_length(), c.denominator.bit_length()) > _BITS:
                raise self._source.error(token, "the numbers of this term are too long once it is worked out; simplify it")
        return term

    def _atom(self, token: int) -> _Term:
        word = self._tokens[token]
        if _NUMBER.fullmatch(word):
            value = float(word)
            if not math.isfinite(value):
                raise self._source.error(token, f"{word} is too large for float64; scale the constraint")
            return {}, Fraction(value)
        v = self._variables.lookup(token)
        if v is None:
            raise self._source.error(token, f"{word!r} is neither a number nor declared; known are {self._variables.known}")
        return {v: Fraction(1)}, Fraction(0)


def _sum(terms: list[_Term]) -> _Term:
    total: dict[int, Fraction] = {}
    constant = Fraction(0)
    for linear, value in terms:
        constant += value
        for v, c in linear.items():
            total[v] = total.get(v, 0) + c
    return total, constant


def _scaled(term: _Term, factor: Fraction) -> _Term:
    return {v: c * factor for v, c in term[0].items()}, term[1] * factor


def _float(value: Fraction) -> float:
    """The nearest float64; infinite where that is too large."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
