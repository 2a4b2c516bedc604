"""Run by an interpreter that has maraboupy: a job as JSON on standard input, one line of JSON per answer on standard output.

    in   {"model": PATH, "lower": [..], "upper": [..], "clauses": [{"A": [[..]], "b": [..]}, ..], "limit": SECONDS or null}
    out  {"version": ..}, then per clause {"clause": i, "word": "sat"|"unsat"|.., "x": [..]}, up to the first sat
         {"error": "one line"} where nothing can be asked

Imports nothing of onnxsub: the other interpreter need not have it. Each clause is a query of its own; the file is read once, and
the rows of the clause before are taken out again.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> int:
    """Answers one job; the exit code is 0 unless nothing could be asked."""
    began = time.perf_counter()
    _die_with_parent()
    # Marabou prints from C++ too, so the answers get a stream of their own
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(document: dict[str, Any]) -> None:
        answers.write(json.dumps(document) + "\n")
        answers.flush()

    # the modules beside this file must not hide others
    here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != here]
    warnings.simplefilter("ignore")
    job = json.load(sys.stdin)
    try:
        import importlib.metadata

        from maraboupy import Marabou

        say({"version": importlib.metadata.version("maraboupy")})
    except ImportError as error:
        say({"error": f"no maraboupy in {sys.executable} ({error}); pip install maraboupy, with Python 3.11"})
        return 3
    network = _network(Marabou, job)
    for number, clause in enumerate(job["clauses"]):
        left = 0
        if job["limit"] is not None:
            left = math.ceil(job["limit"] - (time.perf_counter() - began))
            if left <= 0:
                break
        options = Marabou.createOptions(verbosity=0, timeoutInSeconds=left)
        word, x = _solve(network, clause, options)
        say({"clause": number, "word": word, "x": x})
        if word == "sat":
            break
    return 0


def _die_with_parent() -> None:
    """Asks Linux to end this process when the one that started it was killed: nobody would read the answers."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _network(marabou: Any, job: dict[str, Any]) -> Any:
    """The file, its inputs inside the box."""
    network = marabou.read_onnx(job["model"])
    inputs = network.inputVars[0].reshape(-1).tolist()
    if len(inputs) != len(job["lower"]):
        raise ValueError(f"the file has {len(inputs)} inputs, which is not what was asked about")
    for variable, low, high in zip(inputs, job["lower"], job["upper"], strict=True):
        network.setLowerBound(variable, low)
        network.setUpperBound(variable, high)
    return network


def _solve(network: Any, clause: dict[str, Any], options: Any) -> tuple[str, list[float] | None]:
    """One query; what is called a property in Marabou can be taken out again."""
    outputs = network.outputVars[0].reshape(-1).tolist()
    if any(len(row) != len(outputs) for row in clause["A"]):
        raise ValueError(f"the file has {len(outputs)} outputs, which is not what was asked about")
    network.additionalEquList.clear()
    for row, bound in zip(clause["A"], clause["b"], strict=True):
        used = [j for j, a in enumerate(row) if a != 0]
        network.addInequality([outputs[j] for j in used], [row[j] for j in used], bound, isProperty=True)
    word, values, _ = network.solve(verbose=False, options=options)
    return word, [values[v] for v in network.inputVars[0].reshape(-1).tolist()] if word == "sat" else None


if __name__ == "__main__":
    sys.exit(main())
