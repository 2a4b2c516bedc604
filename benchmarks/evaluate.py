"""The bars of `onnxsub evaluate`.

    python -m benchmarks.evaluate kill [--kills 10]      SIGKILL at random moments of a 60-unit run, then to the end
    python -m benchmarks.evaluate ray                    two Ray workers, one of them killed in the middle
    python -m benchmarks.evaluate overhead [--samples 1000] [--timeout 0.5] [--verifier milp]
                                                         mnist_2_50 with two jobs: time beside attack, prune, verify; memory

`kill` and `ray` compare every figure that does not depend on the clock with an undisturbed run, to the last bit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import DATA, load_note, median

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bar", choices=["kill", "ray", "overhead"])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--timeout", type=float, default=0.5, help="seconds per distance")
    parser.add_argument("--verifier", default="milp")
    parser.add_argument("--run", help="folder of the run of overhead; default: a temporary one")
    args = parser.parse_args()
    print(load_note())
    with tempfile.TemporaryDirectory() as folder:
        if args.bar == "kill":
            return kill(Path(folder), args.kills)
        if args.bar == "ray":
            return subprocess.call([sys.executable, "-m", "pytest", "-q", "-rs", "tests/test_evaluate_ray.py"], cwd=ROOT)
        return overhead(Path(args.run or folder) / "run", args.samples, args.timeout, args.verifier)


def kill(folder: Path, kills: int) -> int:
    from tests.evaluate.test_kills import kill_and_finish
    from tests.evaluate_tools import UNITS, command, facts, make_files

    files = make_files(folder)
    subprocess.run(command(*files, folder / "undisturbed"), check=True, capture_output=True, cwd=ROOT)
    booked = kill_and_finish(folder / "killed", files, folder / "undisturbed", kills)
    same = facts(folder / "killed") == facts(folder / "undisturbed")
    lost, double = UNITS - len(set(booked)), len(booked) - len(set(booked))
    print(f"{kills} kills, {UNITS} units: {lost} lost, {double} double, results the same: {same}")
    return 0 if same and not lost and not double else 1


def overhead(run: Path, samples: int, timeout: float, verifier: str) -> int:
    from onnxsub.evaluate.ledger import Ledger
    from onnxsub.evaluate.lock import MARK
    from onnxsub.evaluate.run import LEDGER
    from onnxsub.family import members
    from tests.evaluate_tools import begun

    model, data = str(DATA / "nets" / "mnist_2_50.onnx"), str(DATA / "data" / "mnist.npz")
    argv = [sys.executable, "-m", "onnxsub", "evaluate", model, "--data", data, "--limit", str(samples), "--methods", "lin"]
    argv += ["--gammas", "0.9", "--timeout", str(timeout), "--verifier", verifier]
    argv += ["--jobs", "2", "--run", str(run), "--json"]
    parent: list[float] = []
    workers: list[float] = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        mark = ""
        while process.poll() is None:
            time.sleep(2.0)
            if not mark and begun(run):
                with Ledger(run / LEDGER, readonly=True) as ledger:
                    mark = f"{MARK}={ledger.run_id}"
            if mark:
                parent.append(resident([process.pid]))
                workers.append(resident(members(mark)))
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
    share = document["time_s"]["overhead"]
    print(f"{samples} samples, {document['units']}, {document['time_s']['total']:.0f} s: overhead {100 * share:.2f} %")
    for name, sizes in (("parent", parent), ("workers together", workers)):
        quarter = max(len(sizes) // 4, 1)
        before, after = median(sizes[quarter : 2 * quarter]), median(sizes[-quarter:])
        print(f"memory of {name}: median {before:.0f} MB in the second quarter, {after:.0f} MB in the last")
    print(load_note())
    return 0 if share <= 0.05 else 1


def resident(pids: list[int]) -> float:
    """Resident memory in MB."""
    total = 0.0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    return total


if __name__ == "__main__":
    sys.exit(main())
