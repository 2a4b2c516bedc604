"""What a bound of a row over few units and many inputs is made of; names as in `bound.py`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide.blocks import STILL, Blocks

__all__ = ["AWAY", "TINY", "Multipliers", "Part", "Squares", "spread", "squares_for", "still", "values_of"]

TINY = 1e-30  # what nothing is divided by less than
AWAY = 60.0  # of a logarithm: what stands for nothing and for endless
_LEAST = 1e-3  # of what lambda would be with w_i = 0: none is smaller


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Parameters of the bounds of N nodes. `kappa` is what they say divided by the eigenvalue of the condition.

    Attributes:
        nu: in units of `unit`, `(N, m)`.
        kappa, mu: logarithms, `(N, m)`.
        reach: h', `(N, m)`.
        price: what squares cost elsewhere, from which lambda follows (`squares_for`), `(N, m, m)`.
        unit: sizes of nu, `(m,)`; not improved.
    """

    nu: Tensor
    kappa: Tensor
    mu: Tensor
    reach: Tensor
    price: Tensor
    unit: Tensor

    @property
    def free(self) -> tuple[Tensor, ...]:
        return self.nu, self.kappa, self.mu, self.reach, self.price

    @property
    def without_price(self) -> Multipliers:
        """The same for squares that are held, of which nothing asks the price."""
        return replace(self, price=self.price[:, :0, :0])

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

    @staticmethod
    def _with(free: list[Tensor], unit: Tensor) -> Multipliers:
        nu, kappa, mu, reach, price = free
        return Multipliers(nu, kappa, mu, reach, price, unit)


@dataclass(frozen=True, eq=False)
class Part:
    """A row over some inputs, each of which stands for `weight` of them. Names as in the module.

    Attributes:
        sizes, row_size: of `Blocks`.
    """

    A: Tensor
    B: Tensor
    b: Tensor
    a: Tensor
    c: Tensor
    k: Tensor
    low: Tensor
    high: Tensor
    sizes: Tensor
    row_size: Tensor
    weight: float = 1.0

    @staticmethod
    def of(blocks: Blocks, row: int) -> Part:
        """One of the rows over all inputs, float64."""
        o = blocks
        return Part(o.A, o.B, o.b, o.rows[row], o.reads[row], o.offsets[row], o.low, o.high, o.sizes, o.row_sizes[row])

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
    """Squares that fit these parameters.

    Up to `|w_i|` over half the input's range, lambda_i costs nothing. More of it costs `(half^2 + (w_i / lambda_i)^2) / 2` for each
    unit of lambda_i, and brings `A_i^T P A_i / 2 lambda_i^2`, where P is the price; both are alike at the lambda that is taken.
    """
    w, half = part.a + (given.nu * given.unit) @ part.A, ((part.high - part.low) / 2).clamp(min=TINY)
    brings = torch.stack([((price @ part.A) * part.A).sum(0) for price in given.price]).clamp(min=0)
    lam = (torch.maximum(w.abs(), (brings - w**2).clamp(min=_LEAST**2 * brings).sqrt()) / half).clamp(min=TINY)
    return Squares(lam, torch.stack([(part.A * (part.weight / row)) @ part.A.T for row in lam]))


def still(lower: Tensor, upper: Tensor) -> Tensor:
    """Whether units hardly move, for how far from 0 they are."""
    return upper - lower <= STILL * torch.maximum(lower.abs(), upper.abs())


def spread(part: Part, count: int) -> Tensor:
    """So many inputs, evenly over what they weigh in the row."""
    n = len(part.a)
    if count >= n:
        return torch.arange(n)
    return part.a.abs().argsort()[torch.linspace(0, n - 1, count, dtype=torch.float64).round().long()]


def values_of(part: Part, rows: Tensor, row: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Pre-activations and the row at a share of points, from what their rows are."""
    h = torch.zeros_like(rows)
    z = share * rows + part.b
    for _ in range(len(part.b)):  # at most as often as there are layers
        if torch.equal(z.clamp(min=0), h):
            break
        h = z.clamp(min=0)
        z = share * rows + h @ part.B.T + part.b
    return z, share * row + h @ part.c + part.k
