"""What is asked of another verifier, and what it says: the interface that every tool here has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from onnxsub.ops.base import Array
from onnxsub.properties import Property

__all__ = ["SAT", "UNKNOWN", "UNSAT", "Claim", "Job", "Tool"]

SAT, UNSAT, UNKNOWN = "sat", "unsat", "unknown"


@dataclass(frozen=True, eq=False)
class Job:
    """One question.

    Attributes:
        path: the `.onnx` file, a private copy of what was checked.
        question: a property of one box, in the units that the file is fed.
        folder: where the tool may write; it is deleted afterwards.
        limit: seconds; None for none. A tool that is still running then is killed.
    """

    path: Path
    question: Property
    folder: Path
    limit: float | None = None


@dataclass(frozen=True, eq=False)
class Claim:
    """What a tool says, before anybody has looked at it.

    Attributes:
        word: `sat` (some clause can be satisfied), `unsat` (none can) or `unknown`.
        reason: one line; for `unknown` what went wrong.
        clauses: the same word per clause of the question.
        x: for `sat` the point `(inputs,)`, float64; None where the tool gave none.
        seconds: of the process.
    """

    word: str
    reason: str
    clauses: tuple[str, ...]
    x: Array | None = field(default=None, repr=False)
    seconds: float = 0.0

    @staticmethod
    def nothing(job: Job, reason: str, seconds: float = 0.0) -> Claim:
        """`unknown` for every clause."""
        return Claim(UNKNOWN, reason, (UNKNOWN,) * job.question.clauses, None, seconds)


class Tool(Protocol):
    """A verifier that is run as a process. Whatever goes wrong in it becomes `unknown` with the reason, never an exception."""

    @property
    def name(self) -> str:
        """How results call it."""
        ...

    @property
    def reader(self) -> str | None:
        """The entry of `READERS` that says what it reads; None: not known."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What results say about how it was run."""
        ...

    def ask(self, job: Job) -> Claim:
        """Runs the tool on one question."""
        ...
