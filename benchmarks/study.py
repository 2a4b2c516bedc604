"""The study of docs/results.md: distances of substitutes against those of their networks.

    python -m benchmarks.study near --run study          samples near to the boundary, so that most distances are exact
    python -m benchmarks.study refine --run study        the same samples, `lin` with --refine
    python -m benchmarks.study first --run study         the first 20 test images, most originals end as brackets
    python -m benchmarks.study milp --run study          the MILP with and without a substitute on the same samples
    python -m benchmarks.study table --run study         the tables of what is there

Every part goes on where it was stopped. `near` takes every fifth of the 100 rightly classified images with the smallest margin
(largest minus second largest logit) among the first 1000 test images (500 of CIFAR-10). One run folder per network and part, by
`onnxsub evaluate`, whose command is printed. --networks restricts them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq

from benchmarks.common import DATA, images_for, load_note

ROOT = Path(__file__).parents[1]
MODELS = {
    **{f"mnist-c-{t}": ROOT / "models" / f"mnist-c-{t}.onnx" for t in ("clean", "adv0.1", "adv0.3")},
    **{f"cifar10-c-{t}": ROOT / "models" / f"cifar10-c-{t}.onnx" for t in ("clean", "adv2-255", "adv8-255")},
    **{
        name: DATA / "nets" / f"{name}.onnx"
        for name in (
            "wk17a", "kw_mnist_small", "salman_mnist_cnn_small_NOR", "salman_mnist_cnn_small_ADV", "salman_mnist_cnn_small_LPD",
        )
    },
}  # fmt: skip
PARTS = {
    "near": ["--methods", "lin,act,con"],
    "refine": ["--methods", "lin", "--refine"],
    "first": ["--methods", "lin,act,con"],
    "milp": ["--methods", "lin", "--verifier", "milp"],
}


def near(name: str) -> list[int]:
    """Every fifth of the 100 right answers with the smallest margin."""
    images, labels = images_for(name)
    images, labels = images[:1000], labels[:1000]
    session = ort.InferenceSession(MODELS[name])
    feed = session.get_inputs()[0].name
    logits = np.concatenate([session.run(None, {feed: x[None]})[0].reshape(1, -1) for x in images])
    ordered = np.sort(logits, axis=1)
    margin = np.where(logits.argmax(axis=1) == labels, ordered[:, -1] - ordered[:, -2], np.inf)
    return sorted(np.argsort(margin, kind="stable")[:100:5].tolist())


def run(part: str, name: str, args: argparse.Namespace) -> None:
    data = DATA / "data" / ("cifar10.npz" if name.startswith("cifar10") else "mnist.npz")
    chosen = ["--limit", str(args.samples)]
    if part in ("near", "refine"):
        chosen = ["--index", ",".join(map(str, near(name)[: args.samples]))]
    timeout = args.timeout or (30.0 if part == "milp" else 5.0)
    command = [
        sys.executable, "-m", "onnxsub", "evaluate", str(MODELS[name]), "--data", str(data), *chosen, *PARTS[part],
        "--gammas", args.gammas, "--timeout", f"{timeout:g}", "--jobs", str(args.jobs),
        "--run", str(Path(args.run) / f"{part}-{name}"), "--quiet",
    ]  # fmt: skip
    print("$", *command[1:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def of(rows: Sequence[dict[str, object]]) -> str:
    """One line: how many are exact, how far off, what an attack would have given, and how fast."""

    def mean(values: Sequence[float]) -> str:
        return f"{100 * float(np.mean(values)):+.2f} %" if len(values) else "-"

    rows = [r for r in rows if r["status"] != "misclassified" and r["d_bnd_upper"]]
    exact = [r for r in rows if r["status_bnd"] == "exact" and r["status_hat"] == "exact"]
    solved = [r for r in rows if r["status_hat"] == "exact"]
    off = np.array([abs(r["d_hat_upper"] / r["d_bnd_upper"] - 1) for r in exact])  # type: ignore[operator]
    adv = [r["d_adv"] / r["d_bnd_upper"] - 1 for r in exact]  # type: ignore[operator]
    low = [r["d_hat_upper"] / r["d_bnd_upper"] - 1 for r in solved]  # type: ignore[operator]
    held = [r["original_lower"] / r["d_bnd_upper"] for r in rows if r["original_lower"]]  # type: ignore[operator]
    best = [r["original_upper"] / r["d_bnd_upper"] - 1 for r in exact if r["original_upper"]]  # type: ignore[operator]
    times = [(r["time_bnd"], r["time_prune"] + r["time_hat"]) for r in rows if r["time_bnd"] and r["time_hat"]]  # type: ignore[operator]
    speed = sum(a for a, _ in times) / sum(b for _, b in times) if times else float("nan")
    error = f"{100 * off.mean():.2f} % (worst {100 * off.max():.2f} %)" if len(off) else "-"
    return " | ".join(
        [
            f"{len(rows)}", f"{len(exact)}", f"{len(solved)}", error, mean(adv), mean(best), mean(low),
            f"{float(np.mean(held)):.3f}" if held else "-", f"{speed:.1f}",
        ]
    )  # fmt: skip


def tables(args: argparse.Namespace) -> None:
    head = [
        "network", "method", "gamma", "samples", "both exact", "d_hat exact", "error", "attack", "original.upper", "d_hat/best - 1",
        "certified", "speed-up",
    ]  # fmt: skip
    for part in PARTS:
        lines = []
        for name in MODELS:
            file = Path(args.run) / f"{part}-{name}" / "results.parquet"
            if not file.exists():
                continue
            rows = pq.read_table(file).to_pylist()
            for method, gamma in dict.fromkeys((r["method"], r["gamma"]) for r in rows):
                lines.append(
                    f"| {name} | `{method}` | {gamma:g} | {of([r for r in rows if (r['method'], r['gamma']) == (method, gamma)])} |"
                )
        if lines:
            print(f"\n### {part}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}", *lines, sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "table"])
    parser.add_argument("--run", default="study", help="folder of the run folders")
    parser.add_argument("--networks", default=",".join(MODELS))
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--timeout", type=float, help="seconds per distance; default 5, milp 30")
    parser.add_argument("--gammas", default="0.99", help="0.9,0.99 for both; a run folder keeps what it was begun with")
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if args.part == "table":
        tables(args)
        return
    print(load_note())
    for name in args.networks.split(","):
        run(args.part, name, args)


if __name__ == "__main__":
    main()
