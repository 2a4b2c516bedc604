"""The full MILP distance on small networks, by every solver and both searches: do they agree?

    python -m benchmarks.small_milp [--anchors 5] [--networks mnist_2_20,mnist_2_50,mnist2x10] [--timeout 300]

Bars: |direct - bisect| <= 1e-4, |HiGHS - SCIP| <= 1e-4, Gurobi likewise where its size limit admits the problem.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.common import DATA, images_for, load_note
from onnxsub.errors import LicenceError, MissingDependencyError
from onnxsub.query import make_query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits, MilpOptions

WAYS = (("highs", "direct"), ("highs", "bisect"), ("scip", "direct"), ("scip", "bisect"), ("gurobi", "direct"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="mnist_2_20,mnist_2_50,mnist2x10")
    parser.add_argument("--anchors", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--indices", default="", help="test images to take instead of the first ones, by commas")
    parser.add_argument("--tol", type=float, default=1e-5)
    parser.add_argument("--ways", default="", help="SOLVER:SEARCH by commas; default: all five")
    args = parser.parse_args()
    print(load_note())
    ways = tuple(tuple(way.split(":")) for way in args.ways.split(",")) if args.ways else WAYS
    worst, open_ones, refused = 0.0, 0, 0
    for name in args.networks.split(","):
        images, labels = images_for(name)
        wanted = [int(i) for i in args.indices.split(",")] if args.indices else range(len(images))
        done = 0
        for index in wanted:
            query = make_query(DATA / "nets" / f"{name}.onnx", images[index], int(labels[index]))
            if query.misclassified:
                continue
            done += 1
            found, texts = [], []
            for solver, search in ways:
                limits = Limits(timeout=args.timeout, tol=args.tol)
                options = DistanceOptions(limits, MilpOptions(solver=solver, search=search), verifier="milp")
                try:
                    result = distance(query, options)
                except (LicenceError, MissingDependencyError) as error:
                    refused += 1
                    texts.append(f"{solver} {search}: {str(error).split(':')[0]}")
                    continue
                open_ones += result.status != "exact"
                found.append(result.upper)
                texts.append(f"{solver} {search}: {result.upper:.7f} {result.status} {result.time_s['total']:.2f} s")
            spread = max(found) - min(found)
            worst = max(worst, spread)
            print(f"{name:12} index {index:3d}  spread {spread:.1e}  " + "; ".join(texts), flush=True)
            if done == args.anchors:
                break
    print(f"largest spread {worst:.1e}; {open_ones} runs not exact; {refused} runs refused by a solver's licence or absence")
    return 0 if worst <= 1e-4 and open_ones == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
