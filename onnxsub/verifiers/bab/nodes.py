"""Nodes of the tree, many at a time, and how they are kept compactly while they wait."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.ops.base import Array
from onnxsub.propagate.backward import flattened

__all__ = ["Nodes", "Waiting"]

_LARGEST = 65000.0  # half precision goes no further


@dataclass(frozen=True, eq=False)
class Nodes:
    """B nodes. A split says on which side of a threshold a pre-activation lies: `side * (z - threshold) >= 0`.

    Attributes:
        target: row of the frame, `(B,)`.
        layer: number of the activation, `(B, D)`; -1: no split (padding).
        unit: flat position, `(B, D)`.
        side: 1 or -1, `(B, D)`.
        threshold: `(B, D)` float64.
        alpha: position of the lower lines, by activation, `(B, *shape)` float32.
        beta: multiplier of each split, `(B, D)` float32, >= 0.
        gamma: multiplier of each cut of the frame, all activations one after the other, `(B, C)` float32, >= 0.
        radius: the node's distance bound, `(B,)` float64.
        low, high: box of offsets, `(B, n)` float64.
        lower, upper: intervals of the pre-activations, by activation, `(B, *shape)` float64.
    """

    target: Tensor
    layer: Tensor
    unit: Tensor
    side: Tensor
    threshold: Tensor
    alpha: tuple[Tensor, ...]
    beta: Tensor
    gamma: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor
    lower: tuple[Tensor, ...]
    upper: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.target)

    @property
    def depth(self) -> int:
        return self.layer.shape[1]

    def take(self, rows: Tensor) -> Nodes:
        return Nodes(
            self.target[rows], self.layer[rows], self.unit[rows], self.side[rows], self.threshold[rows],
            tuple(a[rows] for a in self.alpha), self.beta[rows], self.gamma[rows], self.radius[rows],
            self.low[rows], self.high[rows],
            tuple(a[rows] for a in self.lower), tuple(a[rows] for a in self.upper),
        )  # fmt: skip

    @staticmethod
    def joined(parts: list[Nodes]) -> Nodes:
        """Batches of one depth one after the other."""

        def one(name: str) -> Tensor:
            return torch.cat([getattr(p, name) for p in parts])

        def many(name: str) -> tuple[Tensor, ...]:
            return tuple(torch.cat(t) for t in zip(*(getattr(p, name) for p in parts), strict=True))

        return Nodes(
            one("target"), one("layer"), one("unit"), one("side"), one("threshold"), many("alpha"), one("beta"), one("gamma"),
            one("radius"), one("low"), one("high"), many("lower"), many("upper"),
        )  # fmt: skip

    def children(self, layer: Tensor, unit: Tensor, threshold: Tensor, push: Tensor | None = None) -> Nodes:
        """Both sides of one split per node, `(2B)`: first all upper sides, then all lower ones.

        Args:
            push: multipliers of the split, `(2, B)`; None: 0.
        """
        both = [torch.cat([t, t]) for t in (self.target, self.layer, self.unit, self.side, self.threshold, self.beta, self.radius)]
        target, old_layer, old_unit, old_side, old_threshold, beta, radius = both
        n = len(self)
        side = torch.cat([old_side.new_ones(n), -old_side.new_ones(n)])
        lower, upper = [], []
        rows = torch.arange(n, device=layer.device)
        for number, (l, u) in enumerate(zip(self.lower, self.upper, strict=True)):
            l, u = torch.cat([l, l]), torch.cat([u, u])
            mine = torch.nonzero(layer == number)[:, 0]
            flat, at = flattened(l, 1), unit[mine]
            flat[rows[mine], at] = torch.maximum(flat[rows[mine], at], threshold[mine])
            flat = flattened(u, 1)
            flat[n + rows[mine], at] = torch.minimum(flat[n + rows[mine], at], threshold[mine])
            lower.append(l)
            upper.append(u)
        return Nodes(
            target,
            torch.cat([old_layer, torch.cat([layer, layer])[:, None].to(old_layer.dtype)], 1),
            torch.cat([old_unit, torch.cat([unit, unit])[:, None].to(old_unit.dtype)], 1),
            torch.cat([old_side, side[:, None]], 1),
            torch.cat([old_threshold, torch.cat([threshold, threshold])[:, None]], 1),
            tuple(torch.cat([a, a]) for a in self.alpha),
            torch.cat([beta, beta.new_zeros((2 * n, 1)) if push is None else push.reshape(2 * n, 1).to(beta)], 1),
            torch.cat([self.gamma, self.gamma]),
            radius,
            torch.cat([self.low, self.low]),
            torch.cat([self.high, self.high]),
            tuple(lower),
            tuple(upper),
        )


@dataclass(frozen=True, eq=False)
class Waiting:
    """One node at rest: splits without padding, slopes in steps of 1/255, multipliers of cuts in half precision (all are sound).

    `key` is what the frontier orders by (`frontier.py`).
    """

    target: int
    layer: Array
    unit: Array
    side: Array
    threshold: Array
    alpha: Array
    beta: Array
    gamma: Array
    radius: float
    box: Array
    ends: Array
    key: float

    @property
    def nbytes(self) -> int:
        """Bytes, about."""
        return 300 + self.alpha.nbytes + self.gamma.nbytes + self.box.nbytes + self.ends.nbytes + 20 * len(self.layer)


def pack(nodes: Nodes, keys: Tensor) -> list[Waiting]:
    """Nodes at rest, on the processor.

    Args:
        keys: `(B,)`.
    """
    flat = [torch.round(flattened(a, 1) * 255).to(torch.uint8) for a in nodes.alpha]
    alpha = torch.cat(flat, 1).cpu().numpy() if flat else np.zeros((len(nodes), 0), dtype=np.uint8)
    found = []
    layer, unit = nodes.layer.cpu().numpy().astype(np.int16), nodes.unit.cpu().numpy().astype(np.int32)
    side, threshold = nodes.side.cpu().numpy().astype(np.int8), nodes.threshold.cpu().numpy()
    box = _outward(nodes.low, nodes.high)
    ends = _outward(*(_flat(e, len(nodes)) for e in (nodes.lower, nodes.upper)))
    beta, target, radius = nodes.beta.cpu().numpy().astype(np.float32), nodes.target.tolist(), nodes.radius.tolist()
    key = keys.tolist()
    gamma = nodes.gamma.clamp(max=_LARGEST).half().cpu().numpy()
    for i in range(len(nodes)):
        used = layer[i] >= 0
        found.append(
            Waiting(
                target[i], layer[i][used], unit[i][used], side[i][used], threshold[i][used], alpha[i].copy(), beta[i][used],
                gamma[i].copy(), radius[i], box[i].copy(), ends[i].copy(), key[i],
            )
        )  # fmt: skip
    return found


def _flat(parts: tuple[Tensor, ...], count: int) -> Tensor:
    return torch.cat([flattened(t, 1) for t in parts], 1) if parts else torch.zeros((count, 0), dtype=torch.float64)


def _outward(lower: Tensor, upper: Tensor) -> Array:
    """Both ends as float32, `(B, 2, m)`, rounded so that the interval contains what it did."""
    both = np.stack([lower.double().cpu().numpy(), upper.double().cpu().numpy()], 1)
    with np.errstate(over="ignore"):
        short = both.astype(np.float32)
    short[:, 0] = np.where(short[:, 0] > both[:, 0], np.nextafter(short[:, 0], np.float32(-np.inf)), short[:, 0])
    short[:, 1] = np.where(short[:, 1] < both[:, 1], np.nextafter(short[:, 1], np.float32(np.inf)), short[:, 1])
    return short


def unpack(
    waiting: list[Waiting], shapes: list[tuple[int, ...]], device: torch.device | str = "cpu", cuts: int | None = None
) -> Nodes:
    """Nodes at rest as a batch again, on a device.

    Args:
        cuts: how many the frame has; nodes from before they were made have no multipliers for them yet.
    """
    depth = max(len(w.layer) for w in waiting)
    count = len(waiting)
    layer = np.full((count, depth), -1, dtype=np.int64)
    unit = np.zeros((count, depth), dtype=np.int64)
    side = np.ones((count, depth), dtype=np.int64)
    threshold, beta = np.zeros((count, depth)), np.zeros((count, depth), dtype=np.float32)
    for i, w in enumerate(waiting):
        d = len(w.layer)
        layer[i, :d], unit[i, :d], side[i, :d], threshold[i, :d], beta[i, :d] = w.layer, w.unit, w.side, w.threshold, w.beta
    flat = torch.from_numpy(np.stack([w.alpha for w in waiting])).to(device).float() / 255
    sizes = [int(np.prod(s)) for s in shapes]

    def parts(t: Tensor) -> tuple[Tensor, ...]:
        return tuple(p.reshape(count, *s) for p, s in zip(torch.split(t, sizes, 1), shapes, strict=True)) if sizes else ()

    alpha = parts(flat)
    gammas = np.zeros((count, max(len(w.gamma) for w in waiting) if cuts is None else cuts), dtype=np.float32)
    for i, w in enumerate(waiting):
        gammas[i, : len(w.gamma)] = w.gamma
    gamma = torch.from_numpy(gammas).to(device)
    box = torch.from_numpy(np.stack([w.box for w in waiting])).to(device).double()
    ends = torch.from_numpy(np.stack([w.ends for w in waiting])).to(device).double()
    return Nodes(
        torch.tensor([w.target for w in waiting], device=device), torch.from_numpy(layer).to(device),
        torch.from_numpy(unit).to(device), torch.from_numpy(side).to(device), torch.from_numpy(threshold).to(device), alpha,
        torch.from_numpy(beta).to(device), gamma, torch.tensor([w.radius for w in waiting], dtype=torch.float64, device=device),
        box[:, 0], box[:, 1], parts(ends[:, 0]), parts(ends[:, 1]),
    )  # fmt: skip
