"""Windows (MaxPool, Max, ReduceMax) in searches: distances by 99 % substitutes of real exports, and random networks against `milp`.

    python -m benchmarks.windows distances MODEL.onnx ANCHOR.npy [ANCHOR.npy ...] [--timeout 60]
    python -m benchmarks.windows random 300 [--seed 0] [--timeout 5] [--hidden]
    python -m benchmarks.windows elements 300 [--seed 0] [--weak] [--hidden]

`random` asks every network for its distance and for two balls, one on either side of it, of `bab` (with linear programs, and by its
tree alone) and of `milp`; `--hidden`: networks with layers that read windows beside the input. `elements` asks networks of one
layer of windows of the tree over their elements by itself (`bab/pieces/`) and of `milp`; `--weak`: with hardly any steps per bound,
so that trees are large. Exit code 1 where two answers contradict each other.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.common import load_note
from onnxsub.anchors import read_anchor
from onnxsub.model import load_model
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.bab.pieces import tree
from onnxsub.verifiers.bab.pieces.bound import Pace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import BabOptions, Limits
from tests.verifiers.maxima_tools import by_trees
from tests.verifiers.nets import anchor, balanced, decided, logits, measured
from tests.verifiers.windowed import hidden_relus, one_layer, random_windowed, tied_windows

_TOL = 1e-6


def distances(path: Path, anchors: list[Path], timeout: float) -> int:
    """One line per anchor: what the substitute keeps, its distance, nodes, seconds of the search and of everything."""
    model = load_model(path)
    for file in anchors:
        began = time.perf_counter()
        x0 = read_anchor(file, model.input_shape, domain=(0.0, 1.0))
        query = make_query(model, x0, None, space=InputSpace(), threads=1)
        via = PruneOptions(method="lin", select=SelectOptions(gamma=0.99))
        found = distance(query, DistanceOptions(limits=Limits(timeout=timeout, threads=1), via=via))
        kept = None if found.substitute is None else found.substitute["kept_per_layer"]
        print(
            f"{path.stem} {file.stem}: kept {kept}, {found.status} [{found.lower:.6g}, {found.upper:.6g}], {found.nodes} nodes, "
            f"search {found.time_s.get('verify', 0.0):.1f} s, {time.perf_counter() - began:.1f} s in all",
            flush=True,
        )
    return 0


def contradictions(seed: int, timeout: float, counts: Counter[str], *, hidden: bool = False) -> list[str]:
    """What the engines say of one network that cannot all be true."""
    if hidden:
        network, x0, label = hidden_relus(seed)
    else:
        network = balanced(random_windowed(seed))
        x0, label = anchor(network, seed)
    settings = {"threads": 1, "timeout": timeout, "replay": logits(network)}
    ways = {"milp": ("milp", BabOptions()), "bab": ("bab", BabOptions()), "tree": ("bab", BabOptions(dive=0, leaf=0))}
    answers = {
        name: measured(network, x0, label, verifier=engine, bab=bab, tol=_TOL, **settings)  # type: ignore[arg-type]
        for name, (engine, bab) in ways.items()
    }
    counts.update(f"distance by {name}: {a.status}" for name, a in answers.items())
    lower, upper = max(a.lower for a in answers.values()), min(a.upper for a in answers.values())
    wrong = [f"{seed}: {[(n, a.lower, a.upper) for n, a in answers.items()]}"] if lower > upper + 2 * _TOL else []
    true = answers["milp"]
    for share in (0.98, 1.02):
        radius = share * true.upper
        if true.status != "exact" or radius > 1:
            continue
        for name, (engine, bab) in ways.items():
            said = decided(network, x0, label, radius, verifier=engine, bab=bab, **settings).status  # type: ignore[arg-type]
            counts[f"ball by {name}: {said}"] += 1
            if said == ("violated" if share < 1 else "proved"):
                wrong.append(f"{seed}: {name} says {said} at {share} of the distance")
    return wrong


def wrong_elements(seed: int, timeout: float, counts: Counter[str], *, hidden: bool = False) -> list[str]:
    """What the tree over elements and the MILP say of one network that cannot both be true; without units that read others the
    tree must settle it."""
    if hidden:
        network, x0, label = hidden_relus(seed)
    elif seed % 2:
        network, x0, label = tied_windows(seed)
    else:
        network = balanced(one_layer(seed))
        x0, label = anchor(network, seed)
    true = measured(network, x0, label, verifier="milp", threads=1, timeout=timeout, tol=_TOL, replay=logits(network))
    if true.status != "exact" or true.upper > 0.9:
        counts[f"left out: {true.status}"] += 1
        return []
    found = by_trees(network, x0, label, 1.01 * true.upper, _TOL)
    if found is None:
        counts["settled by bounds, or no windows left"] += 1
        return []
    bracket, nodes = found
    counts["compared"] += 1
    counts["nodes"] += nodes
    if hidden:
        settled = bracket.lower >= true.upper - 4 * _TOL
        counts["settled" if settled else "left open"] += 1
        agree = bracket.upper >= true.lower - 4 * _TOL and bracket.lower <= true.upper + 4 * _TOL
    else:
        agree = abs(bracket.upper - true.upper) <= 4 * _TOL and abs(bracket.lower - true.upper) <= 4 * _TOL
    return [] if agree else [f"{seed}: [{bracket.lower}, {bracket.upper}], milp [{true.lower}, {true.upper}]"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    one = kinds.add_parser("distances")
    one.add_argument("model", type=Path)
    one.add_argument("anchors", type=Path, nargs="+")
    one.add_argument("--timeout", type=float, default=60.0)
    many = kinds.add_parser("random")
    many.add_argument("count", type=int)
    many.add_argument("--seed", type=int, default=0)
    many.add_argument("--timeout", type=float, default=5.0)
    many.add_argument("--hidden", action="store_true")
    elements = kinds.add_parser("elements")
    elements.add_argument("count", type=int)
    elements.add_argument("--seed", type=int, default=0)
    elements.add_argument("--timeout", type=float, default=5.0)
    elements.add_argument("--weak", action="store_true")
    elements.add_argument("--hidden", action="store_true")
    args = parser.parse_args()
    if args.kind == "distances":
        code = distances(args.model, args.anchors, args.timeout)
    else:
        counts: Counter[str] = Counter()
        wrong = []
        if args.kind == "elements":
            tree._FEW = 0
        if args.kind == "elements" and args.weak:
            tree._ROOT, tree._CHILD = Pace(4, 0.05, 0.02, 2e-3), Pace(2, 0.03, 0.1, 7e-4)
        for seed in range(args.seed, args.seed + args.count):
            ask = contradictions if args.kind == "random" else wrong_elements
            wrong += ask(seed, args.timeout, counts, hidden=args.hidden)
            if (seed - args.seed) % 25 == 24:
                print(f"{seed - args.seed + 1} networks, {len(wrong)} contradictions, {dict(counts)}", file=sys.stderr, flush=True)
        print(*(f"{name}: {n}" for name, n in sorted(counts.items())), *wrong, sep="\n")
        print(f"{args.count} networks, {len(wrong)} contradictions")
        code = 1 if wrong else 0
    print(load_note())
    return code


if __name__ == "__main__":
    np.seterr(all="ignore")
    sys.exit(main())
