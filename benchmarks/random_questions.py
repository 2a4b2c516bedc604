"""Random questions to check answers on: networks over the operator table, powers of two, domains, infinite intervals."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.random_dags import random_dag
from tests.random_models import ACTIVATIONS, PIECEWISE, Builder, random_model
from tests.random_modern import random_modern

__all__ = ["Setting", "loosened", "random_setting", "scaled", "small_model"]

Array = np.ndarray[Any, np.dtype[Any]]

_SPACES: tuple[tuple[float, float, float | None, float | None], ...] = (
    (0.0, 1.0, None, None), (0.0, 1.0, None, None), (-1.0, 1.0, None, None), (-0.5, 2.0, None, None), (0.0, 1.0, 0.1307, 0.3081),
    (0.0, 255.0, 0.0, 255.0), (0.0, 255.0, 238.18851229546357, 407.2866164344325), (-1e3, 1e3, 0.0, 1e3), (-1e6, 1e6, 1e5, 1e6),
    (-1e-3, 1e-3, 0.0, 1e-3),
)  # fmt: skip
"""Lower and upper end of the domain, mean and std."""


_ALL = (*ACTIVATIONS, "Softplus", "Softsign", "Erf", "Elu", "Selu", "Celu")


@dataclass(frozen=True, eq=False)
class Setting:
    """A network and where it is asked about.

    Attributes:
        plain: the network; `model`: the same function with a hidden layer times `2**power` and back.
        x0: flat, float32.
    """

    seed: int
    kind: str
    plain: ModelProto
    model: ModelProto
    power: int
    x0: Array
    lower: float
    upper: float
    mean: float | None
    std: float | None


def random_setting(seed: int, *, modern: bool = False) -> Setting:
    """One network, its copy scaled by a power of two in two of five cases, a domain and an anchor.

    Args:
        modern: a network of today's operators, in its own units and in a domain not wider than 2.
    """
    rng = np.random.default_rng([seed, 14])
    draw = rng.random()
    if modern:
        kind, plain = "modern", random_modern(seed, steps=int(rng.integers(1, 5)))
    elif draw < 0.62:
        kind, plain = "small", small_model(rng)
    elif draw < 0.78:
        kind, plain = "dense", random_model(seed, activations=PIECEWISE if rng.random() < 0.7 else _ALL, kind="dense")
    elif draw < 0.93:
        activations = PIECEWISE if rng.random() < 0.6 else _ALL
        kind, plain = "graph", random_dag(seed, activations=activations, steps=int(rng.integers(2, 6)))
    else:
        kind, plain = "conv", random_model(seed, activations=PIECEWISE, kind=str(rng.choice(["conv", "residual"])))
    power = int(rng.integers(-100, 101)) if rng.random() < 0.4 and not modern else 0
    spaces = [s for s in _SPACES if s[1] - s[0] <= 2] if modern else _SPACES
    lower, upper, mean, std = spaces[int(rng.integers(len(spaces)))]
    n = int(np.prod([d.dim_value for d in plain.graph.input[0].type.tensor_type.shape.dim][1:]))
    x0 = (lower + (upper - lower) * rng.random(n)).astype(np.float32)
    return Setting(seed, kind, plain, scaled(plain, power, rng) if power else plain, power, x0, lower, upper, mean, std)


def small_model(rng: np.random.Generator) -> ModelProto:
    """Two to four inputs, at most ten units, the table's operators between them."""
    b = Builder(rng, ("Relu", "Relu", *PIECEWISE))
    n0 = n = int(rng.integers(2, 5))
    x, units = "x", int(rng.integers(3, 11))
    while units > 0:
        m = min(units, int(rng.integers(2, 6)))
        x = b.dense(x, n, m)
        x, n = b.activation(x, (m,)), m
        units -= m
        for _ in range(int(rng.integers(0, 3))):
            x, n = _between(b, rng, x, n, n0)
    classes = int(rng.integers(2, 4))
    y = b.dense(x, n, classes)
    if rng.random() < 0.1:
        y = b.node("Add", [y, b.weight(rng.normal(size=classes) * 0.2)])
    shown = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", n0])]
    logits = [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", classes])]
    graph = helper.make_graph(b.nodes, "small", shown, logits, b.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _between(b: Builder, rng: np.random.Generator, x: str, n: int, n0: int) -> tuple[str, int]:
    """One operator of the table that is affine, on rows `(N, n)`."""
    kind = int(rng.integers(12))
    whole = lambda *values: b.weight(np.array(values), np.int64)  # noqa: E731
    if kind == 0:
        return b.node("Neg", [x]), n
    if kind == 1:
        return b.node("Mul", [x, b.weight(rng.uniform(-1.5, 1.5, n))]), n
    if kind == 2:
        return b.node("Sub", [b.weight(rng.normal(size=n) / 3), x]), n
    if kind == 3:
        return b.node("Div", [x, b.weight(rng.uniform(0.5, 2.0, n))]), n
    if kind == 4:
        return b.node("Concat", [x, "x"], axis=1), n + n0
    if kind == 5:
        index = rng.integers(0, n, int(rng.integers(2, 5)))
        return b.node("Gather", [x, b.weight(index, np.int64)], axis=1), len(index)
    if kind == 6:
        return b.node("Pad", [x, whole(0, 0, 0, 1), b.weight(np.array(0.3))]), n + 1
    if kind == 7 and n > 2:
        return b.node("Slice", [x, whole(1), whole(n), whole(1)]), n - 1
    if kind == 8:
        scale, bias, mean, var = rng.uniform(0.5, 1.5, n), rng.normal(size=n) / 5, rng.normal(size=n) / 5, rng.uniform(0.5, 2, n)
        return b.node("BatchNormalization", [x, *(b.weight(v) for v in (scale, bias, mean, var))]), n
    if kind == 9:
        total = b.node("ReduceSum", [x, whole(1)], keepdims=1)
        return b.node("Concat", [x, total], axis=1), n + 1
    if kind == 10:
        image = b.node("Reshape", [x, whole(-1, 1, 1, n)])
        wide = min(2, n)
        moved = b.node("Conv", [image, b.weight(b.gauss(2, 1, 1, wide, fan=wide)), b.weight(0.3 * rng.normal(size=2))])
        return b.node("Flatten", [moved]), 2 * (n - wide + 1)
    return b.node("Sum", [x, b.node("Mul", [x, b.weight(rng.uniform(-0.5, 0.5, n))]), x]), n


def scaled(proto: ModelProto, power: int, rng: np.random.Generator) -> ModelProto:
    """The same function: a layer before a positively homogeneous activation times `2**power`, what reads it times the inverse.

    Weights are scaled where they belong to this layer only, else a Mul is put in between.
    """
    model = ModelProto()
    model.CopyFrom(proto)
    graph = model.graph
    kinds = ("Relu", "LeakyRelu", "PRelu", "Abs")
    places = [i for i, n in enumerate(graph.node) if n.op_type in kinds and n.input[0] != "x" and _readers(graph, n.input[0]) == 1]
    if not places:
        return model
    node = graph.node[int(rng.choice(places))]
    weights = {w.name: w for w in graph.initializer}
    factor = 2.0**power

    def times(name: str, by: float) -> str:
        fresh = f"{name}:{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array((numpy_helper.to_array(weights[name]) * np.float32(by)), fresh))
        return fresh

    def constant(by: float) -> str:
        fresh = f"factor{len(graph.initializer)}"
        graph.initializer.append(numpy_helper.from_array(np.float32(by), fresh))
        return fresh

    before = next(n for n in graph.node if node.input[0] in n.output)
    if before.op_type in ("Gemm", "Conv"):
        for i in range(1, len(before.input)):
            before.input[i] = times(before.input[i], factor)
    else:
        _insert(graph, helper.make_node("Mul", [node.input[0], constant(factor)], ["scaled:in"]), node)
        node.input[0] = "scaled:in"
    behind = [n for n in graph.node if node.output[0] in n.input]
    if len(behind) == 1 and behind[0].op_type in ("Gemm", "Conv"):
        behind[0].input[1] = times(behind[0].input[1], 1 / factor)
        return model
    old = node.output[0]
    node.output[0] = "scaled:out"
    at = list(graph.node).index(node)
    after = graph.node[at + 1] if at + 1 < len(graph.node) else None
    _insert(graph, helper.make_node("Mul", ["scaled:out", constant(1 / factor)], [old]), after)
    return model


def _readers(graph: Any, name: str) -> int:
    return sum(name in n.input for n in graph.node)


def _insert(graph: Any, node: NodeProto, before: NodeProto | None) -> None:
    nodes = list(graph.node)
    graph.node.insert(len(nodes) if before is None else nodes.index(before), node)


@contextmanager
def loosened(seed: int, share: float = 0.15) -> Iterator[None]:
    """While it lasts, ends of intervals are infinite at random: of every operator's interval and of what bound propagation returns.

    An infinite end is a valid bound, so an answer may become `unknown` and never wrong.
    """
    import onnxsub.propagate.bounds as bounds
    from onnxsub.ops.base import Operator

    rng = np.random.default_rng(seed)
    put_back: list[tuple[Any, str, Any]] = []

    def replace(where: Any, name: str, value: Any) -> None:
        put_back.append((where, name, getattr(where, name)))
        setattr(where, name, value)

    kinds: list[type] = [Operator]
    for kind in kinds:
        kinds.extend(k for k in kind.__subclasses__() if k not in kinds)
        if "interval" in vars(kind):
            replace(kind, "interval", _loose_box(vars(kind)["interval"], rng, share))
    for name, wrap in (("linear_range", _loose_box), ("margin_bounds", _loose_box), ("compute_bounds", _loose_bounds)):
        old = getattr(bounds, name, None)
        new = None if old is None else wrap(old, rng, share)
        for module in [m for key, m in sys.modules.items() if old is not None and key.startswith("onnxsub")]:
            if vars(module).get(name) is old:
                replace(module, name, new)
    try:
        yield
    finally:
        for where, name, value in reversed(put_back):
            setattr(where, name, value)


def _loose(box: Any, rng: np.random.Generator, share: float) -> Any:
    import torch

    if rng.random() > share or not isinstance(box, tuple) or not isinstance(box[0], torch.Tensor):
        return box
    low, high = box[0].clone(), box[1].clone()
    low[torch.from_numpy(rng.random(tuple(low.shape)) < 0.3)] = -torch.inf
    high[torch.from_numpy(rng.random(tuple(high.shape)) < 0.3)] = torch.inf
    return low, high


def _loose_box(function: Callable[..., Any], rng: np.random.Generator, share: float) -> Callable[..., Any]:
    return lambda *args, **kwargs: _loose(function(*args, **kwargs), rng, share)


def _loose_bounds(function: Callable[..., Any], rng: np.random.Generator, share: float) -> Callable[..., Any]:
    import dataclasses

    def call(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        pre = {name: _loose(box, rng, share) for name, box in found.pre.items()}
        return dataclasses.replace(found, pre=pre, output=_loose(found.output, rng, share))

    return call
