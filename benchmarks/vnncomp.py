"""The open VNN-COMP 2021 instances with a published verdict: how many are decided within a limit, and is any of them wrong?

    python -m benchmarks.vnncomp [--timeout 60] [--verifier bab] [--families mnistfc,marabou,oval,resnet] [--only TEXT] [--unknown]

Bars: >= 65 % decided within 60 s each, 0 wrong; the ResNet within 6 GB. Every instance runs in a process of its own, as in the
competition: loading the model and importing count.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.common import DATA, load_note

FAMILIES = {
    "mnistfc": ("vnncomp2021_mnistfc_256x2", "mnist-net_256x2", "mnistfc21"),
    "marabou": ("vnncomp2021_marabou_small", "cifar10_small", "marabou21"),
    "oval": ("vnncomp2021_oval21_base", "cifar_base_kw", "oval21_2021"),
    "resnet": ("vnncomp2021_resnet_2b", "resnet_2b", "cifar10_resnet21"),
}
_LOST = 3.0  # seconds that importing and reading may take beyond the limit of the search


def instances(family: str, unknown: bool) -> list[tuple[Path, Path, str]]:
    """(model, property, published verdict), those without a verdict only with `unknown`."""
    truth, net, folder = FAMILIES[family]
    with (DATA / "gt" / f"{truth}.csv").open() as file:
        rows = [(Path(r["vnnlib"]).name, r["verdict"]) for r in csv.DictReader(file)]
    model = DATA / "nets" / f"{net}.onnx"
    return [(model, DATA / "vnnlib" / folder / f"{name}.gz", v) for name, v in rows if unknown or v in ("sat", "unsat")]


def run(model: Path, question: Path, verifier: str, timeout: float, threads: int) -> tuple[str, float, float, dict[str, object]]:
    """Word, seconds of the whole process, its peak memory in GB, and what it printed."""
    began = time.perf_counter()
    command = [
        sys.executable, "-m", "onnxsub", "verify", str(model), str(question), "--json", "--quiet", "--verifier", verifier,
        "--timeout", str(timeout), "--threads", str(threads),
    ]  # fmt: skip
    code = "import resource, subprocess, sys; p = subprocess.run(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(p.returncode)"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, env=environment, check=False
    )
    seconds = time.perf_counter() - began
    peak = re.findall(r"\d+", done.stderr or "0")
    try:
        document = json.loads(done.stdout)
    except json.JSONDecodeError:
        return "error", seconds, 0.0, {"reason": (done.stderr or "nothing was printed").strip()[-200:]}
    word = str(document["vnncomp"])
    return word if seconds <= timeout + _LOST else "timeout", seconds, int(peak[-1]) / 2**20, document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--verifier", default="bab")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="instances whose name holds this text")
    parser.add_argument("--unknown", action="store_true", help="also those without a published verdict")
    args = parser.parse_args()
    print(load_note())
    total: Counter[str] = Counter()
    for family in args.families.split(","):
        found: Counter[str] = Counter()
        worst = 0.0
        for model, question, truth in instances(family, args.unknown):
            if args.only not in question.name:
                continue
            word, seconds, peak, document = run(model, question, args.verifier, args.timeout, args.threads)
            decided = word in ("sat", "unsat")
            grade = "open" if truth not in ("sat", "unsat") else "right" if word == truth else "WRONG" if decided else "undecided"
            found[grade if grade != "open" else f"open:{word}"] += 1
            worst = max(worst, peak)
            name = question.name.removesuffix(".vnnlib.gz")
            nodes, reason = document.get("nodes", 0), document.get("reason", "")
            print(
                f"{family:8} {name:52} {truth:8}{word:8}{grade:10}{seconds:7.1f} s {peak:5.2f} GB {nodes:>8} nodes  {reason}",
                flush=True,
            )
        graded = found["right"] + found["WRONG"] + found["undecided"]
        extra = "".join(f", {k} {v}" for k, v in sorted(found.items()) if k.startswith("open:"))
        print(f"{family}: {found['right']} of {graded} decided, {found['WRONG']} wrong, peak {worst:.2f} GB{extra}", flush=True)
        total += found
    graded = total["right"] + total["WRONG"] + total["undecided"]
    share = total["right"] / graded if graded else 0.0
    print(f"all: {total['right']} of {graded} decided ({share:.0%}) within {args.timeout:g} s each, {total['WRONG']} wrong")
    print(load_note())
    return 0 if not total["WRONG"] and share >= 0.65 else 1


if __name__ == "__main__":
    sys.exit(main())
