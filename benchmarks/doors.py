"""The same ball by `verify --eps E` and by `export-property` with `verify FILE.vnnlib`: same nodes, same verdict, same time?

    python -m benchmarks.doors [--networks wk17a,...] [--timeout 60] [--repeat 3] [--balls 4]

Twenty balls of five networks: proved by bounds, proved by a tree, just inside and just outside the published distance where there
is one, violated. Radii are shares of the published distance, or of the attack's. Both doors in this process, in turn; the least
time of `--repeat` runs counts. Bar: same nodes, same verdict, times within 10 %.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, Answer, ask_ball, ask_property, exact_rows, images_for, load_note, space_of, table

SHARES: dict[str, tuple[float, ...]] = {
    "wk17a": (0.5, 0.97, 0.999, 1.001),
    "mnist-net_256x2": (0.3, 0.8, 0.99, 1.01),
    "salman_mnist_cnn_small_NOR": (0.2, 0.3, 0.38, 1.02),
    "salman_NOR_MLP_B": (0.3, 0.64, 0.68, 1.02),
    "mnist_convtiny_norm": (0.3, 0.6, 0.75, 1.02),
}
"""Radii of the balls, as shares of the distance."""


def known(network: str) -> list[tuple[int, float | None]]:
    """(test image, published distance): four of them, or the images 0, 1, 2, 3 without one."""
    if network == "wk17a":
        return [*exact_rows()][:4]
    if network == "mnist-net_256x2":
        with (DATA / "gt" / "fc256x2_exact_distance.csv").open() as file:
            rows: list[tuple[int, float | None]] = [(int(r["test_index"]), float(r["distance"])) for r in csv.DictReader(file)]
        return [*rows, rows[0]][:4]
    return [(i, None) for i in range(4)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(SHARES))
    parser.add_argument("--balls", type=int, default=4, help="per network")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--verifier", default="bab")
    args = parser.parse_args()
    import onnxsub

    print(load_note())
    rows: list[tuple[Any, ...]] = []
    same_nodes = same_verdict = 0
    worst = 1.0
    for network in args.networks.split(","):
        images, labels = images_for(network)
        model = onnxsub.load(DATA / "nets" / f"{network}.onnx")
        space = onnxsub.InputSpace(**space_of(network))
        for (index, d), share in list(zip(known(network), SHARES[network], strict=False))[: args.balls]:
            query = onnxsub.make_query(model, images[index], int(labels[index]), space=space, threads=1)
            eps = share * (float(onnxsub.attack(query).d_adv) if d is None else d)
            a, b = both(model, query, eps, args)
            ratio = max(a.seconds, b.seconds) / max(min(a.seconds, b.seconds), 1e-9)
            same_nodes += a.nodes == b.nodes
            same_verdict += a.status == b.status
            worst = max(worst, ratio)
            times = (f"{a.seconds:.2f}", f"{b.seconds:.2f}", f"{ratio:.2f}")
            rows.append((network, index, f"{eps:.6g}", share, a.status, b.status, a.nodes, b.nodes, *times))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(table(("network", "image", "eps", "of d", "ball", "property", "nodes", "nodes", "s", "s", "ratio"), rows))
    print(f"same nodes {same_nodes} of {len(rows)}, same verdict {same_verdict}, largest ratio of times {worst:.2f}")
    return 0 if same_nodes == same_verdict == len(rows) and worst <= 1.1 else 1


def both(model: Any, query: Any, eps: float, args: argparse.Namespace) -> tuple[Answer, Answer]:
    """The quickest answer of each door."""
    from onnxsub.properties import load_property, robustness_property, write_property

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ball.vnnlib"
        path.write_text(write_property(robustness_property(query, eps)))
        question = load_property(path, model)
    balls, properties = [], []
    for _ in range(args.repeat):
        balls.append(ask_ball(query, eps, args.verifier, args.timeout, threads=1))
        properties.append(ask_property(model, question, args.verifier, args.timeout, threads=1))
        if balls[-1].seconds + properties[-1].seconds > args.timeout:
            break
    return min(balls, key=lambda a: a.seconds), min(properties, key=lambda a: a.seconds)


if __name__ == "__main__":
    sys.exit(main())
