"""Random graphs of every operator family: branches, two readers of one tensor, pooling, splits, activations on the input."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.random_models import ACTIVATIONS, Builder

__all__ = ["random_dag"]

Shape = tuple[int, ...]


class _Dag:
    """A pool of tensors (C, H, W) that every step reads from and adds to."""

    def __init__(self, seed: int, activations: tuple[str, ...]) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = Builder(self.rng, activations)
        self.shape: Shape = (int(self.rng.integers(1, 4)), int(self.rng.integers(4, 7)), int(self.rng.integers(4, 7)))
        self.pool: list[tuple[str, Shape]] = [("x", self.shape)]

    def pick(self) -> tuple[str, Shape]:
        # recent tensors more often, old ones (the input too) now and then
        n = len(self.pool)
        return self.pool[int(n - 1 - min(n - 1, self.rng.geometric(0.5) - 1))]

    def step(self) -> None:
        steps = (
            self.activation, self.activation, self.conv, self.max_pool, self.average, self.add, self.concat, self.split, self.scale,
            self.pad, self.gather, self.transpose, self.up, self.mean,
        )  # fmt: skip
        x, shape = self.pick()
        steps[int(self.rng.integers(len(steps)))](x, shape)

    def keep(self, name: str, shape: Shape) -> None:
        self.pool.append((name, shape))

    def activation(self, x: str, shape: Shape) -> None:
        self.keep(self.b.activation(x, shape), shape)

    def conv(self, x: str, shape: Shape) -> None:
        if min(shape[1:]) >= 2:
            y, out = self.b.conv(x, shape, int(self.rng.integers(1, 4)), int(self.rng.integers(1, 3)))
            self.keep(y, out)

    def max_pool(self, x: str, shape: Shape) -> None:
        if min(shape[1:]) < 3:
            return
        pads = [int(p) for p in self.rng.integers(0, 2, 4)]
        stride = [int(s) for s in self.rng.integers(1, 3, 2)]
        y = self.b.node("MaxPool", [x], kernel_shape=[2, 3], strides=stride, pads=pads)
        out = [(n + pads[i] + pads[i + 2] - k) // s + 1 for i, (n, k, s) in enumerate(zip(shape[1:], (2, 3), stride, strict=True))]
        self.keep(y, (shape[0], *out))

    def average(self, x: str, shape: Shape) -> None:
        if min(shape[1:]) >= 2:
            self.keep(self.b.node("AveragePool", [x], kernel_shape=[2, 2]), (shape[0], shape[1] - 1, shape[2] - 1))

    def add(self, x: str, shape: Shape) -> None:
        same = [n for n, s in self.pool if s == shape]
        other = str(self.rng.choice(same))  # x itself, now and then
        self.keep(self.b.node(str(self.rng.choice(["Add", "Sub"])), [x, other]), shape)

    def concat(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(3))
        rest = [(n, s) for n, s in self.pool if s[:axis] + s[axis + 1 :] == shape[:axis] + shape[axis + 1 :]]
        other, its = rest[int(self.rng.integers(len(rest)))]
        if shape[axis] + its[axis] <= 12:
            out = (*shape[:axis], shape[axis] + its[axis], *shape[axis + 1 :])
            self.keep(self.b.node("Concat", [x, other], axis=axis + 1), out)

    def split(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(3))
        n = shape[axis]
        if n < 2:
            return
        sizes = [n // 2, n - n // 2]
        names = [f"{self.b.fresh()}_{i}" for i in range(2)]
        sizes_name = self.b.weight(np.array(sizes), np.int64)
        self.b.nodes.append(helper.make_node("Split", [x, sizes_name], names, name=f"n{len(self.b.nodes)}", axis=axis + 1))
        for name, size in zip(names, sizes, strict=True):
            self.keep(name, (*shape[:axis], size, *shape[axis + 1 :]))

    def scale(self, x: str, shape: Shape) -> None:
        factor = self.rng.uniform(-1.2, 1.2, (shape[0], 1, 1))
        y = self.b.node("Mul", [x, self.b.weight(factor)])
        self.keep(self.b.node("Sub", [self.b.weight(self.rng.normal(size=shape[1:]) / 3), y]), shape)

    def pad(self, x: str, shape: Shape) -> None:
        pads = [0, 0, 1, 0, 0, 0, 0, 1]
        y = self.b.node("Pad", [x, self.b.weight(np.array(pads), np.int64), self.b.weight(np.array(0.3))])
        self.keep(y, (shape[0], shape[1] + 1, shape[2] + 1))

    def gather(self, x: str, shape: Shape) -> None:
        axis = int(self.rng.integers(3))
        index = self.rng.integers(0, shape[axis], int(self.rng.integers(1, 4)))
        y = self.b.node("Gather", [x, self.b.weight(index, np.int64)], axis=axis + 1)
        self.keep(y, (*shape[:axis], len(index), *shape[axis + 1 :]))

    def transpose(self, x: str, shape: Shape) -> None:
        order = [int(i) for i in self.rng.permutation(3)]
        self.keep(self.b.node("Transpose", [x], perm=[0, *(i + 1 for i in order)]), tuple(shape[i] for i in order))

    def up(self, x: str, shape: Shape) -> None:
        if shape[0] * shape[1] * shape[2] <= 60:
            weight = self.b.gauss(shape[0], 2, 2, 2, fan=2 * shape[0])
            y = self.b.node("ConvTranspose", [x, self.b.weight(weight)], strides=[2, 1])
            self.keep(y, (2, 2 * shape[1], shape[2] + 1))

    def mean(self, x: str, shape: Shape) -> None:
        m = self.b.node("ReduceMean", [x], axes=[2, 3], keepdims=1)
        self.keep(self.b.node("Sub", [x, m]), shape)  # broadcast


def random_dag(seed: int, *, activations: tuple[str, ...] = ACTIVATIONS, steps: int = 10, batch: int | str = "N") -> ModelProto:
    """A classifier of inputs in [0, 1]: `steps` random steps, then two or three logits of some of the tensors."""
    dag = _Dag(seed, activations)
    for _ in range(steps):
        dag.step()
    b, rng = dag.b, dag.rng
    parts = [dag.pool[-1], dag.pick(), ("x", dag.shape)][: int(rng.integers(1, 4))]
    names = [b.node("Flatten", [name]) for name, _ in parts]
    flat = b.node("Concat", names, axis=1) if len(names) > 1 else names[0]
    n, classes = sum(int(np.prod(s)) for _, s in parts), int(rng.integers(2, 4))
    y = b.dense(b.activation(b.dense(flat, n, 5), (5,)), 5, classes)
    if rng.random() < 0.2:
        y = b.node("Relu", [y])
    shown = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *dag.shape])]
    logits = [helper.make_tensor_value_info(y, TensorProto.FLOAT, [batch, classes])]
    graph = helper.make_graph(b.nodes, f"dag{seed}", shown, logits, b.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
