"""Questions about networks of few inputs with the published verdicts of VNN-COMP 2024: how many are decided, and is any wrong?

    python -m benchmarks.lowdim [--timeout 20] [--threads 1] [--every 1] [--first 0] [--only TEXT]

Bars: >= 140 of 147 decided within 20 s, 0 wrong; the median of ACAS Xu <= 1.5 times nnenum beside the start. Every question
runs in a process of its own, as in the competition: loading the model and importing count.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys

from benchmarks.common import DATA, load_note
from benchmarks.vnncomp import run

__all__ = ["main"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timeout", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="one of so many questions")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--only", default="", help="questions whose network or property holds this text")
    args = parser.parse_args()
    print(load_note())
    with (DATA / "gt" / "vnncomp2024_lowdim.csv").open() as file:
        rows = list(csv.DictReader(file))[args.first :: args.every]
    rows = [r for r in rows if args.only in r["net"] or args.only in r["vnnlib"]]
    right = wrong = 0
    times: dict[str, list[float]] = {}
    for r in rows:
        folder = DATA / "lowdim" / r["family"]
        word, seconds, _, document = run(folder / r["net"], folder / (r["vnnlib"] + ".gz"), "bab", args.timeout, args.threads)
        good, decided = word == r["verdict"], word in ("sat", "unsat")
        right, wrong = right + good, wrong + (decided and not good)
        grade = "right" if good else "WRONG" if decided else "undecided"
        times.setdefault(r["family"], []).append(seconds)
        question = f"{r['net'].removesuffix('.onnx'):34} {r['vnnlib'].removesuffix('.vnnlib'):18}"
        published = f"{r['best_tool']} {float(r['best_time_s']):.1f} s"
        found = f"{r['verdict']:6}{word:8}{grade:10}{seconds:6.1f} s {document.get('nodes', 0):>7} nodes"
        print(f"{question} {found}  {published}", flush=True)
    for family, seconds in times.items():
        print(f"{family}: median {statistics.median(seconds):.2f} s of {len(seconds)}")
    print(f"{right} of {len(rows)} decided as published within {args.timeout:g} s each, {wrong} wrong")
    print(load_note())
    return 0 if not wrong and right >= 0.95 * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
