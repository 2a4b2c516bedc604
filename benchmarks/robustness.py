"""The bars of `onnxsub robustness` against open ground truth, by the command itself.

    python -m benchmarks.robustness wk17a  [--limit 250] [--timeout 60] [--jobs 2]
                      CR satisfaction at radius 0.1 on the first MNIST test images, image by image against MIPVerify's verdicts
    python -m benchmarks.robustness salman [--limit 1000] [--every 1] [--timeout 60] [--jobs 2]
                      adversarial error of the networks whose published value is exact (lower end = upper end), on the first
                      test images, or on every K-th; published over all 10,000

The data hold the first 5,000 test images, which are no random half: networks err on them more often than on the others. So the
clean error of the same images stands beside its published value; where these differ, so must the adversarial errors.
Adversarial error: share of images that are misclassified or have another class within the radius. `--run DIR` keeps the run
folder; the same command then goes on with it.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, load_note
from onnxsub.metrics.intervals import clopper_pearson

ROOT = Path(__file__).parents[1]
MOST_UNDECIDED = 0.01
MOST_SECONDS = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bar", choices=["wk17a", "salman"])
    parser.add_argument("--limit", type=int, help="images; default: 250, 1000")
    parser.add_argument("--every", type=int, default=1, help="every K-th image, of salman")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds per image")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--run", help="folder of the runs; default: a temporary one")
    args = parser.parse_args()
    print(load_note())
    with tempfile.TemporaryDirectory() as folder:
        run = Path(args.run or folder)
        run.mkdir(parents=True, exist_ok=True)
        options = ["--timeout", str(args.timeout), "--jobs", str(args.jobs)]
        good = wk17a(run, args.limit, options) if args.bar == "wk17a" else salman(run, args.limit, args.every, options)
    print(load_note())
    return 0 if good else 1


def robustness(network: str, eps: float, run: Path, more: list[str]) -> dict[str, Any]:
    """The document of a run, with the positions of the images behind each count."""
    argv = [sys.executable, "-m", "onnxsub", "robustness", str(DATA / "nets" / f"{network}.onnx")]
    argv += ["--data", str(DATA / "data" / "mnist.npz"), "--eps", str(eps), "--run", str(run), "--json", "-v", *more]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def wk17a(folder: Path, limit: int | None, options: list[str]) -> bool:
    """Every decided image against the published verdict."""
    count = limit or 250
    d = robustness("wk17a", 0.1, folder / "wk17a", ["--limit", str(count), *options])
    with (DATA / "gt" / "wk17a_linf0.1_mipverify_idx0_249.csv").open() as file:
        truth = {int(r["test_index"]): r["verdict"] for r in csv.DictReader(file)}
    said = {"proved": "unsat", "violated": "sat", "misclassified": "misclassified"}
    wrong = [(i, name, truth[i]) for name, word in said.items() for i in d["index"][name] if i in truth and truth[i] != word]
    compared = sum(i in truth for name in said for i in d["index"][name])
    seconds = d["time_s"]["total"]
    print(show("wk17a", d))
    print(f"{compared} decided images against the ground truth: {len(wrong)} differ {wrong or ''}")
    print(f"undecided {d['undecided']} of {count} (bar: 1 %), {seconds:.0f} s in all (bar: {MOST_SECONDS:.0f} s for 250)")
    return not wrong and d["undecided"] <= MOST_UNDECIDED * count and seconds <= MOST_SECONDS


def salman(folder: Path, limit: int | None, every: int, options: list[str]) -> bool:
    """The interval of each network's adversarial error against the published value."""
    count = limit or 1000
    good = True
    with (DATA / "gt" / "salman_table1_adv_error.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["adv_error_lower_MILP_pct"] == r["adv_error_upper_MILP_pct"]]
    for row in rows:
        name, eps, published = row["network"].removesuffix(".onnx"), float(row["eps_linf"]), float(row["adv_error_lower_MILP_pct"])
        chosen = ["--every", str(every), "--limit", str(count)]
        d = robustness(name, eps, folder / f"{name}-{eps:g}-{every}", [*chosen, *options])
        low, high = (100 * (1 - d["interval"][end]) for end in ("upper", "lower"))
        error = 100 * (d["violated"] + d["misclassified"]) / d["samples"]
        inside = low <= published <= high
        print(show(name, d))
        clean, known = clopper_pearson(d["misclassified"], d["samples"], 0.95), float(row["test_error_pct"])
        print(
            f"clean error {100 * d['misclassified'] / d['samples']:.2f} %, interval {100 * clean.lower:.2f} % to "
            f"{100 * clean.upper:.2f} %, published {known:.2f} % over 10,000 images"
        )
        print(
            f"adversarial error at {eps:g}: {error:.2f} %, interval {low:.2f} % to {high:.2f} %, published {published:.2f} % "
            f"over 10,000 images: {'inside' if inside else 'OUTSIDE'}; undecided {d['undecided']}; {d['time_s']['total']:.0f} s"
        )
        good = good and inside and d["undecided"] == 0
    return good


def show(name: str, d: dict[str, Any]) -> str:
    counts = ", ".join(f"{d[k]} {k}" for k in ("proved", "violated", "undecided", "misclassified"))
    estimate = d["estimate"]
    return f"{name}: {d['samples']} images, {counts}; satisfaction {estimate['lower']:.4f} to {estimate['upper']:.4f}"


if __name__ == "__main__":
    sys.exit(main())
