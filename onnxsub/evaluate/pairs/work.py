"""The unit of `onnxsub adversarial`: the smallest margin of one sample towards one class."""

from __future__ import annotations

from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.task import Done, Task
from onnxsub.metrics.adversarial import work_pair
from onnxsub.query import Query

__all__ = ["pair"]


def pair(task: Task, query: Query) -> Done:
    """The class is the unit's `method`."""
    s = task.settings
    assert isinstance(s, PairSettings)
    assert task.method is not None
    result, x = work_pair(query, int(task.method), s.eps, s.margin(task.threads))
    if result["interrupted"]:
        raise KeyboardInterrupt  # half an answer must not be booked
    times = result["time_s"]
    facts = {"time_s": {"total": times["total"]}, "stages": times, "shape": query.x0.shape}
    return Done({**result, **facts}, x, query.x0)
