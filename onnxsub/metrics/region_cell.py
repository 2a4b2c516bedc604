r"""The linear region of an anchor: where every unit stays on the affine piece that it is on at `x0`.

With the pieces fixed, every tensor is affine in x, and f equals the network of these pieces on the polytope

    C = { x : low_i <= z_i(x) <= high_i for every unit i,  t_j(x) <= t_k(x) for all j of a pooling window with maximum k },

z_i and t_j those of the *affine* network. `x0` lies in C. A unit that sits on a kink at `x0` takes the piece below it, a window
whose maximum is attained twice the first of the two; any choice gives a region in which f is what it says.

A network has thousands of such facets and few of them matter, so rows are made on demand (one backward product each) and
what they are worth at a point is one forward pass for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array, Operator, Shape
from onnxsub.ops.maxpool import Chosen
from onnxsub.ops.relaxation import Elementwise, Relaxation
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.windows import Windows
from onnxsub.propagate.backward import Coefficients, pull_back

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Cell", "Facets", "Known", "Name"]

_ROUNDING = 1e-10
"""A facet counts as crossed from this share of the largest value of its tensor on: what float64 may have made of a point on it."""

Name = tuple[int, int]
"""A facet: which non-linear operator, and which of its facets."""

Known = tuple[Array, ...]
"""Per non-linear operator, a flag for each of its facets."""

_BLOCK = 2**22  # elements of the largest tensor of one backward product


@dataclass(frozen=True, eq=False)
class Facets:
    """Half-spaces `t[first] - t[second] <= end` of one tensor t, F of them; the position -1 stands for the number 0.

    Attributes:
        tensor: its name in the affine network.
        shape: of t, per sample.
        first, second: flat positions, `(F,)`.
        room: `end` less the value at the anchor, `(F,)`, >= 0.
        centre: t at the anchor with a 0 behind it.
    """

    tensor: str
    shape: Shape
    first: Array
    second: Array
    room: Array
    centre: Array

    def crossed(self, t: Array) -> tuple[Array, Array]:
        """Facets that lie between the anchor and a point, and where on the way: share of the way in [0, 1).

        Args:
            t: the tensor at the point, flat.
        """
        step = np.append(t, 0.0) - self.centre
        growth = step[self.first] - step[self.second]
        floor = _ROUNDING * max(float(np.abs(self.centre).max()), float(np.abs(t).max(initial=0.0)))
        found = np.flatnonzero(growth > self.room + np.maximum(floor, _ROUNDING * self.room))
        return found, self.room[found] / growth[found]


class Cell:
    """The linear region of `x0` and the affine function that the network is on it.

    Args:
        network: piecewise linear; f from un-normalised inputs.
        x0: float64, the network's input shape.

    Raises:
        UnsupportedOperatorError: a unit that is not piecewise linear has no linear region.
    """

    def __init__(self, network: Network, x0: Array) -> None:
        self.x0 = np.asarray(x0, dtype=np.float64)
        with torch.no_grad():
            values = network.values(torch.as_tensor(self.x0).unsqueeze(0))
        pieces: dict[str, Operator] = {}
        self._relaxations: dict[str, Relaxation] = {}
        facets = []
        for op in network.nonlinear:
            z = values[op.inputs[0]]
            if isinstance(op, Windows):
                pieces[op.output], found = _pool(op, z)
            elif isinstance(op, Activation):
                slope, offset = op.tangent(z)
                # one object for both ends: parallel lines, which are exact
                self._relaxations[op.output] = Elementwise(slope, offset, slope, offset)
                kept = np.zeros(op.in_shapes[0], dtype=np.bool_)
                pieces[op.output] = Substituted.of(op, kept, slope[0].numpy(), offset[0].numpy())
                found = _pieces(op, z)
            else:
                raise op.missing("linear region")
            facets.append(found)
        self.affine = network.replace(pieces)
        self.logits = values[network.output].flatten().numpy()
        self.facets = tuple(facets)

    def crossed(self, offset: Array, most: int, known: Known) -> list[Name]:
        """At most `most` facets that separate `x0 + offset` from the region, the first ones on the way; they become known.

        Args:
            offset: `(n,)`.
            known: facets that need not be named again.
        """
        x = torch.as_tensor(self.x0 + offset.reshape(self.x0.shape)).unsqueeze(0)
        with torch.no_grad():
            values = self.affine.values(x, tuple(f.tensor for f in self.facets))
        hits: list[tuple[float, Name]] = []
        for number, facets in enumerate(self.facets):
            found, share = facets.crossed(values[facets.tensor].flatten().numpy())
            fresh = ~known[number][found]
            found, share = found[fresh], share[fresh]
            for k in np.argsort(share, kind="stable")[:most]:
                hits.append((float(share[k]), (number, int(found[k]))))
        names = [name for _, name in sorted(hits)[:most]]
        for number, facet in names:
            known[number][facet] = True
        return names

    def none_known(self) -> Known:
        """No facet known: the beginning."""
        return tuple(np.zeros(len(f.room), dtype=np.bool_) for f in self.facets)

    def rows(self, names: list[Name]) -> tuple[Array, Array]:
        """`A` and `b` of `A (x - x0) <= b` for facets: `(R, n)`, `(R,)`."""
        parts, ends = [], []
        for number in sorted({n for n, _ in names}):
            facets = self.facets[number]
            chosen = np.array([f for n, f in names if n == number])
            size = math.prod(facets.shape)
            step = max(1, _BLOCK // max(o.out_size for o in self.affine.ops))
            for start in range(0, len(chosen), step):
                block = chosen[start : start + step]
                a = torch.zeros((len(block), size + 1), dtype=torch.float64)
                rows = torch.arange(len(block))
                a[rows, torch.as_tensor(facets.first[block])] += 1.0
                a[rows, torch.as_tensor(facets.second[block])] -= 1.0
                parts.append(self._pulled(facets.tensor, a[:, :size].reshape(1, len(block), *facets.shape)))
                ends.append(facets.room[block])
        return np.concatenate(parts), np.concatenate(ends)

    def margin(self, label: int, target: int) -> tuple[Array, float]:
        """`c` and `m` of `f_target - f_label = c . (x - x0) + m` on the region: `(n,)` and a number."""
        start = torch.zeros((1, 1, self.affine.classes), dtype=torch.float64)
        start[0, 0, target], start[0, 0, label] = 1.0, -1.0
        row = self._pulled(self.affine.output, start.reshape(1, 1, *self.affine.output_shape))
        return row[0], float(self.logits[target] - self.logits[label])

    def _pulled(self, tensor: str, start: Tensor) -> Array:
        with torch.no_grad():
            found = pull_back(self.affine, tensor, Coefficients(start), self._relaxations).coefficients
        return found.full(self.affine.input_shape)[0].flatten(1).numpy()


def _pieces(op: Activation, z: Tensor) -> Facets:
    """The ends of every unit's piece, which is `(low, high]`: the one that `tangent` takes."""
    far = torch.full_like(z, torch.inf)
    bent = ~op.affine_on(-far, far)
    kinks = op.kinks(z)
    if not op.piecewise_linear and bool(bent.any()):
        raise op.missing("linear region: it is not piecewise linear")
    low, high = -far, far
    for kink in kinks:
        low = torch.where(bent & (kink < z), torch.maximum(low, kink), low)
        high = torch.where(bent & (kink >= z), torch.minimum(high, kink), high)
    value, low_end, high_end = (t.flatten().numpy() for t in (z, low, high))
    above, below = np.flatnonzero(np.isfinite(high_end)), np.flatnonzero(np.isfinite(low_end))
    none_above, none_below = np.full(len(above), -1), np.full(len(below), -1)
    return Facets(
        op.inputs[0], op.in_shapes[0], np.concatenate([above, none_below]), np.concatenate([none_above, below]),
        np.concatenate([(high_end - value)[above], (value - low_end)[below]]), np.append(value, 0.0),
    )  # fmt: skip


def _pool(op: Windows, z: Tensor) -> tuple[Chosen, Facets]:
    """The element that every window takes, and that no other exceeds it."""
    value = z.flatten().numpy()
    windows = op.table
    inside = windows >= 0
    score = np.where(inside, value[windows], -np.inf)
    best = score.argmax(axis=1)
    chosen = windows[np.arange(len(windows)), best]
    inside[np.arange(len(windows)), best] = False
    window, element = np.nonzero(inside)
    first, second = windows[window, element], chosen[window]
    pinned = Chosen(
        op_type=op.op_type, node=op.node, inputs=op.inputs, output=op.output, in_shapes=op.in_shapes, out_shape=op.out_shape,
        index=chosen.reshape(op.out_shape),
    )  # fmt: skip
    return pinned, Facets(op.inputs[0], op.in_shapes[0], first, second, value[second] - value[first], np.append(value, 0.0))
