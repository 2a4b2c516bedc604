"""Time of `prune`: attack, bounds and surgery together (`time_s.total`), and peak memory.

    python -m benchmarks.prune                  wk17a, ten MNIST anchors
    python -m benchmarks.prune --network E      62,464 units, random weights

E: Conv 32 k3, 32 k4s2, 64 k3, 64 k4s2, Dense 512, 512, 10 on 3x32x32. Prints one line per anchor and the medians; `--rank`,
`--method`, `--gamma`, `--gamma0`, `--anchors` vary the setting. Run it alone: a busy neighbour process multiplies every figure.
"""

from __future__ import annotations

import argparse
import resource

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks.common import DATA, images_for, load_note, median
from onnxsub.model import Model, load_model
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions, prune
from onnxsub.query import make_query


def network_e(seed: int = 0) -> ModelProto:
    """Architecture E for 3x32x32 with random weights."""
    rng = np.random.default_rng(seed)
    nodes, weights, x, shape = [], [], "x", (3, 32, 32)

    def weight(*dims: int, fan: int) -> str:
        name = f"w{len(weights)}"
        weights.append(numpy_helper.from_array((rng.normal(size=dims) * np.sqrt(2 / fan)).astype(np.float32), name))
        return name

    for channels, k, s in ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2)):
        fan = shape[0] * k * k
        inputs = [x, weight(channels, shape[0], k, k, fan=fan), weight(channels, fan=100)]
        nodes.append(helper.make_node("Conv", inputs, [f"c{len(nodes)}"], strides=[s, s], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], [f"r{len(nodes)}"]))
        x, shape = nodes[-1].output[0], (channels, shape[1] // s, shape[2] // s)
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    x, n = "flat", int(np.prod(shape))
    for i, m in enumerate((512, 512, 10)):
        nodes.append(helper.make_node("Gemm", [x, weight(m, n, fan=n), weight(m, fan=100)], [f"g{i}"], transB=1))
        x, n = f"g{i}", m
        if i < 2:
            nodes.append(helper.make_node("Relu", [x], [f"s{i}"]))
            x = f"s{i}"
    graph = helper.make_graph(
        nodes,
        "E",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="wk17a", help="a network of the data folder, or E")
    parser.add_argument("--anchors", type=int, default=10)
    parser.add_argument("--method", default="lin")
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--gamma0", type=float, default=SelectOptions().gamma0)
    parser.add_argument("--rank", default=SelectOptions().rank)
    parser.add_argument("--layout", default="compact")
    args = parser.parse_args()
    model: Model = load_model(network_e()) if args.network == "E" else load_model(DATA / "nets" / f"{args.network}.onnx")
    images, _ = images_for("cifar" if args.network == "E" else args.network)
    options = PruneOptions(args.method, SelectOptions(gamma=args.gamma, gamma0=args.gamma0, rank=args.rank), args.layout)
    print(f"{args.network}, {args.method}, gamma {args.gamma}, rank {args.rank}; {load_note()}")
    totals = []
    for i in range(args.anchors):
        result = prune(make_query(model, images[i]), options)
        totals.append(result.time_s["total"])
        times = " ".join(f"{k} {v:.2f}" for k, v in result.time_s.items())
        kept = result.substitute.selection.kept_per_layer
        rounds = result.substitute.selection.rounds
        print(f"anchor {i:3d}  d_adv {result.substitute.d_adv:.5f}  kept {kept}  rounds {rounds}  {times}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"median total {median(totals):.2f} s, worst {max(totals):.2f} s, peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
