"""Exact distances of networks over tables: small networks of 4 to 30 features, normally trained.

    python -m benchmarks.tabular [--anchors 20] [--timeout 30] [--sets iris,wine,cancer,digits16]

Bar: all exact, median <= 1 s, 20 anchors each. Trained here by scikit-learn (`MLPClassifier`, two hidden layers of 64 Relus) on
features scaled to [0, 1]; a quarter of each table is held out, and its first rows are the anchors. Prints accuracy, status, seconds
of whole calls (the attack included) and nodes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import load_note, median, table

SETS = ("iris", "wine", "cancer", "digits16")


def features(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The table, each feature scaled to [0, 1], and its classes."""
    from sklearn import datasets
    from sklearn.decomposition import PCA

    loaders = {"iris": datasets.load_iris, "wine": datasets.load_wine, "cancer": datasets.load_breast_cancer}
    if name == "digits16":
        x, y = datasets.load_digits(return_X_y=True)
        x = PCA(16, random_state=0).fit_transform(x)
    else:
        x, y = loaders[name](return_X_y=True)
    low, high = x.min(0), x.max(0)
    return ((x - low) / (high - low)).astype(np.float32), y


def trained(x: np.ndarray, y: np.ndarray) -> tuple[onnx.ModelProto, float, np.ndarray, np.ndarray]:
    """The network as ONNX, its accuracy on the rows held out, these rows and their classes."""
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier

    fit, held, classes, labels = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    network: Any = MLPClassifier((64, 64), max_iter=300, random_state=0).fit(fit, classes)
    weights, offsets = list(network.coefs_), list(network.intercepts_)
    if weights[-1].shape[1] == 1:  # one logit z of two classes: logits 0 and z
        weights[-1] = np.concatenate([np.zeros_like(weights[-1]), weights[-1]], 1)
        offsets[-1] = np.concatenate([np.zeros(1), offsets[-1]])
    nodes, constants, now = [], [], "x"
    for i, (w, b) in enumerate(zip(weights, offsets, strict=True)):
        constants += [numpy_helper.from_array(v.astype(np.float32), f"{k}{i}") for k, v in (("w", w), ("b", b))]
        nodes.append(helper.make_node("Gemm", [now, f"w{i}", f"b{i}"], [f"z{i}"]))
        now = f"z{i}"
        if i + 1 < len(weights):
            nodes.append(helper.make_node("Relu", [now], [f"a{i}"]))
            now = f"a{i}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", x.shape[1]), (now, offsets[-1].size))]
    graph = helper.make_graph(nodes, "tabular", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model, float(network.score(held, labels)), held, labels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--anchors", type=int, default=20)
    parser.add_argument("--timeout", type=float, default=30.0)
    args = parser.parse_args()
    import onnxsub

    print(load_note())
    rows, exact, asked = [], 0, 0
    for name in args.sets.split(","):
        x, y = features(name)
        message, accuracy, held, labels = trained(x, y)
        model = onnxsub.load(message)
        seconds, worked, nodes, said = [], [], [], Counter[str]()
        for i in range(len(held)):
            query = onnxsub.make_query(model, held[i], int(labels[i]), threads=1)
            if query.misclassified:
                continue
            clock, work = time.perf_counter(), time.process_time()
            found = onnxsub.distance(model, held[i], label=int(labels[i]), timeout=args.timeout, threads=1)
            seconds.append(time.perf_counter() - clock)
            worked.append(time.process_time() - work)
            nodes.append(found.nodes)
            said[found.status] += 1
            if len(seconds) == args.anchors:
                break
        exact, asked = exact + said["exact"], asked + len(seconds)
        times = (f"{median(seconds):.2f}", f"{max(seconds):.2f}", f"{median(worked):.2f}", max(nodes))
        rows.append((name, x.shape[1], f"{100 * accuracy:.1f}", f"{said['exact']} of {len(seconds)}", *times))
        print(*rows[-1], file=sys.stderr, flush=True)
    print(table(("table", "features", "accuracy %", "exact", "median s", "worst s", "processor s", "most nodes"), rows))
    print(f"{exact} of {asked} exact")
    return 0 if exact == asked else 1


if __name__ == "__main__":
    sys.exit(main())
