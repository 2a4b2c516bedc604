"""Random questions against what is true: is any answer of any verifier, by any door, wrong?

    python -m benchmarks.differential 10000 [--seed 0] [--timeout 5] [--failures DIR] [--modern]
    python -m benchmarks.differential --replay FILE.json

Networks over the operator table (`random_questions.py`), two of five with a hidden layer times 2^k and the next times 2^-k, k in
-100..100; domains from 2e-3 to 2e6 wide, with and without mean and std. Each is asked 16 times: `bab` and `milp`; a ball by
`verify` and the same ball as a property; radii below, at and above the distance; `distance`; and again with ends of intervals
made infinite at random, where answers may become unknown. What is true comes from `truth.py`: the patterns enumerated where that
is feasible, else sampling in float64, else in float32. Wrong is: `proved` where a real counterexample lies in the ball; a witness
that does not replay or lies outside; a bracket without the distance; `exact` wider than its tolerance. Exit code 1 if there is
one, or a crash.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.common import load_note
from benchmarks.differential_bench import Asked, Bench, Truth, asked_and_graded
from benchmarks.random_questions import Setting, random_setting
from benchmarks.sampling import worst

__all__ = ["run", "store", "stored"]


def store(folder: Path, bench: Bench, q: Asked, why: str) -> Path:
    """Everything that asks the question again, in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    s = bench.setting
    number = len(list(folder.glob(f"{s.seed}-*.json")))
    path = folder / f"{s.seed}-{number}.json"
    data: dict[str, Any] = {
        "why": why,
        "asked": asdict(q),
        "truth": asdict(bench.truth),
        "kind": s.kind,
        "power": s.power,
        "seed": s.seed,
    }
    data |= {"x0": [float(v) for v in s.x0], "domain": [s.lower, s.upper], "mean": s.mean, "std": s.std}
    data |= {"plain": s.plain.SerializeToString().hex(), "model": s.model.SerializeToString().hex()}
    path.write_text(json.dumps(data))
    return path


def stored(path: Path) -> tuple[Bench, Asked]:
    data = json.loads(path.read_text())
    plain, model = (onnx.load_from_string(bytes.fromhex(data[k])) for k in ("plain", "model"))
    x0 = np.array(data["x0"], dtype=np.float32)
    s = Setting(data["seed"], data["kind"], plain, model, data["power"], x0, *data["domain"], data["mean"], data["std"])
    return Bench(s, Truth(**data["truth"])), Asked(**data["asked"])


def run(
    count: int, seed: int, timeout: float, failures: Path | None, *, show: bool = True, loose: bool | None = None,
    modern: bool = False,
) -> Counter[str]:
    """Asks `count` questions and tallies grades, and grades per door and verifier.

    Args:
        loose: only questions with infinite ends (True), only those without (False), both (None).
        modern: networks of today's operators only.
    """
    tally: Counter[str] = Counter()
    began, number = time.perf_counter(), seed * 1_000_000
    while tally["asked"] < count:
        bench = Bench(random_setting(number, modern=modern))
        number += 1
        if bench.query.misclassified or worst(bench.logits(bench.at.fed(bench.at.x0[None])), bench.at.label)[0] >= 0:
            continue
        tally[f"truth by {bench.truth.by}"] += 1
        for q in bench.questions():
            if tally["asked"] == count:
                break
            if loose is not None and loose != (q.loose is not None):
                continue
            grade, why, seconds = asked_and_graded(bench, q, timeout)
            door = q.door if q.loose is None else f"{q.door} loosened"
            tally["asked"] += 1
            tally[grade] += 1
            tally[f"{door}, {q.verifier}: {grade}"] += 1
            tally["milliseconds"] += round(1000 * seconds)
            if grade in ("wrong", "crash"):
                where = "" if failures is None else f" {store(failures, bench, q, why)}"
                s = bench.setting
                head = f"{grade.upper()} {s.seed} {s.kind} 2^{s.power} [{s.lower:g}, {s.upper:g}]"
                print(f"{head} {door} {q.verifier}: {why}{where}", flush=True)
        if show and tally["asked"] // 500 != (tally["asked"] - 16) // 500:
            print(
                f"{tally['asked']} asked, {tally['wrong']} wrong, {tally['crash']} crashes, {time.perf_counter() - began:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=500, help="number of questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds per question")
    parser.add_argument(
        "--failures", type=Path, default=Path("differential-failures"), help="folder for questions answered wrongly"
    )
    parser.add_argument("--modern", action="store_true", help="networks with products, Softmax, normalisations, powers")
    parser.add_argument("--replay", type=Path, help="ask a stored question again")
    parser.add_argument("--eps", type=float, help="with --replay: another radius")
    args = parser.parse_args()
    if args.replay:
        bench, q = stored(args.replay)
        q = q if args.eps is None else replace(q, radius=args.eps)
        print(q, bench.truth, *asked_and_graded(bench, q, args.timeout), sep="\n")
        return 0
    print(load_note())
    tally = run(args.count, args.seed, args.timeout, args.failures, modern=args.modern)
    for key, value in sorted(tally.items()):
        print(f"{key:45} {value}")
    return 1 if tally["wrong"] or tally["crash"] else 0


if __name__ == "__main__":
    sys.exit(main())
