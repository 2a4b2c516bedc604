"""The clock of one question: how long it may take, how many nodes it may visit, and who is told.

Whatever may take long is given a `Budget` and asks it. Two kinds of asking:

- a loop whose partial result is of use ends when `running` is False;
- a computation that is worth nothing before it is complete calls `check()`, which raises `OutOfTime`; whoever holds the last
  sound answer catches that and returns the answer.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from onnxsub.errors import OptionError

__all__ = ["NODE", "Budget", "OutOfTime", "check_whole", "time_left"]

NODE = 0.005
"""Seconds that a node counts for where the clock counts nodes: about what one of a network of a few thousand units takes."""


class OutOfTime(Exception):  # noqa: N818 - it is no error: it ends a computation whose time is over
    """The budget ended inside a computation that has no partial result. It never reaches a user."""


class Budget:
    """What one question may spend.

    Attributes:
        began: `now` at its start.
        deadline: `now` at its end; infinite where there is no limit.
        counted: whether its clock counts nodes.
        stop: set by Ctrl-C, SIGTERM or a caller; ends everything at the next look at the budget.

    Args:
        timeout: seconds; None for no limit.
        nodes: nodes of branch and bound, solver nodes included; None for no limit. Without a timeout the clock counts nodes, so
            that every share of the time is a share of the nodes, and the answer does not depend on the machine's speed.
        stop: an event of the caller.
        tell: told one line of text now and then.

    Raises:
        InputError: a limit that is none.
    """

    def __init__(
        self,
        timeout: float | None = None,
        *,
        nodes: int | None = None,
        stop: threading.Event | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise OptionError(f"--timeout {timeout} must be positive seconds")
        if nodes is not None and nodes < 1:
            raise OptionError(f"--nodes {nodes} must be at least 1")
        self._whole = self  # the budget that this one is a part of: counts and stages are booked there
        self._most_nodes: float = math.inf if nodes is None else nodes  # the count at which it ends
        self._given = self._most_nodes
        self._nodes = 0
        self.counted = nodes is not None and timeout is None
        self._started = time.perf_counter()
        self.began = self.now
        self.deadline = math.inf if timeout is None else self.began + timeout
        self.stop = stop or threading.Event()
        self._times: dict[str, float] = {}
        self._stages: list[str] = []
        self._cut: str | None = None
        self._tell = tell

    def part(self, seconds: float) -> Budget:
        """A budget of at most so many seconds of this one; nodes, stages and `stop` are those of the whole."""
        part = Budget(stop=self.stop)
        part._whole = self._whole
        part._most_nodes, part._given = self._most_nodes, self._given
        part.counted = self.counted
        part.began = self.now
        part.deadline = min(self.deadline, part.began + max(seconds, 0.0))
        return part

    def with_nodes(self, nodes: int, *, asked: bool = False) -> Budget:
        """This budget, for so many nodes more at most.

        Args:
            asked: whether it is a limit of the user, so that without a time limit its clock counts nodes.
        """
        part = self.part(math.inf)
        part._most_nodes, part._given = min(self._most_nodes, self.nodes + nodes), nodes
        part.counted = self.counted or (asked and not self.limited)
        part.began = part.now
        return part

    @property
    def now(self) -> float:
        """Seconds on the clock of this budget: `time.perf_counter()`, or where nodes are counted `NODE` for each one so far."""
        return self._whole._nodes * NODE if self.counted else time.perf_counter()

    @property
    def worked(self) -> float:
        """Seconds since the start on that clock."""
        return self.now - self.began

    @property
    def limited(self) -> bool:
        """Whether there is a time limit."""
        return math.isfinite(self.deadline)

    @property
    def spent(self) -> float:
        """Seconds of real time since the start."""
        return time.perf_counter() - self._started

    @property
    def remaining(self) -> float:
        """Seconds left, infinite without a limit; negative when it is over."""
        return self.deadline - self.now

    @property
    def nodes(self) -> int:
        """Nodes spent so far."""
        return self._whole._nodes

    @property
    def nodes_left(self) -> float:
        """Nodes left, infinite without a limit."""
        return self._most_nodes - self._whole._nodes

    def count(self, nodes: int) -> None:
        """Books nodes."""
        self._whole._nodes += nodes

    @property
    def running(self) -> bool:
        """Whether work may go on."""
        return not self.over

    @property
    def over(self) -> bool:
        """Whether work has to end; notes the stage in which that was first seen."""
        whole = self._whole
        over = self.stop.is_set() or self.now >= self.deadline or whole._nodes >= self._most_nodes
        if over and whole._cut is None and (self is whole or whole._ended):
            whole._cut = whole._stages[-1] if whole._stages else "start"
        return over

    @property
    def _ended(self) -> bool:
        return self.stop.is_set() or self.now >= self.deadline or self._nodes >= self._most_nodes

    def check(self) -> None:
        """Raises OutOfTime when work has to end."""
        if self.over:
            raise OutOfTime

    def attempt(self, work: Callable[[], None]) -> None:
        """Runs `work` until it is done, the budget ends, or Ctrl-C comes, which sets `stop`. Meanwhile it is the budget at work."""
        outer = _AT_WORK.set(self)
        try:
            work()
        except OutOfTime:
            pass
        except KeyboardInterrupt:
            self.stop.set()
        finally:
            _AT_WORK.reset(outer)

    @property
    def why(self) -> str:
        """What ended the work, for a reason: `the time limit ended it (in the stage ...)`, ..."""
        whole = self._whole
        where = f" in the stage {whole._cut!r}" if whole._cut is not None else ""
        if self.stop.is_set():
            return f"interrupted{where}"
        for budget in (whole, self):
            if whole._nodes >= budget._most_nodes:
                return f"the limit of {budget._given:,} nodes ended it{where}; give more (--nodes)"
        return f"the time limit ended it{where}; give more time (--timeout)"

    @property
    def cut(self) -> str | None:
        """The stage that the end of the whole budget cut short; None: it has not ended, or nobody was at work."""
        return self._whole._cut

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Books the seconds of a block under a name, and tells that. A stage inside another one counts for itself only."""
        whole = self._whole
        outer = whole._stages[-1] if whole._stages else None
        whole._stages.append(name)
        self.tell(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            if whole._cut is None and (whole._ended or isinstance(sys.exception(), KeyboardInterrupt)):
                whole._cut = name
            whole._stages.pop()
            seconds = time.perf_counter() - start
            whole._times[name] = whole._times.get(name, 0.0) + seconds
            if outer is not None:
                whole._times[outer] = whole._times.get(outer, 0.0) - seconds
                self.tell(outer)

    @property
    def times(self) -> dict[str, float]:
        """Seconds per stage so far, and `total`."""
        return {**self._whole._times, "total": self._whole.spent}

    def tell(self, text: str) -> None:
        """Progress: the name of a stage, or a few words about it."""
        if self._whole._tell is not None:
            self._whole._tell(text)

    @contextmanager
    def telling(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Has another one told, for the time of a block."""
        whole = self._whole
        before, whole._tell = whole._tell, tell
        try:
            yield
        finally:
            whole._tell = before


def check_whole(interrupted: bool) -> None:
    """For callers with more to do: half an answer is not booked, and Ctrl-C, which a search takes for its end, ends them too.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    if interrupted:
        raise KeyboardInterrupt


_AT_WORK: ContextVar[Budget | None] = ContextVar("_AT_WORK", default=None)


def time_left() -> float:
    """Seconds left of the budget at work (`attempt`); infinite without one.

    For what cannot be interrupted and lies too deep to be given a budget: a compiler, an import.
    """
    budget = _AT_WORK.get()
    return math.inf if budget is None else budget.remaining
