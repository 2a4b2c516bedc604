"""Frames, points and random nodes for the tests of branch and bound."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array
from onnxsub.verifiers.bab.bound import Bounded, Bounder
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.nodes import Nodes
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.bracket import in_margin_units
from tests.verifiers.nets import UNIT, box_model, logits


def target_models(
    network: Network, x0: Array, label: int, radius: float, *, tight: bool = True, fold: str = "auto"
) -> list[ClauseModel]:
    """What bounds leave open on `B(radius)`, with logits in units of the margin at the anchor."""
    network = in_margin_units(network, x0, label)
    local = box_model(network, x0, label, radius, fold=fold, tighten="cut" if tight else "none")
    return [m for m in (local.clause(t) for t in local.open) if m is not None]


def frame_of(network: Network, x0: Array, label: int, radius: float, *, tight: bool = True, fold: str = "auto") -> Frame | None:
    """The frame of all targets that bounds leave open on `B(radius)`; None where there is none."""
    models = target_models(network, x0, label, radius, tight=tight, fold=fold)
    return Frame.of(models) if models else None


def margins_of(network: Network, label: int, x: Array) -> Tensor:
    """`f_t - f_y` per class, -inf for y: `(N, classes)`."""
    f = torch.as_tensor(logits(network)(x))
    found = f - f[:, label : label + 1]
    found[:, label] = -torch.inf
    return found


@dataclass(frozen=True, eq=False)
class Sample:
    """Points of a frame's ball and what the network makes of them.

    Attributes:
        offsets: `x - x0`, `(N, n)`.
        values: what each operator that is split reads, flat.
        margins: `f_t - f_y`, `(N, classes)`.
    """

    offsets: Tensor
    values: list[Tensor]
    margins: Tensor

    @staticmethod
    def of(frame: Frame, seed: int, count: int = 800) -> Sample:
        """Points everywhere, many of them near the boundary; only those at which some target is reached are kept."""
        rng = np.random.default_rng(seed)
        shape = frame.network.input_shape
        x0 = frame.x0.numpy().reshape(shape)
        low, high = UNIT.ball(x0, frame.radius)
        corners = np.where(rng.random((count, *shape)) < 0.5, low, high)
        # offsets with many zeros reach what dense ones do not
        sparse = np.where(rng.random((count, *shape)) < 0.5, corners, x0)
        far = np.concatenate([rng.uniform(low, high, (count, *shape)), corners, sparse])
        reached = far[(margins_of(frame.network, frame.label, far).amax(1) >= 0).numpy()][:count]
        # the boundary on the way from the anchor, and points round it
        inside, outside = np.broadcast_to(x0, reached.shape), reached
        for _ in range(25):
            middle = (inside + outside) / 2
            ahead = (margins_of(frame.network, frame.label, middle).amax(1) >= 0).numpy().reshape(-1, *[1] * len(shape))
            inside, outside = np.where(ahead, inside, middle), np.where(ahead, middle, outside)
        size = rng.choice([1e-3, 1e-2, 1e-1], (len(outside), *[1] * len(shape)))
        moved = np.clip(outside + frame.radius * size * rng.uniform(-1, 1, outside.shape), low, high)
        x = np.concatenate([far, outside, moved])
        x = x[(margins_of(frame.network, frame.label, x).amax(1) >= 0).numpy()]
        with torch.no_grad():
            values = [v.flatten(1) for v in frame.values(torch.as_tensor(x))]
        return Sample(torch.as_tensor(x).flatten(1) - frame.x0, values, margins_of(frame.network, frame.label, x))

    def of_node(self, frame: Frame, nodes: Nodes, i: int) -> Tensor:
        """The points that node i must account for: its splits hold and its target is reached; as numbers."""
        good = self.margins[:, frame.targets[int(nodes.target[i])]] >= 0
        splits = zip(nodes.layer[i].tolist(), nodes.unit[i].tolist(), nodes.side[i], nodes.threshold[i], strict=True)
        for layer, unit, side, threshold in splits:
            if layer >= 0:
                good = good & (side * (self.values[layer][:, unit] - threshold) >= 0)
        return torch.nonzero(good)[:, 0]


def check_nodes(frame: Frame, nodes: Nodes, sample: Sample, bounded: Bounded | None = None) -> int:
    """Asserts what every node claims of its points, and says how many points there were."""
    seen = 0
    for i in range(len(nodes)):
        rows = sample.of_node(frame, nodes, i)
        seen += len(rows)
        if len(rows) == 0:
            continue
        delta = sample.offsets[rows]
        assert float(delta.abs().amax(1).min()) >= float(nodes.radius[i]) - 1e-9
        assert (delta >= nodes.low[i] - 1e-12).all()
        assert (delta <= nodes.high[i] + 1e-12).all()
        for value, lower, upper in zip(sample.values, nodes.lower, nodes.upper, strict=True):
            z = value[rows]
            assert (z >= lower[i].flatten() - 1e-9).all()
            assert (z <= upper[i].flatten() + 1e-9).all()
        if bounded is not None:
            above = delta @ bounded.line.c[i] + bounded.line.k[i] - sample.margins[rows, frame.targets[int(nodes.target[i])]]
            assert float(above.min()) >= 0
    return seen


def random_multipliers(nodes: Nodes, rng: np.random.Generator) -> Nodes:
    """Slopes anywhere in [0, 1], both ends among them, and multipliers of all sizes."""
    alpha = tuple(torch.as_tensor(np.clip(rng.uniform(-0.3, 1.3, a.shape), 0, 1), dtype=torch.float32) for a in nodes.alpha)
    size = rng.choice([0.0, 0.01, 0.3, 3.0], tuple(nodes.beta.shape))
    return replace(nodes, alpha=alpha, beta=torch.as_tensor(size * rng.random(size.shape), dtype=torch.float32))


def random_split(bounder: Bounder, nodes: Nodes, rng: np.random.Generator) -> Nodes:
    """Both children of a random split per node: at a kink or anywhere in the unit's interval."""
    layers, units, thresholds = [], [], []
    for i in range(len(nodes)):
        number = int(rng.integers(len(bounder.splits)))
        op = bounder.splits[number]
        lower, upper = (ends[number][i].flatten() for ends in (nodes.lower, nodes.upper))
        wide = torch.nonzero(upper > lower)[:, 0].numpy()
        unit = int(rng.choice(wide)) if len(wide) else 0
        l, u = float(lower[unit]), float(upper[unit])
        kinks = op.kinks(lower) if isinstance(op, Activation) else ()
        inner = [float(k[unit]) for k in kinks if l < float(k[unit]) < u]
        layers.append(number)
        units.append(unit)
        thresholds.append(float(rng.choice(inner)) if inner and rng.random() < 0.7 else l + (u - l) * rng.random())
    return nodes.children(torch.tensor(layers), torch.tensor(units), torch.tensor(thresholds, dtype=torch.float64))
