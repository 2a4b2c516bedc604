"""S-expressions with positions: the text as tokens, and the tokens as a tree.

An atom of the tree is the *number* of its token, a list begins with the number of its `(`. Where a token stands is worked out
only for a message, so that a file of 12,000 assertions costs a few hundredths of a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.limits import limits

__all__ = ["Source", "Tree", "parse"]

Tree: TypeAlias = "int | list[Tree]"

_TOKENS = re.compile(r';[^\n]*|"[^"\n]*"|[()]|[A-Za-z]\w*[ \t]*\[[^\]()\n]*\]|[^\s()\[\];"]+|\S')
"""Comments, strings, parentheses, names and numbers (a tensor element `X[0, 3]` is one token), and whatever else there is."""
_DEPTH = 200
_LOOK = 1024  # steps between two looks at the budget


@dataclass(frozen=True, eq=False)
class Source:
    """A text, what messages call it, and the clock of whoever reads it."""

    text: str
    where: str
    budget: Budget | None = None

    def look(self, count: int) -> None:
        """Raises OutOfTime where the budget ended; told how often it was called, it looks now and then."""
        if self.budget is not None and count % _LOOK == 0:
            self.budget.check()

    @cached_property
    def tokens(self) -> list[str]:
        """All tokens but the comments."""
        found: list[str] = []
        allowed = limits()
        for match in _TOKENS.finditer(self.text):
            token = match.group()
            if token[0] == ";":
                continue
            found.append(token)
            self.look(len(found))
            if len(token) > allowed.digits or len(found) > allowed.tokens:
                allowed.check("digits", len(token), f"{self.where}: characters of the token {token[:20]!r}...")
                allowed.check("tokens", len(found), f"{self.where}: tokens")
        return found

    def error(self, token: int, message: str) -> InputError:
        """The error `message` at a token: file, line and column (both from 1) in front; `len(tokens)` is the end of the text."""
        line, column = self.position(token)
        return InputError(f"{self.where}:{line}:{column}: {message}")

    def position(self, token: int) -> tuple[int, int]:
        """Line and column of a token, from 1."""
        matches = (m for m in _TOKENS.finditer(self.text) if m.group()[0] != ";")
        start = next((m.start() for i, m in enumerate(matches) if i == token), len(self.text.rstrip()))
        return self.text.count("\n", 0, start) + 1, start - self.text.rfind("\n", 0, start)


def parse(source: Source) -> list[list[Tree]]:
    """The lists at the top level.

    Raises:
        InputError: unbalanced parentheses, an atom outside of any list, nesting deeper than 200, a stray character.
    """
    top: list[Tree] = []
    stack: list[list[Tree]] = [top]
    current = top
    for i, token in enumerate(source.tokens):
        source.look(i)
        if token == "(":
            new: list[Tree] = [i]
            current.append(new)
            stack.append(new)
            current = new
            if len(stack) > _DEPTH:
                raise source.error(i, f"nested deeper than {_DEPTH} levels; write the property with fewer")
        elif token == ")":
            stack.pop()
            if not stack:
                raise source.error(i, "')' closes nothing; remove it or add the '(' that is missing")
            current = stack[-1]
        elif token in ("[", "]", '"'):
            raise source.error(i, f"{token!r} is not expected here; check the brackets and quotes of this line")
        else:
            current.append(i)
    if len(stack) > 1:
        opened = stack[-1][0]
        assert isinstance(opened, int)
        raise source.error(opened, "this '(' is never closed; the file is cut off or a ')' is missing")
    lists: list[list[Tree]] = []
    for tree in top:
        if isinstance(tree, int):
            raise source.error(tree, f"{source.tokens[tree]!r} stands outside of any command; a command is written in parentheses")
        lists.append(tree)
    return lists
