"""The work of a unit for `test_evaluate_lots.py`, in a worker process of its own: what the unit's method says."""

from __future__ import annotations

import os
import time

from onnxsub.evaluate.task import Outcome, Task
from onnxsub.evaluate.worker import main

__all__ = ["work"]


def work(task: Task) -> Outcome:
    """`quick`, `slow` (0.2 s), `stuck` (a minute), `dies` (the process ends), `full` (out of memory)."""
    if task.method == "dies":
        os.write(2, b"the last word\n")
        os._exit(3)
    if task.method == "full":
        return Outcome(task.id, "died", "not enough memory")
    time.sleep({"slow": 0.2, "stuck": 60.0}.get(task.method or "", 0.0))
    return Outcome(task.id, "done", result={"process": os.getpid()}, seconds=1e-6)


if __name__ == "__main__":
    main("tests.lots_stub")
