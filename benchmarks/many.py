"""The bars of many models at once, by the command itself.

    python -m benchmarks.many killed   [--images 50] [--kills 5] [--jobs 2] [--metric accuracy,security] [--run DIR]
                 twelve MNIST networks, three radii, four properties: a run that is killed with SIGKILL so often, at even distances
                 of its units, and one that nobody disturbs; what they report must be the same to the last digit, times apart
    python -m benchmarks.many security [--images 1000] [--models 20] [--jobs 2] [--run DIR]
                 security of twenty MNIST networks at six radii: wall time of the command, and processor time of it and its workers,
                 which counts where others use the machine too

Verdicts must not depend on the clock, so `killed` has no time limit; `satisfaction` takes `--nodes`.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, load_note

ROOT = Path(__file__).parents[1]
SMALL = (
    "mnist2x10", "mnist_2_20", "mnist_2_50", "mnist_relu_3_50", "lirpa_mnist_fc_3layer", "salman_ADV_MLP_B_0.1",
    "salman_LPD_MLP_B_0.1", "salman_NOR_MLP_B", "salman_mnist_MLP_2_100_ADV", "mnist-net_256x2", "kw_mnist_small", "wk17a",
)  # fmt: skip
MORE = (
    "salman_mnist_cnn_small_NOR", "salman_mnist_cnn_small_ADV", "salman_mnist_cnn_small_LPD", "mnist_relu_6_100", "mnist-net_256x4",
    "lirpa_mnist_cnn_small",
)  # fmt: skip
BUNDLED = ("mnist-c-clean", "mnist-c-adv0.1", "mnist-c-adv0.3")
PROPERTIES = ("--property", "cr,sr,scr,lr", "--delta", "2", "--eta", "0.5", "--lipschitz", "50")
MOST_SECONDS = 600.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bar", choices=["killed", "security"])
    parser.add_argument("--images", type=int, help="default: 50, 1000")
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--metric", default="accuracy,security")
    parser.add_argument("--nodes", type=int, default=20, help="of satisfaction")
    parser.add_argument("--run", help="folder of the runs; default: a temporary one")
    args = parser.parse_args()
    print(load_note(), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.run or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        good = killed(folder, args) if args.bar == "killed" else security(folder, args)
    print(load_note())
    return 0 if good else 1


def models() -> list[str]:
    """Paths of the networks that there are, the small ones first."""
    nets = [DATA / "nets" / f"{name}.onnx" for name in (*SMALL, *MORE)]
    return [str(path) for path in (*nets, *(ROOT / "models" / f"{name}.onnx" for name in BUNDLED)) if path.is_file()]


def start(folder: Path, count: int, images: int, jobs: int, more: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """The command that begins the run or goes on with it."""
    argv = [sys.executable, "-m", "onnxsub", "robustness", *models()[:count], "--data", str(DATA / "data" / "mnist.npz")]
    argv += ["--limit", str(images), "--jobs", str(jobs), "--run", str(folder), "--json", "--quiet", *more]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": path})


def killed(folder: Path, args: argparse.Namespace) -> bool:
    """Both runs, and what differs."""
    metrics = args.metric.split(",")
    more = ("--eps", "0.01,0.03,0.1", "--metric", args.metric, *PROPERTIES)
    more += ("--draws", "50") if "accuracy" in metrics else ()
    more += ("--batch", "10") if "security" in metrics else ()
    more += ("--nodes", str(args.nodes)) if "satisfaction" in metrics else ()
    images = args.images or 50
    calm, part = folder / "calm", folder / "part"
    began = time.perf_counter()
    document = finished(start(calm, 12, images, args.jobs, more))
    units = sum(document["units"].values())
    print(f"undisturbed: {units:,} units, {len(document['blocks'])} figures, {time.perf_counter() - began:.0f} s", flush=True)
    ends = []
    for turn in range(1, args.kills + 1):
        process = start(part, 12, images, args.jobs, more)
        while process.poll() is None and settled(part) < turn * units // (args.kills + 1):
            time.sleep(0.2)
        if process.poll() is not None:
            sys.exit("the run ended before it was killed")
        process.send_signal(signal.SIGKILL)
        process.communicate()
        ends.append(settled(part))
    print(f"killed with {', '.join(f'{n:,}' for n in ends)} units settled", flush=True)
    again = finished(start(part, 12, images, args.jobs, more))
    same = document["blocks"] == again["blocks"] and rows(calm) == rows(part)
    for run in (calm, part):
        report = [sys.executable, "-m", "onnxsub", "report", str(run), "--compare", "wk17a,mnist_2_50", "--group", "depth"]
        subprocess.run([*report, "--quiet"], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    both = [[(run / "report" / name).read_bytes() for name in ("table.csv", "table.md")] for run in (calm, part)]
    pages = both[0] == both[1]
    print(f"{len(document['blocks'])} figures and {len(rows(calm)):,} rows: {'the same' if same else 'NOT THE SAME'}; ", end="")
    print(f"tables of the report: {'the same' if pages else 'NOT THE SAME'}")
    return same and pages and sorted(set(ends)) == ends


def settled(run: Path) -> int:
    """Units that are done or failed."""
    if not (run / "ledger.sqlite").is_file():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{run / 'ledger.sqlite'}?mode=ro", uri=True, timeout=30)) as db:
        try:
            (count,) = db.execute("SELECT COUNT(*) FROM units WHERE state IN ('done', 'failed')").fetchone()
        except sqlite3.OperationalError:  # it is being made
            return 0
    return int(count)


def finished(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The document of a run that went to its end."""
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the run ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out)
    return found


def rows(run: Path) -> list[tuple[str, ...]]:
    """The rows of a run without what depends on the clock."""
    with (run / "samples.csv").open() as file:
        return [tuple(v for k, v in row.items() if not k.startswith("time_")) for row in csv.DictReader(file)]


def security(folder: Path, args: argparse.Namespace) -> bool:
    """Wall and processor time."""
    images = args.images or 1000
    began = time.perf_counter()
    more = ("--eps", "0.01,0.02,0.04,0.06,0.1,0.2", "--metric", "security")
    document = finished(start(folder / "security", args.models, images, args.jobs, more))
    wall = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime
    for block in document["blocks"]:
        if block["eps"] == 0.1:
            e = block["estimate"]
            print(f"  {block['model']}: {e['lower']:.3f} to {e['upper']:.3f} at 0.1, {block['misclassified']} misclassified")
    print(
        f"{len(document['models'])} models, {len(document['blocks'])} figures, {images:,} images: {wall:.0f} s of wall time, "
        f"{cpu:.0f} s of processor, {args.jobs} workers (bar: {MOST_SECONDS:.0f} s on two cores)"
    )
    return min(wall, cpu / args.jobs) <= MOST_SECONDS


if __name__ == "__main__":
    sys.exit(main())
