r"""A network of Relus as three matrices over the units that a frame leaves open.

Between Relus everything is affine, and a unit that is stable for every target of a frame is affine too. What is left is

    z = A delta + W h + b,    h_j = max(0, z_j),    f_t - f_y = a_t . delta + w_t . h + k_t,

with delta the offset from the anchor, and W zero but from earlier layers to later ones. Convolutions, skip connections and folded
networks all become this. Rows are pulled back through the operators in float64, which is what every linear bound does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from onnxsub.ops.relaxation import Relaxation, Window
from onnxsub.ops.relu import Relu
from onnxsub.propagate.backward import Coefficients, LinearBound, flattened, pull_back
from onnxsub.propagate.chunks import unit_rows
from onnxsub.verifiers.bab.frame import Frame

__all__ = ["Matrices", "Parts", "matrices_of"]

_MOST = 2**22  # coefficients: as convolutions, which have fewer, they take longer up to there
_ROWS = 2**24  # values of all rows of one operator while they are pulled back
_MANY = 64  # rows pulled back at a time


class _Noted(Relaxation):
    """Passes what stays affine, and keeps the coefficients of the open units."""

    def __init__(self, on: Tensor, units: Tensor) -> None:
        self._on, self._units = on, units
        self.seen: Tensor | None = None

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor]:
        self.seen = flattened(a, 2)[0][:, self._units]
        return a * self._on, a.new_zeros(a.shape[:2])


@dataclass(frozen=True, eq=False)
class Parts:
    """The matrices in one precision: a `(U, n)`, w `(U, U)`, b `(U,)`; `(T, n)`, `(T, U)` and `(T,)` of the targets."""

    a: Tensor
    w: Tensor
    b: Tensor
    out_a: Tensor
    out_w: Tensor
    out_k: Tensor


@dataclass(frozen=True, eq=False)
class Matrices:
    """A frame's network.

    Attributes:
        double, single: in float64 and in float32.
        blocks: first and last unit of every Relu, in order.
        units: flat positions of the open units, per Relu.
        place: position of every unit of all Relus among the open ones, -1 for those that are not; `(all units,)`.
        first: number of the first unit of every Relu among all units.
    """

    double: Parts
    single: Parts
    blocks: tuple[tuple[int, int], ...]
    units: tuple[Tensor, ...]
    place: Tensor
    first: Tensor

    @property
    def count(self) -> int:
        return len(self.double.b)

    def of(self, dtype: torch.dtype) -> Parts:
        """The matrices in one precision."""
        return self.double if dtype == torch.float64 else self.single

    def values(self, points: Tensor) -> Tensor:
        """What the open units read at offsets `(B, n)`: `(B, U)`."""
        parts = self.of(points.dtype)
        z = torch.addmm(parts.b, points, parts.a.T)
        for start, stop in self.blocks[1:]:
            z[:, start:stop].addmm_(z[:, :start].clamp(min=0), parts.w[start:stop, :start].T)
        return z

    def lowered(self, level: float) -> Matrices:
        """The same with a level taken off the targets."""
        if level == 0:
            return self
        double, single = (replace(p, out_k=p.out_k - level) for p in (self.double, self.single))
        return replace(self, double=double, single=single)

    def unit_of(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the Relu and flat unit of positions among the open units."""
        flat = torch.nonzero(self.place >= 0)[:, 0][self.place[self.place >= 0].argsort()][position]
        layer = torch.bucketize(flat, self.first[1:], right=True)
        return layer, flat - self.first[layer]

    def gathered(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Values of all units, one tensor per Relu, as values of the open ones: `(B, U)`."""
        return torch.cat([flattened(p, 1)[:, u] for p, u in zip(parts, self.units, strict=True)], 1)

    def spread(self, values: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """`parts` with the values `(B, U)` of the open units in their places."""
        found = []
        for p, u, (start, stop) in zip(parts, self.units, self.blocks, strict=True):
            new = flattened(p, 1).clone()
            new[:, u] = values[:, start:stop].to(new)
            found.append(new.reshape(p.shape))
        return tuple(found)


def matrices_of(frame: Frame) -> Matrices | None:
    """The matrices of a frame; None where an operator is no Relu, an interval is endless, or there would be too many numbers."""
    network, splits = frame.network, frame.splits
    if not splits or len(splits) != len(network.nonlinear) or not all(isinstance(op, Relu) for op in splits):
        return None
    open_, on = [], []
    for op in splits:
        l, u = flattened(frame.lower[op.output], 1), flattened(frame.upper[op.output], 1)
        if not bool(l.isfinite().all() & u.isfinite().all()):
            return None
        always, never = (l >= 0).all(0), ((u <= 0) & (l < 0)).all(0)
        open_.append(torch.nonzero(~always & ~never)[:, 0])
        on.append(always)
    sizes, n = [len(i) for i in open_], network.input_size
    count = sum(sizes)
    widest = max(math.prod(s) for s in network.shapes.values())
    if not count or count * (n + count) > _MOST or max(sizes) * widest > _ROWS or not bool(frame.low.isfinite().all()):
        return None
    if not bool(frame.high.isfinite().all()):
        return None
    starts = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    with torch.no_grad():
        noted = {
            op.output: _Noted(mask.to(torch.float64).reshape(op.in_shapes[0]), units)
            for op, mask, units in zip(splits, on, open_, strict=True)
        }
        a, b = frame.x0.new_zeros((count, n)), frame.x0.new_zeros(count)
        w = frame.x0.new_zeros((count, count))
        for k, (op, units) in enumerate(zip(splits, open_, strict=True)):
            for part in torch.split(torch.arange(len(units), device=units.device), _MANY) if len(units) else ():
                rows = part + starts[k]
                start = unit_rows(units[part], op.in_shapes[0], frame.x0)
                a[rows], b[rows], w[rows] = _pulled(frame, op.inputs[0], start, noted, starts)
        out = frame.x0.new_zeros((len(frame.targets), network.classes))
        out[:, frame.label] = -1.0
        out[torch.arange(len(out)), torch.tensor(frame.targets)] = 1.0
        last = Coefficients(out.reshape(1, len(out), *network.output_shape))
        out_a, out_k, out_w = _pulled(frame, network.output, last, noted, starts)
    double = Parts(a, w, b, out_a, out_w, out_k)
    single = Parts(*(t.float() for t in (a, w, b, out_a, out_w, out_k)))
    first = torch.tensor([0, *(math.prod(op.in_shapes[0]) for op in splits)], device=a.device).cumsum(0)
    place = torch.full((int(first[-1]),), -1, device=a.device)
    place[torch.cat([u + f for u, f in zip(open_, first.tolist(), strict=False)])] = torch.arange(count, device=a.device)
    return Matrices(double, single, tuple(pairwise(starts)), tuple(open_), place, first)


def _pulled(
    frame: Frame, tensor: str, start: Coefficients, noted: dict[str, _Noted], starts: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as functions of the offset and of the open units: `(R, n)`, `(R,)` and `(R, U)`."""
    for note in noted.values():
        note.seen = None
    bound: LinearBound = pull_back(frame.network, tensor, start, noted)
    a = flattened(bound.coefficients.full(frame.network.input_shape), 2)[0]
    w = a.new_zeros((len(a), starts[-1]))
    for op, begin, stop in zip(frame.splits, starts[:-1], starts[1:], strict=True):
        seen = noted[op.output].seen
        if seen is not None:
            w[:, begin:stop] = seen
    return a, bound.lower_bias[0] + a @ frame.x0, w
