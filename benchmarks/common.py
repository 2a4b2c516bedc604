"""What the benchmarks share: where the data lies, the images that fit a network, medians, the machine's load."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import statistics
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

__all__ = ["DATA", "LABELS", "anchors", "exact_rows", "images_for", "load_note", "median", "space_of"]

DATA = Path(os.environ.get("ONNXSUB_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))

if not (DATA / "nets").is_dir():
    sys.exit(f"no networks in {DATA}; set ONNXSUB_DATA to the folder that holds nets/, data/ and gt/")

# networks that want normalised inputs: mean, std
_NORMALISED = {
    "convSmallRELU__Point": ((0.1307,), (0.3081,)),
    "mnist_conv_maxpool": ((0.5,), (1.0,)),
    "cifar_base_kw": ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
    "resnet_2b": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
}


def space_of(name: str) -> dict[str, tuple[float, ...]]:
    """Keyword arguments `mean` and `std` of `InputSpace` for a network of the data folder."""
    if name not in _NORMALISED:
        return {}
    mean, std = _NORMALISED[name]
    return {"mean": mean, "std": std}


def images_for(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Test images in [0, 1] (float32, per-sample layout of the network) and labels."""
    data = "cifar10" if "cifar" in name or "resnet" in name else "fashion_mnist" if "fashion" in name else "mnist"
    with np.load(DATA / "data" / f"{data}.npz") as archive:
        x, y = archive["x_test"].astype(np.float32) / 255, archive["y_test"]
    if data == "cifar10":
        return (x if name == "cifar10_small" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))), y
    if name == "mnist-net_256x2":
        return x.reshape(-1, 784, 1), y
    return (x[..., None] if name == "cnn_max_mninst2" else x[:, None]), y


LABELS = "y_test"


def anchors(name: str, count: int) -> list[int]:
    """Indices of the first `count` test images (right or wrong: callers skip what is misclassified)."""
    return list(range(count))


def exact_rows() -> list[tuple[int, float]]:
    """(test index, exact distance) of wk17a."""
    import csv

    with (DATA / "gt" / "wk17a_linf0.1_mipverify_idx0_249.csv").open() as file:
        rows = [(int(r["test_index"]), r["min_linf_distance"]) for r in csv.DictReader(file)]
    return [(i, float(d)) for i, d in rows if d]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def load_note() -> str:
    """The machine's load, since a busy neighbour changes every timing."""
    return f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores"
