"""Marabou by way of maraboupy, which has wheels for Python 3.11 only and therefore may live in another interpreter.

The interpreter: `--verifier marabou:PYTHON`, else the environment variable ONNXSUB_MARABOU_PYTHON, else this one.

One query per clause, in order, until one is `sat` (Marabou's disjunctions are slower and were not needed). The answers are printed
one by one, so that what was refuted before the limit is kept.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.errors import MissingDependencyError
from onnxsub.files import one_line
from onnxsub.isolation import python_environment
from onnxsub.verifiers.external.process import Finished, run_child
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Claim, Job

__all__ = ["VARIABLE", "Marabou", "from_detail"]

VARIABLE = "ONNXSUB_MARABOU_PYTHON"
_WORKER = Path(__file__).with_name("marabou_worker.py")
_WORDS = {"sat": SAT, "unsat": UNSAT}


@dataclass(frozen=True)
class Marabou:
    """Marabou in a process of its own.

    Attributes:
        python: an interpreter that has maraboupy; empty: the environment variable, else this one.

    Raises:
        MissingDependencyError: no interpreter is named, and this one has no maraboupy.
    """

    python: str = ""

    def __post_init__(self) -> None:
        python = self.python or os.environ.get(VARIABLE, "")
        if not python:
            if importlib.util.find_spec("maraboupy") is None:
                raise MissingDependencyError(
                    "maraboupy is not installed; run `pip install maraboupy==2.0.0` with Python 3.11, and where that is another "
                    f"interpreter name it: --verifier marabou:PYTHON, or the environment variable {VARIABLE}"
                )
            python = sys.executable
        object.__setattr__(self, "python", python)

    @property
    def name(self) -> str:
        return "marabou"

    @property
    def reader(self) -> str:
        return "marabou"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"tool": self.name, "python": self.python}

    def ask(self, job: Job) -> Claim:
        """One process for all clauses of the question."""
        (case,) = job.question.cases
        document = {
            "model": str(job.path),
            "lower": case.lower.tolist(),
            "upper": case.upper.tolist(),
            "clauses": [{"A": c.A.tolist(), "b": c.b.tolist()} for c in case.clauses],
            "limit": job.limit,
        }
        try:
            done = run_child(
                [self.python, str(_WORKER)], cwd=job.folder, stdin=json.dumps(document).encode(), limit=job.limit,
                env=python_environment(),
            )  # fmt: skip
        except OSError as error:
            return Claim.nothing(job, f"marabou: {self.python!r} cannot be started ({error.strerror or one_line(error)})")
        return _read(job, done)


def from_detail(detail: str) -> Marabou:
    """The tool for `--verifier marabou` and `--verifier marabou:PYTHON`."""
    return Marabou(detail)


def _read(job: Job, done: Finished) -> Claim:
    """The worker's lines as a claim. One line that cannot be understood makes all of them worthless."""
    total, inputs = job.question.clauses, job.question.inputs
    words = [UNKNOWN] * total
    name, point, odd = "marabou", None, ""
    lines = done.stdout.decode(errors="replace").split("\n")
    for line in lines[:-1]:  # what stands behind the last line break was cut off by the end of the process
        try:
            said = json.loads(line)
            if "error" in said:
                return Claim.nothing(job, f"marabou: {one_line(said['error'])}", done.seconds)
            if "version" in said:
                name = f"marabou {said['version']}"
                continue
            number, word = int(said["clause"]), str(said["word"])
            if not 0 <= number < total:
                raise ValueError("no such clause")
            words[number] = _WORDS.get(word, UNKNOWN)
            if word == SAT:
                point = np.asarray(said["x"], dtype=np.float64)
                if point.shape != (inputs,) or not np.isfinite(point).all():
                    raise ValueError("no such point")
            elif word != UNSAT:
                odd = word
        except (ValueError, KeyError, TypeError):
            return Claim.nothing(job, f"{name}: it printed what is no answer ({one_line(line, 80)!r})", done.seconds)
    clauses = tuple(words)
    if point is not None:
        return Claim(SAT, f"{name} says sat", clauses, point, done.seconds)
    if all(w == UNSAT for w in words):
        return Claim(UNSAT, f"{name} says unsat for each of {total} clauses", clauses, None, done.seconds)
    if done.timed_out:
        limit = math.nan if job.limit is None else job.limit
        why = f"killed at its limit of {limit:.3g} s"
    elif done.code != 0:
        why = f"ended with code {done.code} ({done.last_words})"
    else:
        why = f"says {odd}" if odd else "ended before its answer"
    left = words.count(UNKNOWN)
    return Claim(UNKNOWN, f"{name}: {why}, {left} of {total} clauses open", clauses, None, done.seconds)
