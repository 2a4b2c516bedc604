"""Random graphs of operators that move and interpolate values: against onnxruntime, inside all bounds, and as rebuilt files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from onnxsub.layouts.compact import compact
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.propagate.bounds import compute_bounds
from onnxsub.runtime import Runtime
from tests.random_dags import Shape, _Dag

OPSETS = (11, 13, 16, 18, 21)
PLACES = ("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel")


class _Movement(_Dag):
    """The steps that are the same at every opset from 11 on, and those of this test."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, ("Relu", "LeakyRelu", "Tanh"))

    def step(self) -> None:
        steps = (self.activation, self.conv, self.add, self.transpose, self.concat, self.resize, self.resize, self.tile, self.depth,
                 self.space, self.where, self.trilu, self.elements, self.expand, self.scatter)  # fmt: skip
        x, shape = self.pick()
        steps[int(self.rng.integers(len(steps)))](x, shape)

    def keep(self, name: str, shape: Shape) -> None:
        if np.prod(shape) <= 300:
            super().keep(name, shape)

    def resize(self, x: str, shape: Shape) -> None:
        mode = str(self.rng.choice(["nearest", "linear", "cubic"]))
        given = {"mode": mode, "coordinate_transformation_mode": str(self.rng.choice(PLACES))}
        if mode == "nearest":
            given["nearest_mode"] = str(self.rng.choice(["ceil", "floor", "round_prefer_ceil", "round_prefer_floor"]))
        none = self.b.weight(np.zeros(0))
        sizes = [int(n) for n in self.rng.integers(1, 9, 2)]
        if self.rng.random() < 0.5:
            # of one sample: the file has batch 1
            inputs = [x, none, none, self.b.weight(np.array([1, shape[0], *sizes]), np.int64)]
        else:
            # not close to a whole number of elements
            scales = np.array([1, 1, *((n + 0.25) / m for n, m in zip(sizes, shape[1:], strict=True))], np.float32)
            inputs = [x, none, self.b.weight(scales)]
        self.keep(self.b.node("Resize", inputs, **given), (shape[0], *sizes))

    def tile(self, x: str, shape: Shape) -> None:
        repeats = self.rng.integers(1, 3, 3)
        y = self.b.node("Tile", [x, self.b.weight(np.array([1, *repeats]), np.int64)])
        self.keep(y, tuple(int(n * r) for n, r in zip(shape, repeats, strict=True)))

    def depth(self, x: str, shape: Shape) -> None:
        if shape[0] % 4 == 0:
            y = self.b.node("DepthToSpace", [x], blocksize=2, mode=str(self.rng.choice(["DCR", "CRD"])))
            self.keep(y, (shape[0] // 4, shape[1] * 2, shape[2] * 2))

    def space(self, x: str, shape: Shape) -> None:
        if shape[1] % 2 == shape[2] % 2 == 0:
            self.keep(self.b.node("SpaceToDepth", [x], blocksize=2), (shape[0] * 4, shape[1] // 2, shape[2] // 2))

    def where(self, x: str, shape: Shape) -> None:
        other = str(self.rng.choice([n for n, s in self.pool if s == shape]))
        if self.rng.random() < 0.5:
            other = self.b.weight(self.rng.normal(size=(1, *shape)))
        names = [x, other] if self.rng.random() < 0.5 else [other, x]
        self.keep(self.b.node("Where", [self.b.weight(self.rng.random(shape) < 0.5, bool), *names]), shape)

    def trilu(self, x: str, shape: Shape) -> None:
        if self.b.opset >= 14:
            k = self.b.weight(np.array(self.rng.integers(-2, 3)), np.int64)
            self.keep(self.b.node("Trilu", [x, k], upper=int(self.rng.integers(2))), shape)

    def elements(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(3))
        out = tuple(int(self.rng.integers(1, n + 1)) for n in shape)
        index = self.b.weight(self.rng.integers(-shape[axis], shape[axis], (1, *out)), np.int64)
        self.keep(self.b.node("GatherElements", [x, index], axis=axis + 1), out)

    def scatter(self, x: str, shape: Shape) -> None:
        count = int(self.rng.integers(1, shape[2] + 1))
        order, given = self.rng.permutation(shape[2])[:count], {}
        if self.b.opset >= 18 and self.rng.random() < 0.7:
            # combined with what is there, some places several times
            order = self.rng.integers(-shape[2], shape[2], count)
            given = {"reduction": str(self.rng.choice(["add", "mul", "max", "min"]))}
        index = np.broadcast_to(order, (1, *shape[:2], len(order)))
        updates = [n for n, s in self.pool if s == (*shape[:2], len(order))]
        value = updates[0] if updates else self.b.weight(self.rng.normal(size=index.shape))
        self.keep(self.b.node("ScatterElements", [x, self.b.weight(index, np.int64), value], axis=3, **given), shape)

    def expand(self, x: str, shape: Shape) -> None:
        if 1 in shape:
            out = tuple(int(self.rng.integers(1, 4)) if n == 1 else n for n in shape)
            self.keep(self.b.node("Expand", [x, self.b.weight(np.array([1, *out]), np.int64)]), out)


def _model(seed: int, opset: int) -> ModelProto:
    dag = _Movement(seed)
    dag.b.opset = opset
    for _ in range(10):
        dag.step()
    b = dag.b
    parts = [dag.pool[-1], dag.pick()]
    flat = b.node("Concat", [b.node("Flatten", [name]) for name, _ in parts], axis=1)
    n = sum(int(np.prod(s)) for _, s in parts)
    y = b.dense(b.activation(b.dense(flat, n, 4), (4,)), 4, 3)
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *dag.shape])]
    last = [helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 3])]
    graph = helper.make_graph(b.nodes, "g", ends, last, b.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("part", range(4))
def test_random_graphs(part: int) -> None:
    for seed in range(30 * part, 30 * (part + 1)):
        model = load_model(_model(seed, OPSETS[seed % len(OPSETS)]))
        network = lower(model)
        rng = np.random.default_rng(seed)
        centre, radius = (rng.random((1, *model.input_shape)) * s for s in (1.0, 0.2))
        points = (centre + radius * np.clip(rng.normal(size=(20, *model.input_shape)), -1, 1)).astype(np.float32)
        want = Runtime(model).logits(points)
        x = torch.from_numpy(points.astype(np.float64))
        with torch.no_grad():
            found = network.forward(x).numpy()
        tolerance = 1e-4 * (1 + np.abs(want).max())  # float32 of at most ten layers
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=tolerance, err_msg=f"seed {seed}")
        ends = [torch.from_numpy(centre + s * radius) for s in (-1, 1)]
        with torch.no_grad():  # rounded to float32, a point may lie outside by a bit
            values = network.values(x.clamp(*ends))
        for method in ("ibp", "fastlin", "crown"):
            result = compute_bounds(network, *ends, method=method)
            for op in network.nonlinear:
                low, high = result.pre[op.output]
                z = values[op.inputs[0]]
                assert (z >= low - 1e-9).all(), (seed, op.node)
                assert (z <= high + 1e-9).all(), (seed, op.node)
        rebuilt = Runtime(load_model(compact(model, network))).logits(points)
        np.testing.assert_allclose(rebuilt, want, rtol=1e-3, atol=10 * tolerance, err_msg=f"seed {seed}")
