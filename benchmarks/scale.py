"""A run folder with a million units: how soon it begins, how many units a second it books, what kills lose.

    python -m benchmarks.scale [--units 1000000] [--jobs 2] [--kills 2] [--filled SHARE] [--run DIR]

A grid of ten models (copies of one), ten radii and two properties over so many samples that the units are as many as asked for.
It is done by the driver, the ledger and the worker processes of every run; only what a worker does with a unit is a stub
(`benchmarks.scale_stub`). The process of the run is killed with SIGKILL so often, at even distances, and gone on with each time.

Start: seconds from the start of the process until the first unit is handed to a worker: imports, models, samples, the ledger
made, or every unit in it compared with the plan and counted. Rate: units booked from the first one until the last. Lost: units
that were booked before a kill and were done again, results of another unit, units left. Units that had been handed out when a kill
came are begun again: at most those that wait for a worker where units are quick, and the one that it does.

With `--filled` that share of the units is booked by two SQL statements, with the results and checksums that they would have had,
so that start and rate of a large ledger are known within minutes. `--step make|fill|go` does one part of that, on the folder of
`--run`.
"""

from __future__ import annotations

import argparse
import contextlib
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

from benchmarks.common import load_note

ROOT = Path(__file__).parents[1]
MODELS, RADII, PROPS = 10, 10, 2
MOST_START = 10.0
LEAST_RATE = 2000.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--run", help="an empty folder for models, data and run; default: a temporary one")
    parser.add_argument("--filled", type=float, default=0.0)
    parser.add_argument("--step", choices=["make", "fill", "go"])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(Path(args.run), args.jobs)
    print(load_note())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.run or temporary)
        if args.filled:
            for step in [args.step] if args.step else ["make", "fill"]:
                {"make": make, "fill": fill, "go": lambda *_: None}[step](folder, args)
        good = args.step in ("make", "fill") or bar(folder, args)
    print(load_note())
    return 0 if good else 1


def make(folder: Path, args: argparse.Namespace) -> None:
    """The run with all of its units, killed when the first one is under way."""
    make_files(folder, args.units // (MODELS * RADII * PROPS))
    print(f"made: {show(turn_of(folder, args.jobs, 0, args.units))}", flush=True)


def fill(folder: Path, args: argparse.Namespace) -> None:
    """Books the first units as the workers would have."""
    from onnxsub.evaluate.ledger import Ledger
    from onnxsub.evaluate.received import checksum_of
    from onnxsub.evaluate.seals import _STORED

    began = time.perf_counter()
    with Ledger(folder / "run" / "ledger.sqlite") as ledger:
        ledger.seals.bind(checksum_of(folder / "run" / "run.toml"), str)
        with ledger.together():
            ledger._db.execute(
                "UPDATE units SET state = 'done', attempts = 1, seconds = 1e-6, result = json_object('label', 1, 'predicted', 1, "
                "'status', CASE id % 3 WHEN 0 THEN 'proved' WHEN 1 THEN 'violated' ELSE 'undecided' END, "
                "'value', CAST(id AS REAL), 'time_s', json_object('total', 0.0)) WHERE id <= ?",
                (int(args.filled * args.units),),
            )
            ledger._db.execute(f"UPDATE units SET checksum = {_STORED} WHERE state = 'done'")
    print(f"filled {args.filled:.0%} in {time.perf_counter() - began:.1f} s", flush=True)


def bar(folder: Path, args: argparse.Namespace) -> bool:
    """Begins the run, kills it, goes on with it, and looks at what is left."""
    from onnxsub.evaluate.processes import Processes

    jobs, kills = args.jobs, args.kills
    samples = args.units // (MODELS * RADII * PROPS)
    units = samples * MODELS * RADII * PROPS
    if not args.filled:
        make_files(folder, samples)
    first = int(args.filled * units)
    found = []
    for turn in range(kills + 1):
        goal = units if turn == kills else first + (turn + 1) * (units - first) // (kills + 1)
        found.append(turn_of(folder, jobs, goal, units))
        print(f"turn {turn + 1}: {show(found[-1])}", flush=True)
    with contextlib.closing(sqlite3.connect(folder / "run" / "ledger.sqlite")) as db:
        (done,) = db.execute("SELECT COUNT(*) FROM units WHERE state = 'done'").fetchone()
        (again,) = db.execute("SELECT COALESCE(SUM(attempts - 1), 0) FROM units").fetchone()
        (wrong,) = db.execute("SELECT COUNT(*) FROM units WHERE json_extract(result, '$.value') <> id").fetchone()
    size = sum(p.stat().st_size for p in (folder / "run").iterdir()) / 2**20
    rate = min(f["rate"] for f in found)
    start = max(f["start"] for f in found)
    print(f"{done:,} of {units:,} units done, {again:,} begun twice ({kills} kills, {jobs} workers), {wrong:,} results of another")
    print(f"slowest start {start:.1f} s (bar: {MOST_START:g}), slowest rate {rate:,.0f} units/s (bar: {LEAST_RATE:,.0f})")
    print(f"the run folder holds {size:,.0f} MiB")
    handed_out = jobs * (1 + Processes.queue)
    again -= jobs if args.filled else 0  # of the process that made the ledger
    return done == units and again <= kills * handed_out and wrong == 0 and start <= MOST_START and rate >= LEAST_RATE


def make_files(folder: Path, samples: int) -> None:
    """Ten models of one function, and data with labels."""
    import numpy as np
    import onnx

    proto = onnx.load(ROOT / "models" / "digits.onnx")
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(MODELS):
        proto.doc_string = f"copy {k}"
        onnx.save(proto, folder / f"net-{k}.onnx")
    rng = np.random.default_rng(0)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    np.savez(folder / "data.npz", x=rng.random((samples, *shape), dtype=np.float32), y=rng.integers(0, 10, samples))


def turn_of(folder: Path, jobs: int, goal: int, units: int) -> dict[str, Any]:
    """A process that works on the run until so many units are done; it is killed there unless these are all."""
    argv = [sys.executable, "-m", "benchmarks.scale", "--child", "--run", str(folder), "--jobs", str(jobs)]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    begun = time.time()
    process = subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, "ONNXSUB_BEGUN": str(begun)})
    state = folder / "state.json"
    while process.poll() is None:
        time.sleep(1.0)
        if goal < units and state.is_file() and json.loads(state.read_text())["settled"] >= goal:
            process.send_signal(signal.SIGKILL)
    process.wait()
    if goal == units and process.returncode:
        sys.exit(f"the run ended with {process.returncode}")
    found: dict[str, Any] = json.loads(state.read_text())
    state.unlink()
    return found


