"""How fast the tree of a ball grows with its radius, and so how far away the proof at a share of the distance is.

    python -m benchmarks.growth [--networks digits:0,digits:3,...] [--timeout 60] [--step 0.025] [--aim 0.9524]

A network's ball is asked at growing shares of the attack's distance until one is not proved within the limit. Growth is that of
the nodes per 5 % of that distance: the line of least squares through the logarithms of the nodes of all proofs of ten nodes or
more. The last columns continue that line to `--aim` (1 / 1.05: a bracket of 1.05) and divide by the nodes per second of the
largest proof: an estimate, not a measurement. The true distance may be smaller than the attack's.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np

from benchmarks.common import ask_ball, images_for, load_note, network_path, space_of, table

NETWORKS = "digits:0,digits:3,digits:6,salman_mnist_cnn_small_NOR:0,salman_mnist_cnn_small_ADV:0,kw_mnist_small:0,wk17a:0"
_FEW = 10  # nodes below which a proof says nothing about growth


def grown(shares: list[float], nodes: list[int]) -> float:
    """The factor of the nodes per 0.05 of the share; NaN where fewer than two proofs took nodes enough."""
    many = [(s, math.log(n)) for s, n in zip(shares, nodes, strict=True) if n >= _FEW]
    if len(many) < 2:
        return math.nan
    return math.exp(0.05 * float(np.polyfit(*zip(*many, strict=True), 1)[0]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=NETWORKS, help="NAME:IMAGE, separated by commas")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds per ball")
    parser.add_argument("--step", type=float, default=0.025, help="from one share to the next")
    parser.add_argument("--aim", type=float, default=1 / 1.05, help="the share whose nodes are estimated")
    args = parser.parse_args()
    import onnxsub

    print(load_note())
    rows: list[tuple[object, ...]] = []
    for name, number in (part.split(":") for part in args.networks.split(",")):
        index = int(number)
        images, labels = images_for(name)
        model = onnxsub.load(network_path(name))
        query = onnxsub.make_query(model, images[index], int(labels[index]), space=onnxsub.InputSpace(**space_of(name)), threads=1)
        reach = onnxsub.attack(query).d_adv
        if not 0 < reach < math.inf:
            print(f"{name} {index}: misclassified, or the attack found no point; name another image", file=sys.stderr)
            continue
        shares: list[float] = []
        nodes: list[int] = []
        pace = math.nan
        for k in range(1, math.ceil(args.aim / args.step)):
            answer = ask_ball(query, k * args.step * reach, timeout=args.timeout, threads=1)
            line = f"{name} {index} {k * args.step:.3f} {answer.status} {answer.nodes} nodes {answer.seconds:.2f} s"
            print(line, file=sys.stderr, flush=True)
            if answer.status != "proved":
                break
            shares.append(k * args.step)
            nodes.append(answer.nodes)
            pace = answer.nodes / answer.seconds
        factor = grown(shares, nodes)
        there = nodes[-1] * factor ** ((args.aim - shares[-1]) / 0.05) if nodes else math.nan
        proofs = " ".join(f"{s:.3f}:{n}" for s, n in zip(shares, nodes, strict=True) if n >= _FEW)
        hours = there / pace / 3600 if pace > 0 else math.nan
        rows.append((name, index, proofs, f"{factor:.1f}", f"{pace:.0f}", f"{there:.1e}", f"{hours:.1e}"))
    aim = f"nodes at {args.aim:.3f}"
    print(table(("network", "image", "share:nodes of proofs", "growth per 5 %", "nodes/s", aim, "hours at that pace"), rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
