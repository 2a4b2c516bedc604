"""VNN-LIB 1.0 as VNN-COMP uses it: `(declare-const X_0 Real)`, `(assert (<= X_0 0.5))`.

Source: the VNN-LIB standard, vnnlib.org; SMT-LIB 2.6 for the syntax of terms.
"""

from __future__ import annotations

import re

from onnxsub.properties.assemble import assemble
from onnxsub.properties.formula import Variables
from onnxsub.properties.property import Property
from onnxsub.properties.sexpr import Source, Tree

__all__ = ["read_version_1"]

_NAME = re.compile(r"([XY])_(0|[1-9][0-9]*)")


def read_version_1(source: Source, commands: list[list[Tree]]) -> Property:
    """The property of a text whose commands are `declare-const`, `declare-fun` without arguments, and `assert`.

    Raises:
        InputError: with file, line and column.
    """
    tokens = source.tokens
    declared: dict[str, dict[int, int]] = {"X": {}, "Y": {}}
    assertions: list[Tree] = []
    for command in commands:
        head = command[1] if len(command) > 1 else command[0]
        name = tokens[head] if isinstance(head, int) else "("
        if name == "assert" and len(command) == 3:
            assertions.append(command[2])
        elif name in ("declare-const", "declare-fun"):
            _declare(source, command, declared)
        else:
            assert isinstance(command[0], int)
            what = "assert takes one expression" if name == "assert" else "known are declare-const and assert"
            raise source.error(command[0], f"command {name!r} is not supported like this; {what}")
    inputs, outputs = (_count(source, declared, kind) for kind in ("X", "Y"))
    place: dict[str, int] = {f"X_{i}": i for i in range(inputs)} | {f"Y_{j}": inputs + j for j in range(outputs)}
    variables = Variables(
        inputs, outputs, lambda token: place.get(tokens[token]), f"X_0 to X_{inputs - 1} and Y_0 to Y_{outputs - 1}"
    )
    cases = assemble(source, variables, assertions, declared["X"][0], {i: f"X_{i}" for i in range(inputs)})
    return Property(cases, (inputs,), (outputs,), "1.0", where=source.where)


def _declare(source: Source, command: list[Tree], declared: dict[str, dict[int, int]]) -> None:
    """`(declare-const X_0 Real)` or `(declare-fun X_0 () Real)`."""
    start = command[0]
    assert isinstance(start, int)
    words = [source.tokens[t] if isinstance(t, int) else "()" if len(t) == 1 else "(...)" for t in command[1:]]
    constant = len(words) == 3 and words[0] == "declare-const"
    if not constant and not (len(words) == 4 and words[0] == "declare-fun" and words[2] == "()"):
        raise source.error(start, "a declaration reads (declare-const X_0 Real)")
    if words[-1] != "Real":
        raise source.error(start, f"{words[1]} is declared {words[-1]}; only Real is supported")
    match = _NAME.fullmatch(words[1])
    if match is None:
        raise source.error(start, f"{words[1]!r} is neither an input X_i nor an output Y_j; rename it")
    kind, number = match.group(1), int(match.group(2))
    if number in declared[kind]:
        raise source.error(start, f"{words[1]} is declared twice; remove one")
    declared[kind][number] = start


def _count(source: Source, declared: dict[str, dict[int, int]], kind: str) -> int:
    """How many variables of a kind there are; their numbers must be 0, 1, 2, ..."""
    numbers = declared[kind]
    what = "input" if kind == "X" else "output"
    if not numbers:
        raise source.error(0, f"no {what} is declared; add (declare-const {kind}_0 Real)")
    gap = next((i for i in range(len(numbers)) if i not in numbers), None)
    if gap is not None:
        largest = max(numbers)
        raise source.error(numbers[largest], f"{kind}_{largest} is declared, but {kind}_{gap} is not; number the {what}s from 0")
    return len(numbers)
