"""Graphs that move the batch axis or merge it with another: read at batch 1, against onnxruntime, with points inside all bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.layouts.compact import compact
from onnxsub.layouts.inplace import inplace
from onnxsub.lower import _read, lower, lower_nodes
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Activation
from onnxsub.ops.substituted import Substituted
from onnxsub.propagate.bounds import compute_bounds
from onnxsub.runtime import Runtime
from tests.ops.tools import Case, ints, random, run
from tests.random_models import Builder

Shape = tuple[int, ...]


class _Graph:
    """A pool of tensors of any full shape at batch 1; every step reads one and adds one."""

    def __init__(self, seed: int, opset: int = 13) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(self.rng, ("Relu", "LeakyRelu", "Clip"), opset)
        self.x: Shape = (1, int(self.rng.integers(2, 4)), int(self.rng.integers(2, 4)), int(self.rng.integers(2, 4)))
        self.pool: list[tuple[str, Shape]] = [("x", self.x)]

    def model(self, batch: int | str, steps: int = 8) -> onnx.ModelProto:
        for _ in range(steps):
            name, shape = self.pool[-1 if self.rng.random() < 0.8 else int(self.rng.integers(len(self.pool)))]
            every = (self.transpose, self.reshape, self.squeeze, self.unsqueeze, self.relu, self.matmul, self.add, self.concat,
                     self.slice, self.gather, self.mean, self.gemm, self.image, self.two, self.where, self.tile,
                     self.picked, self.replaced)  # fmt: skip
            every[int(self.rng.integers(len(every)))](name, shape)
        name, shape = self.pool[-1]
        flat = self.b.node("Reshape", [name, self.b.weight(ints(1 if batch == 1 else -1, math.prod(shape)), np.int64)])
        y = self.b.dense(self.b.activation(flat, (math.prod(shape),)), math.prod(shape), 3)
        ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *self.x[1:]])]
        last = [helper.make_tensor_value_info(y, TensorProto.FLOAT, [batch, 3])]
        graph = helper.make_graph(self.b.nodes, "g", ends, last, self.b.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.b.opset)], ir_version=8)

    def keep(self, name: str, shape: Shape) -> None:
        if math.prod(shape) <= 120:
            self.pool.append((name, tuple(int(n) for n in shape)))

    def transpose(self, x: str, shape: Shape) -> None:
        perm = [int(i) for i in self.rng.permutation(len(shape))]
        self.keep(self.b.node("Transpose", [x], perm=perm), tuple(shape[i] for i in perm))

    def reshape(self, x: str, shape: Shape) -> None:
        rest, parts = math.prod(shape), []
        for _ in range(int(self.rng.integers(0, 3))):
            parts.append(int(self.rng.choice([d for d in range(1, rest + 1) if rest % d == 0])))
            rest //= parts[-1]
        parts.insert(int(self.rng.integers(len(parts) + 1)), rest)
        self.keep(self.b.node("Reshape", [x, self.b.weight(ints(*parts), np.int64)]), tuple(parts))

    def squeeze(self, x: str, shape: Shape) -> None:
        ones = [i for i, n in enumerate(shape) if n == 1]
        if ones and len(shape) > 1:
            axis = int(self.rng.choice(ones))
            self.keep(self.b.node("Squeeze", [x, self.b.weight(ints(axis), np.int64)]), (*shape[:axis], *shape[axis + 1 :]))

    def unsqueeze(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(len(shape) + 1))
        if len(shape) < 5:
            self.keep(self.b.node("Unsqueeze", [x, self.b.weight(ints(axis), np.int64)]), (*shape[:axis], 1, *shape[axis:]))

    def relu(self, x: str, shape: Shape) -> None:
        self.keep(self.b.node(str(self.rng.choice(["Relu", "Abs"])), [x]), shape)

    def matmul(self, x: str, shape: Shape) -> None:
        if len(shape) < 2:
            return
        if self.rng.random() < 0.3 and len(shape) > 2:
            left = self.b.weight(self.b.gauss(2, shape[-2], fan=shape[-2]))
            self.keep(self.b.node("MatMul", [left, x]), (*shape[:-2], 2, shape[-1]))
        else:
            self.keep(self.b.node("MatMul", [x, self.b.weight(self.b.gauss(shape[-1], 3, fan=shape[-1]))]), (*shape[:-1], 3))

    def add(self, x: str, shape: Shape) -> None:
        c = self.b.gauss(*(n if self.rng.random() < 0.6 else 1 for n in shape), fan=2)
        if (shape and shape[0] != 1) or not shape:
            c = c[None] if self.rng.random() < 0.2 else c
        elif c.ndim:
            c = c[:1]
        out = np.broadcast_shapes(shape, c.shape)
        self.keep(self.b.node(str(self.rng.choice(["Add", "Mul", "Sub"])), [x, self.b.weight(c)]), out)

    def two(self, x: str, shape: Shape) -> None:
        same = [n for n, s in self.pool if s == shape]
        self.keep(self.b.node("Add", [x, str(self.rng.choice(same))]), shape)

    def concat(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(len(shape)))
        rest = shape[:axis] + shape[axis + 1 :]
        others = [(n, s) for n, s in self.pool if s[:axis] + s[axis + 1 :] == rest and len(s) == len(shape)]
        other, its = others[int(self.rng.integers(len(others)))]
        given = axis if self.rng.random() < 0.5 else axis - len(shape)
        self.keep(self.b.node("Concat", [x, other], axis=given), (*shape[:axis], shape[axis] + its[axis], *shape[axis + 1 :]))

    def _axis(self, shape: Shape) -> int:
        """Not axis 0 where that may be the batch axis."""
        return int(self.rng.integers(1 if shape[0] == 1 else 0, len(shape))) if len(shape) > 1 or shape[0] != 1 else -1

    def slice(self, x: str, shape: Shape) -> None:
        axis = self._axis(shape)
        if axis < 0:
            return
        at = int(self.rng.integers(shape[axis]))
        names = [self.b.weight(ints(v), np.int64) for v in (at, shape[axis], axis - len(shape) if at else axis)]
        self.keep(self.b.node("Slice", [x, *names]), (*shape[:axis], shape[axis] - at, *shape[axis + 1 :]))

    def gather(self, x: str, shape: Shape) -> None:
        axis = self._axis(shape)
        if axis < 0:
            return
        if self.rng.random() < 0.5:
            index = self.b.weight(np.array(self.rng.integers(shape[axis])), np.int64)
            self.keep(self.b.node("Gather", [x, index], axis=axis), (*shape[:axis], *shape[axis + 1 :]))
        else:
            index = self.b.weight(self.rng.integers(0, shape[axis], 2), np.int64)
            self.keep(self.b.node("Gather", [x, index], axis=axis), (*shape[:axis], 2, *shape[axis + 1 :]))

    def mean(self, x: str, shape: Shape) -> None:
        axis = self._axis(shape)
        if axis >= 0:
            self.keep(self.b.node("ReduceMean", [x], axes=[axis], keepdims=1), (*shape[:axis], 1, *shape[axis + 1 :]))

    def gemm(self, x: str, shape: Shape) -> None:
        if len(shape) != 2:
            return
        weight, bias = self.b.weight(self.b.gauss(3, shape[1], fan=shape[1])), self.b.weight(self.b.gauss(3, fan=2))
        self.keep(self.b.node("Gemm", [x, weight, bias], transB=1, alpha=0.8, beta=1.3), (shape[0], 3))

    def image(self, x: str, shape: Shape) -> None:
        if len(shape) != 4 or min(shape[2:]) < 2:
            return
        kind = str(self.rng.choice(["Conv", "MaxPool", "AveragePool", "BatchNormalization", "GlobalAveragePool", "Upsample"]))
        n, c, h, w = shape
        if kind == "Conv":
            weights = [self.b.weight(self.b.gauss(2, c, 2, 2, fan=4 * c)), self.b.weight(self.b.gauss(2, fan=2))]
            self.keep(self.b.node(kind, [x, *weights]), (n, 2, h - 1, w - 1))
        elif kind == "BatchNormalization":
            self.keep(self.b.node(kind, [x, *(self.b.weight(self.rng.uniform(0.5, 1.5, c)) for _ in range(4))]), shape)
        elif kind == "GlobalAveragePool":
            self.keep(self.b.node(kind, [x]), (n, c, 1, 1))
        elif kind == "Upsample":
            scales = self.b.weight(np.array([1, 1, 2, 1]))
            self.keep(self.b.node("Resize", [x, "", scales], mode="linear"), (n, c, 2 * h, w))
        else:
            self.keep(self.b.node(kind, [x], kernel_shape=[2, 2]), (n, c, h - 1, w - 1))

    def where(self, x: str, shape: Shape) -> None:
        if shape:
            condition = self.b.weight(self.rng.random(shape[-1]) < 0.5, bool)
            self.keep(self.b.node("Where", [condition, x, self.b.weight(np.array(0.3))]), shape)

    def picked(self, x: str, shape: Shape) -> None:
        """GatherND behind axis 0, or GatherElements along another axis."""
        if len(shape) > 1 and self.rng.random() < 0.5:
            index = self.rng.integers(0, shape[1], (shape[0], 2, 1))
            y = self.b.node("GatherND", [x, self.b.weight(index, np.int64)], batch_dims=1)
            self.keep(y, (shape[0], 2, *shape[2:]))
        elif len(shape) > 1 and shape[0] != 1:
            index = self.rng.integers(0, shape[0], (2,))
            self.keep(self.b.node("GatherND", [x, self.b.weight(index[:, None], np.int64)]), (2, *shape[1:]))
        elif len(shape) > 1:
            index = self.rng.integers(-shape[-1], shape[-1], (*shape[:-1], 3))
            self.keep(self.b.node("GatherElements", [x, self.b.weight(index, np.int64)], axis=-1), (*shape[:-1], 3))

    def replaced(self, x: str, shape: Shape) -> None:
        if len(shape) > 1:
            index = self.b.weight(ints(0, shape[1] - 1), np.int64)
            updates = [n for n, s in self.pool if s == shape[2:]] or [self.b.weight(self.b.gauss(*shape[2:], fan=2))]
            self.keep(self.b.node("ScatterND", [x, index, updates[0]]), shape)

    def tile(self, x: str, shape: Shape) -> None:
        repeats = [1, *(int(r) for r in self.rng.integers(1, 3, len(shape) - 1))] if shape else []
        if repeats:
            out = tuple(n * r for n, r in zip(shape, repeats, strict=True))
            self.keep(self.b.node("Tile", [x, self.b.weight(ints(*repeats), np.int64)]), out)


def stays_within_bounds(model: Model, seed: int) -> None:
    network = lower(model)
    rng = np.random.default_rng(seed)
    centre = rng.random((1, *model.input_shape))
    radius = rng.random((1, *model.input_shape)) * 0.2
    points = (centre + radius * np.clip(rng.normal(size=(20, *model.input_shape)), -1, 1)).astype(np.float32)
    want = Runtime(model).logits(points, one_by_one=True)
    with torch.no_grad():
        found = network.forward(torch.from_numpy(points.astype(np.float64))).numpy()
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4 * (1 + np.abs(want).max()))
    lower_end, upper_end = (torch.from_numpy(centre + s * radius) for s in (-1, 1))
    # rounded to float32, a point may lie outside by a bit
    values = network.values(torch.from_numpy(points.astype(np.float64)).clamp(lower_end, upper_end))
    for method in ("ibp", "crown"):
        result = compute_bounds(network, lower_end, upper_end, method=method)
        for op in network.nonlinear:
            low, high = result.pre[op.output]
            z = values[op.inputs[0]]
            assert (z >= low - 1e-9).all()
            assert (z <= high + 1e-9).all()


@pytest.mark.parametrize("part", range(4))
def test_random_graphs(part: int) -> None:
    read, refused = 0, []
    for seed in range(60 * part, 60 * (part + 1)):
        try:
            stays_within_bounds(load_model(_Graph(seed).model(1 if seed % 2 else "N")), seed)
            read += 1
        except UnsupportedOperatorError as error:
            refused.append(str(error))
    assert read >= 50, refused
    # the rest: axis 0 of length 1 in a place where it can be the batch axis only
    assert all("axis" in line or "axes" in line or "rows" in line for line in refused), refused


CASES = [
    Case("Transpose", ((3, 4),), {"perm": [1, 0, 2]}),
    Case("Transpose", ((1, 4),)),
    Case("Transpose", ((4,),)),
    Case("Squeeze", ((1, 4),), {"axes": [0]}, (7, 11)),
    Case("Squeeze", ((3, 4), ints(0)), opsets=(13,)),
    Case("Unsqueeze", ((4,), ints(0))),
    Case("Flatten", ((2, 3, 4),), {"axis": 0}),
    Case("Flatten", ((2, 3, 4),), {"axis": 2}, (9, 13)),
    Case("Reshape", ((2, 3, 4), ints(6, 4))),
    Case("Reshape", ((2, 3, 4), ints(-1))),
    Case("Concat", ((2, 3), (2, 3)), {"axis": 0}, (7, 13)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_node_that_moves_the_batch_axis(case: Case) -> None:
    for opset in case.opsets:
        feeds = {n: random((1, *s), i) for i, (n, s) in enumerate(case.variables.items())}
        (want,) = run(case.model(opset), feeds)
        values = {n: torch.from_numpy(v) for n, v in feeds.items()}
        for op in _read(case.node(opset)):
            values[op.output] = op.forward(*[values[n] for n in op.inputs])
        got = values["y0"].numpy()
        assert got.shape[1:] == (want.shape[1:] if want.shape[0] == 1 else want.shape)
        np.testing.assert_array_equal(got.reshape(want.shape), want)


def model_of(nodes: list[Any], shape: Shape, rows: Shape, batch: int | str, weights: list[Any]) -> Model:
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])]
    last = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, *rows])]
    graph = helper.make_graph(nodes, "g", ends, last, weights)
    return load_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))


def _relu_model(merged: bool, batch: int | str) -> Model:
    """A Relu behind a Transpose to (time, batch, values), or behind a Reshape to (batch * time, values)."""
    make, number = helper.make_node, onnx.numpy_helper.from_array
    front = make("Reshape", ["x", "rows"], ["a"]) if merged else make("Transpose", ["x"], ["a"], perm=[1, 0, 2])
    back = [make("Identity", ["c"], ["d"])] if merged else [make("Transpose", ["c"], ["d"], perm=[1, 0, 2])]
    nodes = [front, make("MatMul", ["a", "w"], ["b"]), make("Relu", ["b"], ["c"]), *back,
             make("Reshape", ["d", "flat"], ["e"]), make("Gemm", ["e", "v"], ["y"])]  # fmt: skip
    weights = [number(ints(-1, 3), "rows"), number(random((3, 4)), "w"), number(ints(-1, 20), "flat"), number(random((20, 3)), "v")]
    return model_of(nodes, (5, 3), (3,), batch, weights)


@pytest.mark.parametrize(("merged", "batch"), [(False, "N"), (False, 1), (True, 1), (True, "N")])
def test_substitutes_behind_a_moved_batch_axis(merged: bool, batch: int | str) -> None:
    model = _relu_model(merged, batch)
    network = lower(model)
    (relu,) = network.activations
    assert isinstance(relu, Activation)
    kept = np.arange(20).reshape(relu.out_shape) % 3 == 0
    part = Substituted.of(relu, kept, random(relu.out_shape, 3), random(relu.out_shape, 4))
    substitute = network.replace({relu.output: part})
    rows = random((3, 5, 3), 7)
    with torch.no_grad():
        want = substitute.forward(torch.from_numpy(rows.astype(np.float64))).numpy()
    files = [compact(model, substitute)]
    if merged and batch == "N":
        with pytest.raises(UnsupportedOperatorError, match="merged with another one; use --layout compact"):
            inplace(model, substitute)
    else:
        files.append(inplace(model, substitute))
    for file in files:
        found = Runtime(load_model(file)).logits(rows)
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)
        if batch == "N":  # the file takes three rows at once too
            again = Runtime(load_model(file))
            assert again._rows_apart(again._logits_of(rows))


def test_what_has_no_rule_behind_a_moved_batch_axis_is_refused() -> None:
    make = helper.make_node
    nodes = [make("Transpose", ["x"], ["a"], perm=[1, 0, 2]), make("QuantizeLinear", ["a", "s"], ["q"]),
             make("ConvInteger", ["q", "w"], ["i"]), make("Cast", ["i"], ["b"], to=onnx.TensorProto.FLOAT),
             make("Reshape", ["b", "flat"], ["c"]), make("Gemm", ["c", "v"], ["y"])]  # fmt: skip
    number = onnx.numpy_helper.from_array
    more = [number(np.asarray(0.1, dtype=np.float32), "s"), number(np.ones((1, 1, 1), dtype=np.uint8), "w")]
    model = model_of(nodes, (5, 3), (3,), 1, [number(ints(1, 15), "flat"), number(random((15, 3)), "v"), *more])
    with pytest.raises(UnsupportedOperatorError, match=r"ConvInteger .* and its meaning there is not known"):
        lower_nodes(model.nodes, model.input, model.input_shape, model.output)


@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4, 3, 2)])
def test_neighbouring_channels_behind_a_moved_batch_axis(shape: Shape) -> None:
    make, number = helper.make_node, onnx.numpy_helper.from_array
    perm = [1, 0, *range(2, len(shape) + 1)]
    size = math.prod(shape)
    nodes = [make("Transpose", ["x"], ["a"], perm=perm), make("LRN", ["a"], ["b"], size=3, alpha=0.4),
             make("Reshape", ["b", "flat"], ["c"]), make("Gemm", ["c", "v"], ["y"])]  # fmt: skip
    # channels of the file are axis 1: the batch axis, which has one
    nodes = nodes if len(shape) == 3 else [make("Reshape", ["x", "rows"], ["a"]), *nodes[1:]]
    weights = [number(ints(1, size), "flat"), number(random((size, 3)), "v"), number(ints(*shape), "rows")]
    stays_within_bounds(model_of(nodes, shape, (3,), 1, weights), 3)
