"""The bars of `onnxsub gate`, by the command itself, on `models/digits.onnx` and a copy that was fine-tuned without care.

    python -m benchmarks.gate careless [--limit 200] [--eps 0.06]
                      the copy fails; each sample that is named lost is looked at again: its witness is replayed by onnxruntime on
                      the file, and the baseline is proved there by another engine (`milp`, HiGHS)
    python -m benchmarks.gate itself [--limit 200] [--eps 0.06]
                      the released network against itself passes with --max-drop 0; a second gate computes nothing
    python -m benchmarks.gate loads [--limit 30] [--eps 0.1] [--nodes 100] [--busy 3]
                      the same gate alone and beside so many busy processes: the same verdict, reason and distance of every sample
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import load_note
from tests.gate.files import RELEASED, careless_copy, images_file

ROOT = Path(__file__).parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bar", choices=["careless", "itself", "loads"])
    parser.add_argument("--limit", type=int, help="samples; default 200, of loads 30")
    parser.add_argument("--eps", type=float, help="radius; default 0.06, of loads 0.1")
    parser.add_argument("--nodes", type=int, help="per sample; default 2000, of loads 100")
    parser.add_argument("--busy", type=int, default=3, help="of loads: busy processes beside the second gate")
    args = parser.parse_args()
    loads = args.bar == "loads"
    options = ["--limit", str(args.limit or (30 if loads else 200)), "--eps", str(args.eps or (0.1 if loads else 0.06))]
    options += ["--nodes", str(args.nodes or (100 if loads else 2000))]
    print(load_note())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        careless_copy(folder / "careless.onnx")
        images_file(folder / "digits.npz")
        good = {"careless": careless, "itself": itself, "loads": loaded}[args.bar](folder, options, args)
    print(load_note())
    return 0 if good else 1


def gate(folder: Path, new: Path, cache: str, options: list[str]) -> tuple[int, dict[str, Any]]:
    """Exit code and document."""
    argv = [sys.executable, "-m", "onnxsub", "gate", str(new), "--baseline", str(RELEASED), "--data", str(folder / "digits.npz")]
    argv += ["--cache", str(folder / cache), "--json", "--quiet", *options]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    document: dict[str, Any] = json.loads(done.stdout)
    print(f"exit {done.returncode} in {document['time_s']['total']:.0f} s: {document['headline']}")
    print(f"  lost {[p['sample'] for p in document['lost']]}, won {[p['sample'] for p in document['won']]}")
    return done.returncode, document


def careless(folder: Path, options: list[str], args: argparse.Namespace) -> bool:
    from onnxruntime import InferenceSession

    import onnxsub
    from onnxsub.evaluate.drive import LEDGER
    from onnxsub.evaluate.ledger import Ledger
    from onnxsub.verifiers.options import Limits

    code, found = gate(folder, folder / "careless.onnx", "cache", options)
    print(f"  p = {found['comparison']['most']['p_value']:.2g}, interval {found['comparison']['interval']}")
    eps = found["settings"]["eps"]
    with np.load(folder / "digits.npz") as archive:
        x, y = archive["x_test"], archive["y_test"]
    with Ledger(Path(found["new"]["run"]) / LEDGER, readonly=True) as ledger:
        points = {unit.sample: ledger.result(unit.id)[1] for unit in list(ledger.units()) if unit.state == "done"}
    session = InferenceSession(str(folder / "careless.onnx"))
    wrong = []
    for pair in found["lost"]:
        i = pair["sample"]
        point = x[i] if pair["verdict"] == "misclassified" else points[i].reshape(x[i].shape)
        near = np.abs(point.astype(np.float64) - x[i]).max() <= eps + 1e-9
        other = session.run(None, {"image": point[None]})[0].argmax() != y[i]
        limits = onnxsub.VerifyOptions(limits=Limits(timeout=120.0), verifier="milp")
        old = onnxsub.verify(onnxsub.make_query(RELEASED, x[i], int(y[i]), threads=1), eps, limits)
        if not (near and other and old.status == "proved"):
            wrong.append((i, bool(near), bool(other), old.status))
    print(f"  {len(found['lost'])} lost samples looked at again, {len(wrong)} not confirmed {wrong or ''}")
    return code == 1 and bool(found["lost"]) and not wrong


def itself(folder: Path, options: list[str], args: argparse.Namespace) -> bool:
    first, _ = gate(folder, RELEASED, "cache", [*options, "--max-drop", "0"])
    second, again = gate(folder, RELEASED, "cache", [*options, "--max-drop", "0"])
    print(f"  computed by the second gate: {again['baseline']['computed']} and {again['new']['computed']} samples")
    return first == second == 0 and again["baseline"]["computed"] == again["new"]["computed"] == 0


def loaded(folder: Path, options: list[str], args: argparse.Namespace) -> bool:
    results = []
    for busy in (0, args.busy):
        with_others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(busy)]
        for process in with_others:
            process.start()
        try:
            start = time.perf_counter()
            code, document = gate(folder, folder / "careless.onnx", f"cache-{busy}", options)
        finally:
            for process in with_others:
                process.kill()
                process.join()
        print(f"  beside {busy} busy processes: {time.perf_counter() - start:.0f} s, {counted(document)}")
        results.append((code, document["headline"], [verdicts(Path(document[m]["run"])) for m in ("baseline", "new")]))
    same = results[0] == results[1]
    print(f"  verdict, reason and distance of every sample: {'the same' if same else 'DIFFERENT'}")
    return same


def counted(document: dict[str, Any]) -> str:
    names, old, new = ("proved", "violated", "undecided"), document["baseline"], document["new"]
    return ", ".join(f"{name} {old[name]} and {new[name]}" for name in names)


def verdicts(run: Path) -> list[tuple[Any, ...]]:
    """What the run says of each sample."""
    from onnxsub.evaluate.drive import LEDGER
    from onnxsub.evaluate.ledger import Ledger
    from onnxsub.evaluate.robustness.row import sample_rows

    with Ledger(run / LEDGER, readonly=True) as ledger:
        return [(r.index, r.status, r.reason, r.distance) for r in sample_rows(ledger)]


def spin() -> None:
    while True:
        sum(i * i for i in range(10_000))


if __name__ == "__main__":
    sys.exit(main())
