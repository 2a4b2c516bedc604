"""`make fuzz`: malformed inputs for hours. `python -m tests.fuzz [--hours H] [--seed N] [--kinds onnx,npy,...] [--keep FOLDER]`

Inputs are read in processes of fifty seeds each, so that one that hangs or takes all memory is found. What was not met as it should
be is printed, with its kind and seed, and its folder is kept; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.inputs import KINDS

ROOT = Path(__file__).parents[2]
_BATCH = 50
_SECONDS = 10.0
"""That an input may take; a process of fifty seeds is ended after fifty times as much."""


def batch(kinds: str, first: int, count: int, folder: Path) -> tuple[list[dict[str, object]], str]:
    """Meets so many seeds of each kind in a process of its own; what it said of each, and why it broke off, if it did."""
    folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-m", "tests.fuzz.worker", kinds, str(first), str(count), str(folder)]
    wanted = count * len(kinds.split(","))
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60 + _SECONDS * wanted,
            preexec_fn=_limit_memory,
        )  # fmt: skip
        text, end = done.stdout, "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-600:]}"
    except subprocess.TimeoutExpired as late:
        text, end = (late.stdout or b"").decode(), "it never ended"
    rows = [json.loads(line) for line in text.splitlines()]
    if not end and len(rows) != wanted:
        end = f"{len(rows)} of {wanted} inputs were met"
    return rows, end


def _limit_memory() -> None:
    """Addresses, of which libraries take many that they never use: the worker itself looks at what is used."""
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))


def main() -> int:
    """Until the hours are over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="the first; default: by the clock, so that every run meets others")
    parser.add_argument("--count", type=int, default=None, help="seeds of each kind; default: until the hours are over")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--keep", default=None, help="folder of what is not met as it should be; default: a temporary one")
    given = parser.parse_args()
    keep = Path(given.keep or tempfile.mkdtemp(prefix="fuzz-"))
    first = int(time.time()) if given.seed is None else given.seed
    began, met, codes, wrong, at, slowest, largest = time.monotonic(), 0, Counter[int](), 0, first, 0.0, 0.0
    while time.monotonic() - began < 3600 * given.hours and (given.count is None or at < first + given.count):
        size = _BATCH if given.count is None else min(_BATCH, first + given.count - at)
        for kind in given.kinds.split(","):
            rows, end = batch(kind, at, size, keep)
            for row in rows:
                met += 1
                codes.update(row["codes"])
                slowest, largest = max(slowest, *row["seconds"]), max(largest, row["peak"])
                if row["wrong"]:
                    wrong += 1
                    print(f"{row['kind']} {row['seed']}: {'; '.join(row['wrong'])}  ({keep})", flush=True)
            if end:
                wrong += 1
                print(f"{kind} {at + len(rows)} or later: {end}", flush=True)
        at += size
        said = ", ".join(f"{n:,} times exit code {code}" for code, n in sorted(codes.items()))
        print(f"{met:,} inputs, {wrong} not as they should be; {said}; at most {slowest:.1f} s, {largest:.2f} GB", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
