"""Decisions just beyond what the attack found: the ball holds its point, so the answer is `violated`, at once.

    python -m benchmarks.beyond [--factors 1.0005,1.002,1.005,1.02] [--timeout 40] [--anchors N]

Seventeen anchors of four networks. Bar: 68 of 68 violated, median <= 2 s.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common import DATA, ask_ball, images_for, load_note, median

NETWORKS = {"wk17a": 5, "salman_mnist_cnn_small_NOR": 4, "salman_mnist_cnn_small_ADV": 4, "mnist-c-clean": 4}
"""How many of the first test images that a network classifies rightly."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--factors", default="1.0005,1.002,1.005,1.02")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--anchors", type=int, default=99, help="at most, per network")
    parser.add_argument("--timeout", type=float, default=40.0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    import onnxsub

    print(load_note())
    factors = [float(f) for f in args.factors.split(",")]
    seconds: list[float] = []
    others: list[str] = []
    for network in args.networks.split(","):
        own = Path(__file__).parents[1] / "models" / f"{network}.onnx"
        model = onnxsub.load(own if own.is_file() else DATA / "nets" / f"{network}.onnx")
        images, labels = images_for(network)
        done, index = 0, -1
        while done < min(NETWORKS[network], args.anchors):
            index += 1
            query = onnxsub.make_query(model, images[index], int(labels[index]), threads=args.threads)
            if query.misclassified:
                continue
            done += 1
            d = float(onnxsub.attack(query).d_adv)
            for factor in factors:
                a = ask_ball(query, d * factor, "bab", args.timeout, threads=args.threads)
                seconds.append(a.seconds)
                text = f"{network} image {index}, d_adv {d:.6f} x {factor:g}: {a.status}, {a.nodes} nodes, {a.seconds:.2f} s"
                print(text, file=sys.stderr, flush=True)
                if a.status != "violated":
                    others.append(f"{text}; {a.reason}")
    print(f"{len(seconds) - len(others)} of {len(seconds)} violated, median {median(seconds):.2f} s, worst {max(seconds):.2f} s")
    print(*others, sep="\n")
    return 1 if others or median(seconds) > 2 else 0


if __name__ == "__main__":
    sys.exit(main())
