"""Dense networks, what an attack must keep to, and the closed form of a linear one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.dense import Dense
from onnxsub.ops.relu import Relu
from onnxsub.passes.attack import AttackOptions, AttackResult
from onnxsub.passes.attack.walk import float64_confirm
from onnxsub.region import InputSpace

__all__ = ["QUICK", "SPACE", "check", "dense", "label_of", "linear_distance", "random_net"]


SPACE = InputSpace()
QUICK = AttackOptions(steps=30, restarts=12, threads=1)


def dense(weights: list[tuple[Array, Array]], *, relu_last: bool = False) -> Network:
    """Gemm, Relu, Gemm, ..."""
    ops: list[Operator] = []
    name, size = "x", weights[0][0].shape[1]
    for i, (w, b) in enumerate(weights):
        out = len(w)
        shapes: dict[str, Any] = {"in_shapes": ((size,),), "out_shape": (out,)}
        ops.append(Dense(op_type="Gemm", node=f"g{i}", inputs=(name,), output=f"z{i}", weight=w, bias=b, **shapes))
        name, size = f"z{i}", out
        if i + 1 < len(weights) or relu_last:
            ops.append(Relu(op_type="Relu", node=f"r{i}", inputs=(name,), output=f"h{i}", in_shapes=((out,),), out_shape=(out,)))
            name = f"h{i}"
    return Network("x", (weights[0][0].shape[1],), name, tuple(ops))


def random_net(seed: int, sizes: tuple[int, ...], *, relu_last: bool = False) -> Network:
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(b, a)) / math.sqrt(a), rng.normal(size=b) * 0.3) for a, b in itertools.pairwise(sizes)]
    return dense(layers, relu_last=relu_last)


def label_of(network: Network, x0: Array) -> int:
    with torch.no_grad():
        return int(network.forward(torch.as_tensor(x0[None], dtype=torch.float64)).argmax())


def check(result: AttackResult, network: Network, x0: Array, label: int, space: InputSpace = SPACE) -> None:
    """What must hold of every point that is handed out."""
    assert result.found
    assert result.x_adv is not None
    assert result.x_adv.dtype == np.float32
    assert result.x_adv.shape == x0.shape
    x = result.x_adv.astype(np.float64)
    assert x.min() >= space.lower
    assert x.max() <= space.upper
    assert result.d_adv == np.abs(x - x0.astype(np.float64)).max()
    margins, labels = float64_confirm(network, label)(result.x_adv[None])
    assert margins[0] > 0
    assert labels[0] == result.adversarial_label


def linear_distance(w: Array, b: Array, x0: Array, label: int, space: InputSpace) -> float:
    """The exact distance of a linear classifier, by bisection over the radius."""
    best = math.inf
    for t in range(len(w)):
        if t == label:
            continue
        g, m = w[t] - w[label], b[t] - b[label]

        def value(r: float, g: Array = g, m: float = m) -> float:
            low, high = space.ball(x0, r)
            return float(m + (g * np.where(g > 0, high, low)).sum())

        low, high = 0.0, space.reach(x0)
        if value(high) < 0:
            continue
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (low, middle) if value(middle) >= 0 else (middle, high)
        best = min(best, high)
    return best
