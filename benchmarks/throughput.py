"""Nodes per second of the distance's tree, operations per node, and the share of the machine's measured matrix speed.

    python -m benchmarks.throughput [--before PATH] [--seconds 20] [--networks mnist_2_50,digits,...] [--python PYTHON]

Steps of trees alone are timed, in seconds of the processor and of the wall clock: what comes before a tree and beside it (attack,
bounds, programs) is not. Operations are those of one backward pass through the layers of the network as it is, twice its
multiplications; a node takes some fifty passes. PATH is a checkout of another version, which runs in turn with this one, each in a
process of its own. The radii that are asked about follow from the clock, so two versions meet different nodes of one network; where
both end, their nodes are those of the same proof.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

_RUNNING: list[object] = []
NETWORKS = ("mnist_2_50:3", "digits:3", "mnist-net_256x2:3", "salman_mnist_cnn_small_NOR:0", "wk17a:0")


def timed(tree: type, method: str, count: str, spent: dict[str, float]) -> None:
    """Adds the time and the nodes of a tree's method to `spent`. A tree within a tree counts its nodes, and no time twice."""
    plain = getattr(tree, method)

    def run(self: object, *args: object, **kwargs: object) -> object:
        before, cpu, wall, outer = getattr(self, count), time.process_time(), time.perf_counter(), not _RUNNING
        _RUNNING.append(self)
        try:
            return plain(self, *args, **kwargs)
        finally:
            _RUNNING.pop()
            spent["nodes"] += getattr(self, count) - before
            spent["steps"] += 1
            if outer:
                spent["cpu"] += time.process_time() - cpu
                spent["wall"] += time.perf_counter() - wall

    setattr(tree, method, run)


def measured(name: str, index: int, seconds: float) -> dict[str, object]:
    """One question in this process: what the steps of its trees took."""
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [p for p in sys.path if p != here]  # its names would hide those of libraries

    import numpy as np
    import torch

    torch.set_num_threads(1)
    from benchmarks.common import DATA, images_for, space_of
    from onnxsub.query import make_query
    from onnxsub.region import InputSpace
    from onnxsub.verifiers.distance import DistanceOptions, distance

    try:
        from onnxsub.verifiers.bab.frontier import Frontier as Tree
        from onnxsub.verifiers.options import Limits

        options = DistanceOptions(limits=Limits(timeout=seconds, threads=1), verifier="bab")
    except ImportError:
        from onnxsub.verifiers.bab.tree import Tree  # type: ignore[import-not-found, no-redef]
        from onnxsub.verifiers.milp.options import MilpOptions  # type: ignore[import-not-found]

        options = DistanceOptions(milp=MilpOptions(timeout=seconds, threads=1), verifier="bab")  # type: ignore[call-arg]
    spent = {"nodes": 0, "cpu": 0.0, "wall": 0.0, "steps": 0}
    timed(Tree, "step", "visited", spent)
    try:
        from onnxsub.verifiers.bab.dense.tree import DenseTree
        from onnxsub.verifiers.bab.wide.tree import WideTree
    except ImportError:
        pass  # the version before has one tree
    else:
        timed(DenseTree, "run", "nodes", spent)
        timed(WideTree, "run", "nodes", spent)
    if name == "digits":
        folder = Path(__file__).resolve().parents[1] / "models"
        with np.load(folder / "digits_anchors.npz") as archive:
            x, y = archive["x"][index], int(archive["y"][index])
        path, space = folder / "digits.onnx", InputSpace()
    else:
        images, labels = images_for(name)
        x, y, path = images[index], int(labels[index]), DATA / "nets" / f"{name}.onnx"
        space = InputSpace(**space_of(name))  # type: ignore[arg-type]
    query = make_query(path, x, y, space=space)
    found = distance(query, options)
    from onnxsub.query import analysis_network

    work = 0
    for op in analysis_network(query.model, space).ops:
        weight = getattr(op, "weight", None)
        if weight is not None:
            each = int(np.prod(weight.shape[1:])) if weight.ndim > 2 else int(weight.shape[-1])
            work += 2 * op.out_size * each
    ratio = found.upper / max(found.lower, 1e-12)
    return {**spent, "status": found.status, "ratio": ratio, "all": found.nodes, "work": work, "speed": speed()}


def speed() -> float:
    """Operations a second of float32 matrix products of a batch by one layer, the best of ten."""
    import torch

    a, b = torch.randn(256, 256), torch.randn(256, 784)
    best = float("inf")
    for _ in range(10):
        began = time.process_time()
        for _ in range(20):
            a @ b
        best = min(best, (time.process_time() - began) / 20)
    return 2 * 256 * 256 * 784 / best


def asked(tree: Path, python: str, words: list[str]) -> dict[str, float]:
    """The same in a process of its own, with the library of a tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-W", "ignore", str(Path(__file__).resolve()), "--child", *words], cwd=tree, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{tree}: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="NAME:INDEX of a test image, separated by commas")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, index, seconds = args.child
        print(json.dumps(measured(name, int(index), float(seconds))))
        return 0
    trees = {"now": Path(__file__).resolve().parents[1]} | ({} if args.before is None else {"before": args.before.resolve()})
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    for question in args.networks.split(","):
        name, index = question.split(":")
        rates = {}
        for label, tree in trees.items():
            r = asked(tree, args.python, [name, index, str(args.seconds)])
            cpu = max(r["cpu"], 1e-9)
            rates[label] = r["nodes"] / cpu
            share = rates[label] * r["work"] / r["speed"]
            clock = r["nodes"] / max(r["wall"], 1e-9)
            words = (
                f"{name:28} {index:>3} {label:6} {rates[label]:8.0f} nodes per CPU second",
                f"({clock:.0f} by the clock, {r['nodes']:.0f} in {r['steps']:.0f} steps),",
                f"{r['work'] / 1e6:.2f} M operations a pass, {share:.2%} of {r['speed'] / 1e9:.0f} G/s for one pass a node;",
                f"{r['status']}, ratio {r['ratio']:.4f}, {r['all']:.0f} nodes",
            )
            print(*words, flush=True)
        if "before" in rates:
            print(f"{name:28} {index:>3} ratio  {rates['now'] / max(rates['before'], 1e-9):8.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
