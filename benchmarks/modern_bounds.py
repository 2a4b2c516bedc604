"""Today's operators in random graphs: do values equal onnxruntime's, and does every bound hold at samples?

    python -m benchmarks.modern_bounds 10000 [--seed 0]

One graph per seed (`tests/random_modern.py`), a box of a random size round a random point, intervals and linear bounds of every
non-linear operator's input and of the logits, at 60 points and 60 corners. Stops at the first violation with its seed.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.common import load_note
from tests.propagate.test_modern import check


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began, elements = time.perf_counter(), 0
    for k in range(args.count):
        seed = args.seed + k
        try:
            elements += check(seed, ("ibp", "crown") if seed % 4 else ("ibp", "fastlin", "fastlin-ibp", "crown"), 60)
        except AssertionError as error:
            print(f"seed {seed}: {error}")
            return 1
    print(f"{args.count} graphs, {elements} intervals, 0 violations, {time.perf_counter() - began:.0f} s")
    print(load_note())
    return 0


if __name__ == "__main__":
    sys.exit(main())
