"""Exit codes, as the contract of the command line states them."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """What the shell gets."""

    DONE = 0
    VIOLATED = 1
    USAGE = 2
    UNDECIDED = 3
    FAILED = 4
    INTERRUPTED = 130
    PIPE = 141
    """The reader of standard output went away (128 + SIGPIPE), as for any other filter."""
