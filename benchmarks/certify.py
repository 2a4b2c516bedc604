"""What `distance --via lin:0.99 --certify 10` proves of the original: `original.lower` by the best upper end.

    python -m benchmarks.certify [--networks digits,wk17a] [--anchors 6] [--certify 10] [--timeout 60]

The upper end is that of the same run (attack, substitute's point and search together). `plain` is the share without `--certify`:
what bounds alone prove.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.common import anchors, images_for, load_note, median, network_path, space_of
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="digits,wk17a")
    parser.add_argument("--anchors", type=int, default=6, help="per network")
    parser.add_argument("--certify", type=float, default=10.0, help="seconds of the search of the original")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds of the whole command")
    args = parser.parse_args()
    print(load_note())
    via = PruneOptions(method="lin", select=SelectOptions(gamma=0.99))
    every: list[float] = []
    for name in args.networks.split(","):
        images, labels = images_for(name)
        shares: list[float] = []
        for index in anchors(name, args.anchors):
            query = make_query(network_path(name), images[index], int(labels[index]), space=InputSpace(**space_of(name)), threads=1)
            if query.misclassified:
                continue
            limits = Limits(timeout=args.timeout, threads=1)
            plain = distance(query, DistanceOptions(limits, via=via)).original
            began = time.perf_counter()
            found = distance(query, DistanceOptions(limits, via=via, certify=args.certify)).original
            assert found is not None  # every run with `via` says what it proves of the original
            assert plain is not None
            shares.append(found.lower / found.upper)
            print(
                f"{name} {index:3d}  [{found.lower:.6f}, {found.upper:.6f}]  share {shares[-1]:.3f}"
                f"  plain {plain.lower / found.upper:.3f}  {time.perf_counter() - began:.1f} s", flush=True,
            )  # fmt: skip
        print(f"{name}: median share {median(shares):.3f}")
        every += shares
    print(f"median of all {median(every):.3f}")


if __name__ == "__main__":
    main()
