"""The files that the generator changes: small good ones of every kind and of many operators, made with seeds.

    python -m tests.fuzz.make_corpus

writes `tests/fuzz/corpus/` anew. A file that fuzzing has found may lie beside them: the generator takes whatever it finds there.
"""

from __future__ import annotations

import gzip
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from tests.random_dags import random_dag
from tests.random_models import Builder, random_model
from tests.random_modern import random_modern

__all__ = ["CORPUS", "main"]

CORPUS = Path(__file__).parent / "corpus"
_MODELS = 60


def _quantised() -> ModelProto:
    """A dense layer between quantisers, and one of whole numbers."""
    b = Builder(np.random.default_rng(3), ("Relu",))
    scale, zero = b.weight(np.array(0.02)), b.weight(np.array(3), np.int8)
    code = b.node("QuantizeLinear", ["x", scale, zero])
    real = b.node("DequantizeLinear", [code, scale, zero])
    hidden = b.node("Relu", [b.node("Gemm", [real, b.weight(b.gauss(5, 4, fan=4)), b.weight(b.rng.normal(size=5))], transB=1)])
    scores = b.node("MatMul", [hidden, b.weight(b.gauss(5, 3, fan=5))])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 4), (scores, 3)))
    graph = helper.make_graph(b.nodes, "quantised", [x], [y], b.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _property(lines: list[str]) -> str:
    names = [f"(declare-const X_{i} Real)" for i in range(4)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    box = [f"(assert (>= X_{i} 0.4))\n(assert (<= X_{i} 0.6))" for i in range(4)]
    return "\n".join([*names, *box, *lines]) + "\n"


def _image(kind: str, mode: str, size: tuple[int, int], **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    pixels = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _array(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def _arrays(packed: bool, **values: Any) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(file, **values)
    return file.getvalue()


def main() -> None:
    """Writes the folder."""
    shutil.rmtree(CORPUS, ignore_errors=True)
    CORPUS.mkdir()
    makers = (random_modern, random_dag, random_model)
    models = {f"{i:02}": makers[i % 3](1000 + i) for i in range(_MODELS)}
    for name, proto in {**models, "quantised": _quantised()}.items():
        onnx.save(proto, CORPUS / f"{name}.onnx")
    point = np.array([[0.5, 0.25, 0.75, 1.0]], dtype=np.float32)
    box = "(assert (<= Y_0 Y_1))"
    two = (
        "(vnnlib-version <2.0>)\n(declare-network f\n  (declare-input X float32 [1,4])\n  (declare-output Y float32 [1,3]))\n"
        + "\n".join(f"(assert (and (>= X[0,{i}] 0.4) (<= X[0,{i}] 0.6)))" for i in range(4)) + "\n(assert (<= Y[0,0] Y[0,1]))\n"
    )  # fmt: skip
    files: dict[str, bytes] = {
        "point.npy": _array(point), "order.npy": _array(np.asfortranarray(point.astype(np.float64))),
        "whole.npy": _array(point > 0.3), "half.npy": _array(point.astype(np.float16)), "rows.npy": _array(np.repeat(point, 5, 0)),
        "plain.npz": _arrays(False, x=point, y=np.arange(1)), "packed.npz": _arrays(True, x=np.repeat(point, 9, 0)),
        "grey.png": _image("PNG", "L", (2, 2)), "colour.png": _image("PNG", "RGB", (2, 2)),
        "palette.png": _image("PNG", "P", (2, 2)), "deep.png": _image("PNG", "I;16", (2, 2)),
        "alpha.png": _image("PNG", "RGBA", (4, 1)), "one.png": _image("PNG", "1", (4, 1)),
        "photo.jpg": _image("JPEG", "RGB", (2, 2)), "progressive.jpg": _image("JPEG", "L", (2, 2), progressive=True),
        "plain.csv": b"a,b,c,d\n0.5,0.25,0.75,1\n0.1,0.2,0.3,0.4\n", "bare.csv": b"0.5,0.25,0.75,1\n",
        "labels.csv": b"a,b,c,d,label\n0.5,0.25,0.75,1,cat\n0,0,0,0,dog\n", "marked.csv": "\ufeffa;b;c;d\r\n0,5;1;1;1\r\n".encode(),
        "ball.vnnlib": _property([box]).encode(), "two.vnnlib": two.encode(),
        "any.vnnlib": _property(["(assert (or (and (<= Y_0 Y_1)) (and (<= Y_0 Y_2) (>= Y_1 (* 2.0 Y_2)))))"]).encode(),
        "packed.vnnlib.gz": gzip.compress(_property([box]).encode(), mtime=0),
    }  # fmt: skip
    for name, data in files.items():
        (CORPUS / name).write_bytes(data)
    sizes = [path.stat().st_size for path in CORPUS.iterdir()]
    print(f"{len(sizes)} files, {sum(sizes):,} bytes")


if __name__ == "__main__":
    main()
