"""Who does the units: what the scheduler asks of local processes and of a Ray cluster alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from onnxsub.evaluate.task import Outcome, Task

__all__ = ["Engine"]


class Engine(Protocol):
    """Does tasks side by side. A task that outlasts its limit, or whose process is lost, ends with an outcome too."""

    @property
    def jobs(self) -> int:
        """How many tasks it does at the same time."""
        ...

    @property
    def queue(self) -> int:
        """How many more may be under way for each of these: they wait where the next one is begun at once."""
        ...

    def submit(self, task: Task, limit: float | None) -> None:
        """Begins a task, or has it wait. `limit`: seconds of work after which it is killed with all that it started."""
        ...

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """What has ended, waiting at most so long for the first."""
        ...

    def close(self) -> None:
        """Ends everything that is under way."""
        ...
