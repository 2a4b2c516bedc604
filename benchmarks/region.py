"""The linear-region program against the exact distance, and its time on convolutions.

    python -m benchmarks.region                                     mnist_2_50, first 50 test images that are classified rightly
    python -m benchmarks.region --network wk17a --anchors 20 --no-exact

`ratio` is the region's distance divided by the proved lower end of the exact one (branch and bound; both ends agree where it is
`exact`). The bar: never below 1; the share of anchors within 5 % is reported, and what it is at most where time limits left
brackets.
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import numpy as np

from benchmarks.common import DATA, images_for, load_note, median, space_of
from onnxsub.metrics.region import RegionOptions, region_distance
from onnxsub.model import load_model
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="mnist_2_50")
    parser.add_argument("--anchors", type=int, default=50, help="images that are classified rightly")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds per exact distance")
    parser.add_argument("--nearest-only", action="store_true")
    parser.add_argument("--no-exact", action="store_true", help="time the region program only")
    args = parser.parse_args()
    images, labels = images_for(args.network)
    space = InputSpace(**space_of(args.network))  # type: ignore[arg-type]
    model = load_model(DATA / "nets" / f"{args.network}.onnx")
    options = RegionOptions(nearest_only=args.nearest_only)
    print(f"{args.network}; {load_note()}")
    ratios: list[float] = []
    seconds: list[float] = []
    facets: list[int] = []
    reached = below = exact = possible = count = index = 0
    while count < args.anchors and index < len(images):
        query = make_query(model, images[index], int(labels[index]), space=space, threads=1)
        index += 1
        if query.misclassified:
            continue
        count += 1
        began = time.perf_counter()
        region = region_distance(query, options)
        seconds.append(time.perf_counter() - began)
        facets.append(max(t.facets for t in region.targets.values()))
        reached += region.status == "reached"
        line = f"{index - 1:4d} {region.status:8} region {region.distance:.7f} {seconds[-1]:6.2f} s  facets {facets[-1]:4d}"
        if not args.no_exact:
            truth = distance(query, DistanceOptions(Limits(timeout=args.timeout, threads=1)))
            exact += truth.status == "exact"
            ratio = region.distance / truth.lower if truth.lower > 0 else math.inf
            below += region.distance < truth.lower
            ratios.append(ratio)
            possible += region.distance <= 1.05 * truth.upper
            line += f"  exact [{truth.lower:.7f}, {truth.upper:.7f}] {truth.status:7} ratio {ratio:.5f}"
        print(line, flush=True)
    print(
        f"{count} anchors, {reached} with another class in the region; {median(seconds):.2f} s median, {max(seconds):.2f} s worst, "
        f"{max(facets)} facets at most"
    )
    if args.no_exact:
        return 0
    finite = [r for r in ratios if math.isfinite(r)]
    print(
        f"{exact} exact distances; region below the proved distance: {below}; "
        f"within 5 %: {sum(r <= 1.05 for r in ratios)} of {count} (at most {possible}); ratio over the {len(finite)} finite ones: "
        f"smallest {min(finite):.6f}, median {median(finite):.4f}, largest {max(finite):.4f}, "
        f"90th percentile {np.quantile(finite, 0.9):.4f}"
    )
    return 0 if below == 0 and count == args.anchors else 1


if __name__ == "__main__":
    sys.exit(main())
