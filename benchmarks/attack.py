"""What the attack finds, and what it leaves behind.

    python benchmarks/attack.py [--data DIR] [--nets wk17a ...] [--anchors 8] [--threads 2] [--no-long]

One line per network: the mean and the worst of `d_adv / reference - 1`, and the median seconds per anchor. The reference is the
exact distance where the data set has one (wk17a: `gt/wk17a_linf0.1_mipverify_idx0_249.csv`, mnist-net_256x2:
`gt/fc256x2_exact_distance.csv`), and the better one of this run and one with twenty times the work otherwise (four times the
steps and five times the restarts). Bars: wk17a mean excess <= 3 %; about 1 s per anchor; mean ratio to the long run <= 1.01.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.query import make_query

DATA = Path(os.environ.get("ONNXSUB_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
EXACT = {
    "wk17a": ("wk17a_linf0.1_mipverify_idx0_249.csv", "min_linf_distance"),
    "mnist-net_256x2": ("fc256x2_exact_distance.csv", "distance"),
}
NETS = (
    "wk17a",
    "mnist-net_256x2",
    "salman_mnist_cnn_small_NOR",
    "salman_mnist_cnn_small_ADV",
    "salman_mnist_cnn_small_LPD",
    "salman_NOR_MLP_B",
    "mnist_conv_maxpool",
    "mnist_relu_6_100",
    "cifar_base_kw_norm",
    "cifar_resnet2b_norm",
)


def images(data: Path, model: Model) -> tuple[Array, Array]:
    """Test images of the set that the model's input size points to, scaled to [0, 1], and their labels."""
    size = int(np.prod(model.input_shape))
    name = {784: "mnist", 3072: "cifar10"}[size]
    with np.load(data / "data" / f"{name}.npz") as archive:
        x, y = archive["x_test"][:500], archive["y_test"][:500]
    if x.ndim == 4:
        x = x.transpose(0, 3, 1, 2)
    return x.reshape(len(x), *model.input_shape).astype(np.float32) / np.float32(255), y


def anchors(data: Path, name: str, labels: Array, count: int) -> Iterator[tuple[int, int, float | None]]:
    """Index, label and, where it is known, the exact distance."""
    if name in EXACT:
        file, column = EXACT[name]
        with (data / "gt" / file).open() as rows:
            yield from ((int(r["test_index"]), int(r["label"]), float(r[column])) for r in csv.DictReader(rows) if r[column])
    else:
        yield from ((i, int(labels[i]), None) for i in range(count))


def line(data: Path, name: str, options: AttackOptions, count: int, long: bool) -> str:
    model = load_model(data / "nets" / f"{name}.onnx")
    x, labels = images(data, model)
    excess: list[float] = []
    seconds: list[float] = []
    missed = 0
    reference = "20x run"
    for index, label, exact in anchors(data, name, labels, count):
        query = make_query(model, x[index], label, threads=options.threads)
        if query.misclassified:
            continue
        result = attack(query, options)
        seconds.append(result.time_s["total"])
        truth = exact
        if exact is not None:
            reference = "exact"
        elif long:
            more = replace(options, steps=4 * options.steps, restarts=5 * options.restarts, seed=options.seed + 1)
            truth = min(result.d_adv, attack(query, more).d_adv)
        if not result.found:
            missed += 1
        elif truth is not None:
            excess.append(result.d_adv / truth - 1)
    shown = f"{100 * statistics.mean(excess):8.3f} {100 * max(excess):8.3f}" if excess else f"{'-':>8} {'-':>8}"
    return f"{name:28} {len(seconds):4} {missed:6} {shown}  {reference:8} {statistics.median(seconds):8.2f} {max(seconds):8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the folder with nets/, data/ and gt/")
    parser.add_argument("--nets", nargs="+", default=NETS, help="network names without .onnx")
    parser.add_argument("--anchors", type=int, default=8, help="per network without exact distances")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-long", action="store_true", help="only time the networks that have no exact distances")
    a = parser.parse_args()
    options = AttackOptions(threads=a.threads, seed=a.seed)
    print(f"{'network':28} {'n':>4} {'missed':>6} {'mean %':>8} {'worst %':>8}  {'against':8} {'median s':>8} {'worst s':>8}")
    for name in a.nets:
        print(line(a.data, name, options, a.anchors, not a.no_long), flush=True)


if __name__ == "__main__":
    main()
