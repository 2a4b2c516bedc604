"""Small networks written by hand, for the cases that random ones do not meet: element types, names, odd shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, helper

from tests.random_models import Builder

__all__ = ["Net", "run"]

Array = np.ndarray[Any, np.dtype[Any]]


class Net(Builder):
    """Nodes and weights of one element type, then `model(output, shape)`."""

    def __init__(self, *shape: int, dtype: Any = np.float32, source: str = "x", seed: int = 0) -> None:
        super().__init__(np.random.default_rng(seed), ("Relu",))
        self.shape, self.dtype, self.source = shape, np.dtype(dtype), source

    def weight(self, values: Any, dtype: Any = None) -> str:
        return super().weight(np.asarray(values), dtype or self.dtype)

    def gemm(self, x: str, n: int, m: int, output: str | None = None) -> str:
        w, b = self.weight(self.gauss(m, n, fan=n)), self.weight(0.3 * self.rng.normal(size=m))
        return self.named("Gemm", [x, w, b], output, transB=1)

    def filters(self, x: str, c: int, channels: int, k: int) -> str:
        return self.node("Conv", [x, self.weight(self.gauss(channels, c, k, k, fan=c * k * k))])

    def named(self, kind: str, inputs: list[str], output: str | None, **attributes: Any) -> str:
        name = self.node(kind, inputs, **attributes)
        if output is not None:
            self.nodes[-1].output[0] = output
        return output or name

    def model(
        self, output: str, *shape: int, batch: int | str | None = "N", result: Any = None, opset: int = 13, ir: int = 8
    ) -> ModelProto:
        kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(d)) for d in (self.dtype, result or self.dtype)]
        graph = helper.make_graph(
            self.nodes,
            "handmade",
            [helper.make_tensor_value_info(self.source, kinds[0], [batch, *self.shape])],
            [helper.make_tensor_value_info(output, kinds[1], [batch, *shape])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def run(proto: ModelProto, x: Array) -> Array:
    """The file's own output on rows `x`, by onnxruntime, flat and in float64."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    kind = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}[source.type]
    y = np.asarray(session.run(None, {source.name: x.astype(kind)})[0], dtype=np.float64)
    return y.reshape(len(x), -1)
