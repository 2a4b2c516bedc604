"""What a bound of a row over few units and many inputs is made of; names as in `bound.py`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide.blocks import Blocks

__all__ = ["TINY", "Multipliers", "Part", "Squares", "spread", "squares_for"]

TINY = 1e-30  # what nothing is divided by less than


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Parameters of the bounds of N nodes. `kappa` is what they say divided by the eigenvalue of the condition.

    Attributes:
        nu: in units of `unit`, `(N, m)`.
        kappa, mu: logarithms, `(N, m)`.
        reach: h', `(N, m)`.
        least: logarithm of the smallest lambda, `(N,)`; not improved by steps.
        unit: sizes of nu, `(m,)`; not improved.
    """

    nu: Tensor
    kappa: Tensor
    mu: Tensor
    reach: Tensor
    least: Tensor
    unit: Tensor

    @property
    def free(self) -> tuple[Tensor, ...]:
        return self.nu, self.kappa, self.mu, self.reach, self.least

    def to(self, dtype: torch.dtype) -> Multipliers:
        """The same numbers in another precision, detached."""
        return self._with([t.detach().to(dtype).clone() for t in self.free], self.unit.to(dtype))

    def take(self, rows: Tensor) -> Multipliers:
        """Those of some nodes."""
        return self._with([t[rows] for t in self.free], self.unit)

    def placed(self, rows: Tensor, other: Multipliers) -> Multipliers:
        """Those of some nodes replaced."""
        return self._with([a.index_copy(0, rows, b) for a, b in zip(self.free, other.free, strict=True)], self.unit)

    @staticmethod
    def joined(parts: list[Multipliers]) -> Multipliers:
        """Those of several lots of nodes, which share `unit`."""
        return Multipliers._with([torch.cat(ts) for ts in zip(*(p.free for p in parts), strict=True)], parts[0].unit)

    def where(self, better: Tensor, other: Multipliers) -> Multipliers:
        """These for the nodes `(N,)` that say so, others for the rest."""
        pairs = zip(self.free, other.free, strict=True)
        return self._with([torch.where(better if a.dim() == 1 else better[:, None], a, b) for a, b in pairs], self.unit)

    @staticmethod
    def _with(free: list[Tensor], unit: Tensor) -> Multipliers:
        nu, kappa, mu, reach, least = free
        return Multipliers(nu, kappa, mu, reach, least, unit)


@dataclass(frozen=True, eq=False)
class Part:
    """A row over some inputs, each of which stands for `weight` of them. Names as in the module."""

    A: Tensor
    B: Tensor
    b: Tensor
    a: Tensor
    c: Tensor
    k: Tensor
    low: Tensor
    high: Tensor
    weight: float = 1.0

    @staticmethod
    def of(blocks: Blocks, row: int) -> Part:
        """One of the rows over all inputs, float64."""
        o = blocks
        return Part(o.A, o.B, o.b, o.rows[row], o.reads[row], o.offsets[row], o.low, o.high)

    def single(self) -> Part:
        """In float32."""
        tensors = {f.name: getattr(self, f.name).float() for f in fields(self)[:-1]}
        return replace(self, **tensors)

    def sample(self, index: Tensor) -> Part:
        """These inputs for all of them, float32."""
        few = replace(self, A=self.A[:, index], a=self.a[index], low=self.low[index], high=self.high[index])
        return replace(few.single(), weight=len(self.a) / max(len(index), 1))

    def within(self, radius: float) -> Part:
        """On the part of the box within that radius of the anchor."""
        return replace(self, low=self.low.clamp(min=-radius), high=self.high.clamp(max=radius))


@dataclass(frozen=True, eq=False)
class Squares:
    """lambda, `(N or 1, n)`, and `A Lambda^-1 A^T`, `(N or 1, m, m)`: the dear part of an evaluation; nodes may share it."""

    lam: Tensor
    gram: Tensor


def squares_for(part: Part, given: Multipliers) -> Squares:
    """Squares that fit these parameters: no lambda is smaller than what costs nothing."""
    w = part.a + (given.nu * given.unit) @ part.A
    half = (part.high - part.low) / 2
    lam = torch.maximum(given.least.exp()[:, None], w.abs() / half.clamp(min=TINY))
    return Squares(lam, torch.stack([(part.A * (part.weight / row)) @ part.A.T for row in lam]))


def spread(part: Part, count: int) -> Tensor:
    """So many inputs, evenly over what they weigh in the row."""
    n = len(part.a)
    if count >= n:
        return torch.arange(n)
    return part.a.abs().argsort()[torch.linspace(0, n - 1, count, dtype=torch.float64).round().long()]
