"""How fast a run goes and when it will be done."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from onnxsub.evaluate.ledger import Group, Unit
from onnxsub.evaluate.task import Outcome

__all__ = ["Pace", "in_words"]

_EVERY = 0.1

_Key = tuple[str, str | None, float | None, str | None]


class Pace:
    """Counts settled units; a kind's mean time tells how long the rest of its units will take.

    Args:
        groups: all units of the run, as they stand at the beginning.
        jobs: units side by side.
        progress: told the share that is settled, and the rest in words.
    """

    def __init__(self, groups: Iterable[Group], jobs: int, progress: Callable[[float, str], None] | None) -> None:
        self._left: Counter[_Key] = Counter()
        self._under_way: dict[int, tuple[Unit, float]] = {}
        self._times: dict[_Key, tuple[float, int]] = {}
        self._jobs = jobs
        self._progress = progress
        self._began = time.perf_counter()
        self.total = self.settled = self.failed = self.done_now = 0
        self.busy_s = 0.0
        self._told = -math.inf
        for group in groups:
            self.total += group.count
            if group.state in ("done", "failed"):
                self.settled += group.count
                self.failed += group.count if group.state == "failed" else 0
                if group.timed:
                    self._learn(group, group.seconds, group.timed)
            else:
                self._left[_key(group)] += group.count

    @property
    def left(self) -> int:
        """Units that are not settled."""
        return self.total - self.settled

    @property
    def remaining(self) -> float | None:
        """Seconds, as far as can be told; None before anything is.

        A unit that is under way has as many seconds less to go. One that takes longer than its kind's mean counts as one of that
        length, so a kind of which nothing is done yet is told by the seconds that have passed.
        """
        now = time.perf_counter()
        spent = {i: (_key(unit), now - began) for i, (unit, began) in self._under_way.items()}
        times = dict(self._times)
        for key, seconds in spent.values():
            total, count = times.get(key, (0.0, 0))
            if not count or seconds > total / count:
                times[key] = total + seconds, count + 1
        if not times:
            return None
        overall = sum(s for s, _ in times.values()) / sum(n for _, n in times.values())
        means = {key: seconds / count for key, (seconds, count) in times.items()}
        whole = sum(count * means.get(key, overall) for key, count in self._left.items())
        return (whole - sum(min(seconds, means[key]) if key in means else 0.0 for key, seconds in spent.values())) / self._jobs

    def begin(self, unit: Unit) -> None:
        """A unit that is under way from now on."""
        self._under_way[unit.id] = unit, time.perf_counter()

    def note(self, settled: Sequence[Unit], outcome: Outcome) -> None:
        """Units that an outcome has settled, the one that was worked on first; its own is no longer under way."""
        self._under_way.pop(outcome.id, None)
        for unit in settled:
            self._left[_key(unit)] -= 1
            self.settled += 1
            self.failed += unit.state == "failed"
        if settled:
            self.done_now += 1
            self._learn(settled[0], outcome.seconds)
        self.busy_s += sum(outcome.result.get("time_s", {}).values())

    def tell(self) -> None:
        """Says where the run stands; at most ten times a second, and when all is settled."""
        now = time.perf_counter()
        if self._progress is None or (self.left and now - self._told < _EVERY):
            return
        self._told = now
        rate = self.done_now / max(time.perf_counter() - self._began, 1e-9)
        text = f"{self.settled:,} of {self.total:,} units"
        if self.done_now:
            text += f", {rate:.1f}/s" if rate >= 1 else f", {60 * rate:.1f}/min"
        remaining = self.remaining
        if remaining is not None and self.left:
            text += f", {'about ' if self._times else 'more than '}{in_words(remaining)} left"
        if self.failed:
            text += f", {self.failed:,} failed"
        if self._under_way:
            unit, began = min(self._under_way.values(), key=lambda entry: entry[1])
            text += f"; {unit.kind} of sample {unit.sample} for {in_words(time.perf_counter() - began)}"
        self._progress(self.settled / self.total, text)

    def _learn(self, unit: Unit | Group, seconds: float, units: int = 1) -> None:
        total, count = self._times.get(_key(unit), (0.0, 0))
        self._times[_key(unit)] = total + seconds, count + units


def in_words(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _key(unit: Unit | Group) -> _Key:
    return unit.kind, unit.method, unit.gamma, unit.verifier
