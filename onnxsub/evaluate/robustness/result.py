"""The answer of `onnxsub robustness`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxsub.evaluate.robustness.measure import Measure
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.robustness.tally import Tally, verdict_of
from onnxsub.evaluate.tables import results_of
from onnxsub.results import VERSION
from onnxsub.shown import Shown, number

__all__ = ["RobustnessResult"]


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessResult(Shown):
    """What a run came to.

    Attributes:
        folder: of the run. plan: content of its `run.toml`.
        rows: one per sample, in the order of the units. used: how many of them, from the first on, the measure is made of.
        counts: of those rows. measure: estimate, interval and guarantee.
        units: number of units by state. finished: no unit is left, or enough are done. interrupted: ended by Ctrl-C.
        failures: reason -> how often. done_now, wall_s, busy_s: see `onnxsub.evaluate.drive.Driven`.
    """

    folder: Path
    plan: Mapping[str, Any]
    rows: tuple[SampleRow, ...]
    used: int
    counts: Tally
    measure: Measure
    units: Mapping[str, int]
    finished: bool
    interrupted: bool
    failures: Mapping[str, int]
    done_now: int
    wall_s: float
    busy_s: float

    @property
    def line(self) -> str:
        m = self.measure
        ends = number(m.lower) if m.lower == m.upper else f"{number(m.lower)} to {number(m.upper)}"
        return f"{str(self.folder)!r}: {self.plan['settings']['metric']} {ends} of {m.samples:,} samples"

    @property
    def nothing_decided(self) -> bool:
        """Whether every sample that the measure is made of failed or stayed undecided.

        An attack that fails and points that all satisfy are the answers of `security` and `accuracy`, and what an attack comes to
        that of `approximate`: there only failures count.
        """
        settings = RobustnessSettings.from_json(self.plan["settings"])
        answers = settings.metric in ("security", "accuracy") or settings.approximate is not None
        seen = [row for row in self.rows[: self.used] if row.status != "pending"]
        open_ = [row.status == "failed" or (not answers and verdict_of(row, settings) == "undecided") for row in seen]
        return bool(seen) and all(open_)

    def to_json(self, *, indices: bool = False) -> dict[str, Any]:
        """The document `onnxsub.robustness/1`.

        Args:
            indices: also the positions of the samples behind each count.
        """
        counts = asdict(self.counts)
        (model,) = self.plan["model"]
        interval = self.measure.interval
        table, parquet = results_of(self.folder)
        return {
            "schema": "onnxsub.robustness/1",
            "version": VERSION,
            "run": str(self.folder),
            "model": {k: model[k] for k in ("name", "path", "sha256")},
            "data": self.plan["data"],
            "settings": self.plan["settings"],
            **{name: len(found) for name, found in counts.items()},
            **({"index": {name: list(found) for name, found in counts.items()}} if indices else {}),
            "estimate": self.measure.estimate(),
            "interval": None if interval is None else interval.to_json(),
            "samples": self.measure.samples,
            "guarantee": self.measure.guarantee,
            "units": dict(self.units),
            "finished": self.finished,
            "interrupted": self.interrupted,
            "failures": dict(self.failures),
            "results": None if parquet is None else str(parquet),
            "samples_csv": str(table),
            "done_now": self.done_now,
            "time_s": {"total": self.wall_s, "busy": self.busy_s},
        }
