"""Networks of today's kinds, trained on 8x8 digits: verified accuracy at small radii, and brackets of distances.

    python -m benchmarks.modern_networks FOLDER        (once; needs torch with onnxscript, scikit-learn and skl2onnx)
    python -m benchmarks.modern FOLDER [--images 50] [--eps 0.01 0.03] [--timeout 10] [--brackets 3] [--bracket-timeout 60]

Verified accuracy is the share of the first test images that are classified rightly and proved robust within the radius.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.common import ask_ball, ask_distance, load_note, median, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", nargs="*", help="networks, without .onnx; default: all in the folder")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--eps", type=float, nargs="*", default=[0.01, 0.03])
    parser.add_argument("--timeout", type=float, default=10.0, help="of a decision, seconds")
    parser.add_argument("--brackets", type=int, default=3, help="images whose distance is asked for")
    parser.add_argument("--bracket-timeout", type=float, default=60.0)
    args = parser.parse_args()
    import onnxsub

    digits = np.load(args.folder / "digits.npz")
    rows = []
    for path in sorted(args.folder.glob("*.onnx")):
        if args.names and path.stem not in args.names:
            continue
        model = onnxsub.load(path)
        x = digits["x"].astype(np.float32).reshape(-1, *model.input_shape)
        queries = [onnxsub.make_query(model, x[i], threads=1) for i in range(args.images)]
        right = [q for q, label in zip(queries, digits["y"], strict=False) if q.predicted == int(label)]
        for eps in args.eps:
            statuses: Counter[str] = Counter()
            times = []
            for query in right:
                start = time.perf_counter()
                statuses[ask_ball(query, eps, "bab", args.timeout, threads=1).status] += 1
                times.append(time.perf_counter() - start)
            found = f"{statuses['proved']} of {args.images}, {statuses['violated']} violated, {statuses['unknown']} unknown"
            rows.append((path.stem, f"within {eps:g}", found, f"{median(times):.2f} s"))
            print(*rows[-1], flush=True)
        for i, query in enumerate(right[: args.brackets]):
            start = time.perf_counter()
            answer = ask_distance(query, "bab", args.bracket_timeout, threads=1)
            ends = f"{answer.status} [{answer.lower:.4f}, {answer.upper:.4f}]"
            rows.append((path.stem, f"distance {i}", ends, f"{time.perf_counter() - start:.1f} s"))
            print(*rows[-1], flush=True)
    print(table(("network", "question", "answer", "seconds (median)"), rows))
    print(load_note())
    return 0


if __name__ == "__main__":
    sys.exit(main())
