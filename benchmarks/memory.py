"""Memory of a worker of `evaluate` over many samples: does it grow?

    python -m benchmarks.memory [--samples 200] [--timeout 1] [--verifier bab] [--model mnist-c-adv0.1]

One worker does everything, as `evaluate --jobs 1` does it; its resident memory is read each time that a unit has ended. Growth: the
median over the last twenty samples against that over samples 21 to 40. `most` is the same with the largest value of twenty
in place of the median. Exit code 1 where the growth is above 3 %.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import DATA, load_note, median, table
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.processes import Processes
from onnxsub.evaluate.run import RunOptions, evaluate
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.evaluate.task import Outcome

MODELS = Path(__file__).parents[1] / "models"
MOST = 0.03
PAUSE = 0.1
"""Seconds in which a worker gives back what a unit has left."""


class Measured(Processes):
    """Local processes whose memory is read when a unit has ended: sample -> MB, resident and of it not of files."""

    queue = 0  # one unit at a time

    def __init__(self, run_id: str) -> None:
        super().__init__(1, run_id)
        self.sizes: dict[int, tuple[float, float]] = {}
        self.seen: set[int] = set()

    def wait(self, seconds: float) -> Sequence[Outcome]:
        found = super().wait(seconds)
        for outcome in found:
            time.sleep(PAUSE)
            for pid in self.pids:
                self.seen.add(pid)
                self.sizes[outcome.id] = resident(pid)
        return found


def resident(pid: int) -> tuple[float, float]:
    """Resident memory of a process and what of it is no file's, MB."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["RssAnon"].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds per distance")
    parser.add_argument("--verifier", default="bab")
    parser.add_argument("--model", default="mnist-c-adv0.1", help="a network of models/")
    args = parser.parse_args()
    print(load_note())
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with np.load(DATA / "data" / "mnist.npz") as archive:
            x, y = archive["x_test"][: args.samples], archive["y_test"][: args.samples]
        np.savez(folder / "data.npz", x=(x[:, None] / 255).astype(np.float32), y=y.astype(np.int64))
        samples = read_samples(folder / "data.npz", Choice(), "x", "y")
        settings = Settings(methods=("lin",), gammas=(0.9,), verifiers=(args.verifier,), timeout=args.timeout)
        plan = Plan.of((str(MODELS / f"{args.model}.onnx"),), samples, settings)
        engine = Measured("memory")
        result = evaluate(plan, folder / "run", RunOptions(jobs=1), engine=engine)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"{result.counts}, {time.monotonic() - began:.0f} s, of the worker's processor {cpu:.1f} s, {len(engine.seen)} worker")
    units = sum(result.counts.values())
    by_sample = {(unit - 1) * args.samples // units: size for unit, size in sorted(engine.sizes.items())}
    sizes = [size for _, size in sorted(by_sample.items())]
    parts = [sizes[i : i + 20] for i in range(0, len(sizes), 20)]
    rows = [(20 * i + 1, *(f"{median(column):.0f}" for column in zip(*part, strict=True))) for i, part in enumerate(parts)]
    print(table(("from sample", "resident, MB", "of it not of files, MB"), rows))
    whole = [size for size, _ in sizes]
    growth = median(whole[-20:]) / median(whole[20:40]) - 1
    print(f"growth {100 * growth:.1f} % (most: {100 * (max(whole[-20:]) / max(whole[20:40]) - 1):.1f} %); {load_note()}")
    return 0 if growth <= MOST and len(engine.seen) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