def show(found: dict[str, Any]) -> str:
    """A turn in words."""
    driver, workers = (1e6 * found[f"{who}_s"] / max(found["done"], 1) for who in ("driver", "workers"))
    ended = f", result tables {found['conclude']:.1f} s" if "conclude" in found else ", killed"
    return (
        f"start {found['start']:.1f} s ({found['start_cpu']:.1f} s of processor), {found['done']:,} units at "
        f"{found['rate']:,.0f}/s, each {driver:.0f} us of processor of the driver and {workers:.0f} us of the workers; at most "
        f"{found['memory']:.0f} MiB{ended}"
    )


def child(folder: Path, jobs: int) -> int:
    """The run, as the command does it, with the stub in the workers."""
    import secrets

    from onnxsub.evaluate.drive import RunOptions
    from onnxsub.evaluate.processes import Processes
    from onnxsub.evaluate.task import Task

    state: dict[str, Any] = {}

    def cpu(who: int) -> float:
        usage = resource.getrusage(who)
        return usage.ru_utime + usage.ru_stime

    class Timed(Processes):
        def submit(self, task: Task, limit: float | None) -> None:
            if not state:
                state.update(start=time.time() - float(os.environ["ONNXSUB_BEGUN"]), start_cpu=cpu(resource.RUSAGE_SELF))
                state.update(done=0, settled=0)
            super().submit(task, limit)

        def close(self) -> None:
            note(state["settled"])
            super().close()
            state["workers_s"] = cpu(resource.RUSAGE_CHILDREN)
            state["closed"] = time.perf_counter()

    def workers_cpu() -> float:
        total = 0.0
        for pid in engine.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def note(settled: int) -> None:
        if "first" not in state:  # workers have begun by now
            state.update(first=settled, began=time.perf_counter(), before=cpu(resource.RUSAGE_SELF))
        state["settled"], state["done"] = settled, settled - state["first"]
        passed = max(time.perf_counter() - state["began"], 1e-9)
        state.update(rate=state["done"] / passed, driver_s=cpu(resource.RUSAGE_SELF) - state["before"], workers_s=workers_cpu())
        state["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    last = [0.0]

    def progress(share: float, text: str) -> None:
        if not state:
            return
        note(int(text.split()[0].replace(",", "")))
        if time.monotonic() - last[0] > 0.5:
            last[0] = time.monotonic()
            write(folder, state)

    engine = Timed(jobs, f"scale-{secrets.token_hex(8)}-", "benchmarks.scale_stub")
    run_grid(folder, RunOptions(jobs=jobs), engine, progress)
    state["conclude"] = time.perf_counter() - state["closed"]
    state["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    write(folder, state)
    return 0


def write(folder: Path, state: dict[str, Any]) -> None:
    """What is known so far, all of it or nothing."""
    part = folder / "state.part"
    part.write_text(json.dumps(state))
    part.replace(folder / "state.json")


def run_grid(folder: Path, options: Any, engine: Any, progress: Any) -> None:
    """Begins the run of a folder, or goes on with it."""
    from onnxsub.evaluate.many.settings import ManySettings
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.robustness.choose import choose
    from onnxsub.evaluate.robustness.run import robustness
    from onnxsub.evaluate.samples import Choice

    radii = tuple(round(0.01 * (k + 1), 2) for k in range(RADII))
    settings = ManySettings(("satisfaction",), ("cr", "scr"), radii, shared={"eta": 0.5})
    samples = choose(settings, folder / "data.npz", Choice())
    plan = Plan.of(tuple(str(folder / f"net-{k}.onnx") for k in range(MODELS)), samples, settings)
    robustness(plan, folder / "run", options, engine=engine, progress=progress)


if __name__ == "__main__":
    sys.exit(main())
