"""What is drawn for every kind of input: odd numbers and words, files of the corpus, bytes that are changed; a good network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.make_corpus import CORPUS

__all__ = ["FLOATS", "NUMBERS", "WORDS", "Made", "Random", "flipped", "good_network", "pick", "stored"]

Random = np.random.Generator
Made = tuple[str, list[list[str]]]
"""A file of the folder, and command lines (without the folder)."""

NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**15, 2**31 - 1, -(2**31), 2**33, 10**9)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 3.4e38, -3.4e38, float("nan"), float("inf"), float("-inf"), 0.5, 1e30)
WORDS = ("", "x", "0", "../x", "/etc/passwd", "a\x1b[2Jb", "‮", "N", "=cmd", "é" * 40, "\x00", "NOTSET", "SAME_UPPER", "nearest")


def flipped(data: bytes, rng: Random) -> bytes:
    """Bytes changed, removed, doubled or cut off."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, more = int(rng.integers(len(found) + 1)), int(rng.integers(1, 9))
        match rng.integers(6):
            case 0 if at < len(found):
                found[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(found):
                found[at] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2:
                del found[at : at + more]
            case 3:
                found[at:at] = rng.bytes(more)
            case 4:
                found[at:at] = found[at : at + 16 * more]
            case _ if rng.random() < 0.3:
                del found[at:]
    return bytes(found)


def pick(rng: Random, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def stored(rng: Random, *endings: str) -> Path:
    """A file of the corpus."""
    return pick(rng, sorted(path for path in CORPUS.iterdir() if path.name.endswith(endings)))


def good_network(folder: Path) -> tuple[str, str]:
    """A good network of four inputs, and an anchor."""
    weights = np.random.default_rng(1)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 4), ("y", 3)))
    shapes = {"a": (4, 6), "b": (6,), "c": (6, 3), "d": (3,)}
    tensors = {n: weights.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "d"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(v, k) for k, v in tensors.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "good.onnx")
    np.save(folder / "good.npy", np.full((1, 4), 0.5, dtype=np.float32))
    return "good.onnx", "good.npy"
