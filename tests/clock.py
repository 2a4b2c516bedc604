"""A clock that goes on by one second at every look, so that a time limit is a number of looks."""

from __future__ import annotations


class Clock:
    """Stands for the module `time` of `onnxsub.budget`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now
