"""When a run of `--sequential` has seen enough."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from onnxsub.evaluate.ledger import Unit
from onnxsub.evaluate.robustness.row import SampleRow, row_of
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.values import bracket_of
from onnxsub.metrics.sequential import Sequential, run_sequential

__all__ = ["Watcher", "used_rows"]


class Watcher:
    """Takes the samples in the order of the units, whatever the order in which they end, until the interval is narrow enough.

    A sample that takes long to decide must count at its place: what ends first is no random part of the data. While it holds up the
    count, no more samples begin than could be needed: at most as many as there are workers beyond the last that counts.

    Args:
        units: of the run, in their order, as they stand.
    """

    def __init__(self, settings: RobustnessSettings, units: Iterable[Unit]) -> None:
        self._settings = settings
        self._sequence = _Sequence(settings)
        self._ahead: dict[int, SampleRow] = {}
        known = list(units)
        self._order = [u.id for u in known]
        self._least = _least(settings, len(known))
        self.note(u for u in known if u.state in ("done", "failed"))

    def note(self, settled: Iterable[Unit]) -> None:
        self._ahead |= {u.id: row_of(u) for u in settled}
        while not self.enough and (at := self._sequence.used) < len(self._order) and self._order[at] in self._ahead:
            self._sequence.take(self._ahead.pop(self._order[at]))

    @property
    def enough(self) -> bool:
        return self._sequence.enough

    def wants(self, under_way: int, jobs: int) -> bool:
        begun = self._sequence.used + len(self._ahead) + under_way
        # a sample whose worker was lost may be all that is missing
        return under_way == 0 or begun < max(self._least, self._sequence.used + jobs)


class _Sequence:
    """A confidence sequence over rows."""

    def __init__(self, settings: RobustnessSettings) -> None:
        assert settings.error is not None
        self._settings = settings
        self._error = settings.error
        self.intervals = Sequential(settings.confidence, value_range=settings.values, binary=not settings.quantitative)

    def take(self, row: SampleRow) -> None:
        self.intervals.update(*bracket_of(row, self._settings))

    @property
    def used(self) -> int:
        """Rows that the interval is made of."""
        return self.intervals.count

    @property
    def enough(self) -> bool:
        return self.used > 0 and self.intervals.interval.width <= 2 * self._error


def _least(settings: RobustnessSettings, count: int) -> int:
    """Samples that the wanted error takes where all of them have the same value, of `count` at most: fewer will hardly do."""
    assert settings.error is not None
    low, high = settings.values
    same = itertools.repeat(high, max(count, 1))
    binary = not settings.quantitative
    return run_sequential(same, settings.error, settings.confidence, value_range=(low, high), binary=binary).samples


def used_rows(rows: Iterable[SampleRow], settings: RobustnessSettings) -> int:
    """How many rows, from the first on, the result is made of: all, or as many as are known and the wanted error takes.

    What was computed beyond that (units were under way) does not count, so that a run repeats with any number of workers.
    """
    known = list(rows)
    if not settings.sequential:
        return len(known)
    sequence = _Sequence(settings)
    for row in known:
        if row.status == "pending" or sequence.enough:
            break
        sequence.take(row)
    return sequence.used
