"""From constraints to a `Property`: the box that all cases share, and one case per different box."""

from __future__ import annotations

import math

import numpy as np

from onnxsub.properties.formula import Constraint, Formula, Variables
from onnxsub.properties.property import Case, Clause, Picked, Table
from onnxsub.properties.sexpr import Source, Tree

__all__ = ["assemble"]

_Box = tuple[list[float], list[float]]


class _EmptyBoxError(Exception):
    """A constraint left nothing of a box."""

    def __init__(self, constraint: Constraint, variable: int, lower: float, upper: float) -> None:
        self.constraint, self.variable, self.lower, self.upper = constraint, variable, lower, upper


def assemble(
    source: Source, variables: Variables, assertions: list[Tree], declared: int, name_of: dict[int, str]
) -> tuple[Case, ...]:
    """The cases of a list of assertions, which hold together.

    Args:
        declared: the token to point at where a bound is missing.
        name_of: input -> how the text calls it.

    Raises:
        InputError: with file, line and column, where an assertion is not supported, a box is empty or unbounded, or nothing is
            said of the outputs.
    """
    formula = Formula(source, variables)
    always: list[Constraint] = []
    choices: list[list[list[Constraint]]] = []
    for assertion in formula.together(assertions):
        found = formula.conjunctions(assertion)
        if len(found) == 1:
            always += found[0]
        else:
            choices.append(found)
    n = variables.inputs
    base: _Box = [-math.inf] * n, [math.inf] * n
    rows = _tightest([c for c in always if min(c.coefficients) >= n])
    try:
        _cut(base, [c for c in always if min(c.coefficients) < n])
    except _EmptyBoxError as empty:
        raise _error(source, empty, name_of) from None
    branches = formula.product(choices, declared) if choices else [[]]
    formula.check_rows(len(branches) * len(rows), declared)
    # every row is stored once; clauses hold numbers
    table: dict[int, tuple[int, Constraint]] = {}
    shared = [_number(table, c) for c in rows]
    cases: dict[bytes, tuple[np.ndarray, np.ndarray, list[list[int]]]] = {}
    last: _EmptyBoxError | None = None
    base_arrays = np.array(base[0]), np.array(base[1])
    for i, branch in enumerate(branches):
        source.look(i)
        bounds = [c for c in branch if min(c.coefficients) < n]
        lower, upper = base_arrays
        if bounds:
            box = list(base[0]), list(base[1])
            try:
                _cut(box, bounds)
            except _EmptyBoxError as empty:
                last = empty
                continue
            lower, upper = np.array(box[0]), np.array(box[1])
        _check_bounded(source, lower, upper, bounds[0].token if bounds else declared, name_of)
        own = shared + [_number(table, c) for c in branch if min(c.coefficients) >= n]
        if not own:
            raise source.error(declared, "no assertion constrains an output; such a property holds for every input of the box")
        key = lower.tobytes() + upper.tobytes()
        cases.setdefault(key, (lower, upper, []))[2].append(own)
    if not cases:
        assert last is not None
        raise _error(source, last, name_of)
    stored = _table([constraint for _, constraint in table.values()], variables)

    def picked(members: list[int]) -> Clause:
        return Picked(stored, np.array(list(dict.fromkeys(members)), dtype=np.int32))

    return tuple(Case(lower, upper, tuple(map(picked, clauses))) for lower, upper, clauses in cases.values())


def _number(table: dict[int, tuple[int, Constraint]], constraint: Constraint) -> int:
    """The number of a constraint in the table, which it joins."""
    return table.setdefault(id(constraint), (len(table), constraint))[0]


def _tightest(rows: list[Constraint]) -> list[Constraint]:
    """Of constraints that hold together, one for each left side: the others follow from it. Every clause takes a copy of these."""
    found: dict[tuple[tuple[int, float], ...], Constraint] = {}
    for row in rows:
        key = tuple(sorted(row.coefficients.items()))
        have = found.get(key)
        if have is None or (row.bound, not row.strict) < (have.bound, not have.strict):
            found[key] = row
    return list(found.values())


def _cut(box: _Box, constraints: list[Constraint]) -> None:
    """Intersects the box with constraints on one input each."""
    lower, upper = box
    for constraint in constraints:
        ((v, c),) = constraint.coefficients.items()
        end = constraint.bound / c + 0.0  # no negative zero
        if c > 0:
            upper[v] = min(upper[v], end)
        else:
            lower[v] = max(lower[v], end)
        if lower[v] > upper[v]:
            raise _EmptyBoxError(constraint, v, lower[v], upper[v])


def _check_bounded(source: Source, lower: np.ndarray, upper: np.ndarray, token: int, name_of: dict[int, str]) -> None:
    for side, ends, sign in (("lower", lower, ">="), ("upper", upper, "<=")):
        missing = np.flatnonzero(~np.isfinite(ends))
        if len(missing):
            name = name_of[int(missing[0])]
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise source.error(token, f"{name}{more} has no {side} bound; add (assert ({sign} {name} ...))")


def _error(source: Source, empty: _EmptyBoxError, name_of: dict[int, str]) -> Exception:
    name = name_of[empty.variable]
    return source.error(
        empty.constraint.token,
        f"the box is empty: {name} would have to lie in [{empty.lower!r}, {empty.upper!r}]; check its bounds",
    )


def _table(constraints: list[Constraint], variables: Variables) -> Table:
    matrix = np.zeros((len(constraints), variables.outputs))
    for row, constraint in zip(matrix, constraints, strict=True):
        for v, c in constraint.coefficients.items():
            row[v - variables.inputs] = c
    bound = np.array([c.bound for c in constraints]) + 0.0
    return Table(matrix, bound, np.array([c.strict for c in constraints], dtype=bool))
