r"""An upper bound of a row over few units and many inputs that takes the units together: a linear relaxation does not.

    maximise  a . d + c . h + k   over d in the box,  z = A d + B h + b,  h = relu(z),  l <= z <= u.

For all multipliers nu and all kappa >= 0 the terms `nu_j (A_j d + B_j h + b_j - z_j)` and
`kappa_j / 2 [(A_j (d - d') + B_j (h - h'))^2 - (z_j - z'_j)^2]`, with `z' = A d' + B h' + b`, are zero. With diagonal Lambda, M > 0
such that

    K^1/2 (A Lambda^-1 A^T + B M^-1 B^T) K^1/2 <= I     (an m x m matrix; K = diag(kappa))

the first squares are at most `1/2 sum lambda_i (d_i - d'_i)^2 + 1/2 sum mu_j (h_j - h'_j)^2`, and the maximum falls apart into one
of a quadratic per input, on its interval, and one per unit, on the graph of relu itself:

    sum_i max [w_i d_i + lambda_i / 2 (d_i - d'_i)^2]                                                 w = a + A^T nu
    sum_j max [q_j relu(z) + mu_j / 2 (relu(z) - h'_j)^2 - nu_j z - kappa_j / 2 (z - z'_j)^2]         q = c + B^T nu

With kappa = 0 this is the usual dual, whose best value is that of the linear relaxation on intervals: there every unit may stand
at the middle of its triangle at once. Among many inputs that is far from true: rows are nearly orthogonal, and what moves all
units at once leaves little for the row itself. `-kappa_j / 2 (z - z'_j)^2` charges a unit for being elsewhere than at the point
d'; what that costs is paid by inputs with small w_i, of which there are few: where `lambda_i` is at most `|w_i|` over half the
input's range, and d' stands at the end that w_i asks for, the square costs nothing. (An S-procedure; the semidefinite condition is
met by a diagonal.)

Any parameters give a valid bound. They are improved by some hundred steps of Adam (`steps.py`) on a sample of the inputs, in
float32, many nodes at a time; what counts is one evaluation in float64 on all inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onnxsub.verifiers.bab.wide.parts import AWAY, TINY, Multipliers, Part, Squares, squares_for, still

__all__ = ["Evaluated", "evaluate", "first_multipliers", "kappa_of", "point_of"]

_ROUNDED = 1e-10  # of the sizes of all terms: what their sum in float64 may be off by, with room
_OF_SQUARES = 1e-2  # of that, for what squares are made of: still a hundred times what they are off by
_EIGENVALUE = 1e-8  # relative: by how much the largest eigenvalue is taken to be larger
_AT_ONCE = 2**17  # numbers that are gone over at a time: what stays in a core's cache


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Bounds of N nodes.

    Attributes:
        value: the bounds, `(N,)`; nothing of them is rounded outward. size: of the terms that were summed.
        rows, row: `A d'` and `a . d'`, `(N, m)` and `(N,)`. centre: z'. reach: h'.
        terms: of the units, `(N, m)`; q, nu, kappa, mu: what they are made of.
    """

    value: Tensor
    size: Tensor
    rows: Tensor
    row: Tensor
    centre: Tensor
    reach: Tensor
    terms: Tensor
    q: Tensor
    nu: Tensor
    kappa: Tensor
    mu: Tensor

    @property
    def proved(self) -> Tensor:
        """The bounds, rounded outward; infinite where they are no numbers."""
        value = self.value + _ROUNDED * (1 + self.size)
        return torch.where(value.isfinite(), value, torch.full_like(value, math.inf))

    def gaps(self, z: Tensor) -> Tensor:
        """How much more each unit's term is than at the pre-activations z, `(N, m)`: what the bound loses by it."""
        return self.terms - _term(z, self.q, self.nu, self.kappa, self.mu, self.centre, self.reach)


def _term(z: Tensor, q: Tensor, nu: Tensor, kappa: Tensor, mu: Tensor, centre: Tensor, reach: Tensor) -> Tensor:
    h = z.clamp(min=0)
    return q * h + mu / 2 * (h - reach) ** 2 - nu * z - kappa / 2 * (z - centre) ** 2


def _terms(lower: Tensor, upper: Tensor, *rest: Tensor) -> Tensor:
    """The largest value of every unit's term on its interval: at an end, at 0, or where the derivative of a piece is 0."""
    q, nu, kappa, mu, centre, reach = rest
    off = torch.maximum(torch.minimum(centre - nu / kappa, upper.clamp(max=0)), lower)
    bend = kappa - mu
    bend = torch.where(bend > 0, bend, torch.ones_like(bend))  # a piece that is not concave is largest at an end
    on = torch.minimum(torch.maximum((q - nu - mu * reach + kappa * centre) / bend, lower.clamp(min=0)), upper)
    kink = torch.minimum(torch.maximum(torch.zeros_like(lower), lower), upper)
    return torch.stack([_term(z, *rest) for z in (lower, upper, kink, off, on)]).amax(0)


def point_of(part: Part, nu: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    """w and d', `(N, n)` each."""
    w = torch.addmm(part.a, nu, part.A)
    return w, torch.minimum(torch.maximum((part.low + part.high) / 2 + w / lam, part.low), part.high)


def _over_inputs(part: Part, nu: Tensor, lam: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sum of the inputs' terms and of their sizes, `A d'` and `a . d'`: some inputs at a time."""
    step = max(1, _AT_ONCE // max(len(nu), 1))
    sums: list[tuple[Tensor, ...]] = []
    for start in range(0, len(part.a), step):
        at = slice(start, start + step)
        few = replace(part, A=part.A[:, at], a=part.a[at], low=part.low[at], high=part.high[at])
        w, point = point_of(few, nu, lam[:, at])
        terms, rest = w * point, lam[:, at] / 2 * (few.high - point) * (point - few.low)
        sums.append(((terms + rest).sum(1), (terms.abs() + rest).sum(1), point @ few.A.T, point @ few.a))
    first, second, third, fourth = (torch.stack(parts).sum(0) * part.weight for parts in zip(*sums, strict=True))
    return first, second, third, fourth


def _largest(matrix: Tensor) -> Tensor:
    """The largest eigenvalue, rounded up, `(N,)`; no number where the matrix holds one that is none."""
    sane = matrix.isfinite().flatten(1).all(1)
    value = torch.linalg.eigvalsh(torch.where(sane[:, None, None], matrix, torch.zeros_like(matrix)))[:, -1]
    return torch.where(sane, value * (1 + _EIGENVALUE), torch.full_like(value, math.nan))


def evaluate(
    part: Part,
    given: Multipliers,
    lower: Tensor,
    upper: Tensor,
    squares: Squares | None = None,
    more: Tensor | None = None,
    held: Tensor | None = None,
) -> Evaluated:
    """The bounds for these parameters on units with these intervals, `(N, m)`.

    Args:
        squares: default: those that fit the parameters.
        more: t, `(N, m)`: the bounds are those of `row + t . z`.
        held: kappa, `(N or 1, m)`, where `kappa_of` has said it for these squares; so that it is not looked for again.
    """
    with torch.no_grad():
        nu = given.nu * given.unit
        moved = nu if more is None else nu + more
        squares = squares_for(part, given) if squares is None else squares
        kappa, mu = kappa_of(part, given, squares) if held is None else held.expand_as(nu), given.mu.exp()
        inputs, sizes, rows, row = _over_inputs(part, moved, squares.lam)
        q, centre = part.c + moved @ part.B, rows + given.reach @ part.B.T + part.b
        terms = _terms(lower, upper, q, nu, kappa, mu, centre, given.reach)
        value = inputs + terms.sum(1) + moved @ part.b + part.k
        span = torch.maximum(lower.abs(), upper.abs())
        each = (q.abs() + nu.abs()) * span + kappa / 2 * (span + centre.abs()) ** 2
        each = each + mu / 2 * (upper.clamp(min=0) + given.reach.abs()) ** 2  # h lies between 0 and there
        # what the coefficients themselves may be off by (`Blocks.folded`)
        each = each + (moved.abs() + _OF_SQUARES * kappa * (span + centre.abs())) * part.sizes
        size = sizes + each.sum(1) + moved.abs() @ part.b.abs() + part.k.abs() + part.row_size
        return Evaluated(value, size, rows, row, centre, given.reach, terms, q, nu, kappa, mu)


def kappa_of(part: Part, given: Multipliers, squares: Squares) -> Tensor:
    """kappa as large as the condition lets it be, `(N, m)`."""
    return given.kappa.exp() / _largest(_condition(part, given, squares))[:, None]


def _condition(part: Part, given: Multipliers, squares: Squares) -> Tensor:
    """The matrix whose eigenvalues must be at most 1, for kappa as the parameters say it."""
    root, mu = (given.kappa / 2).exp(), given.mu.exp()
    return root[:, :, None] * (squares.gram + (part.B / mu[:, None, :]) @ part.B.T) * root[:, None, :]


def first_multipliers(part: Part, lower: Tensor, upper: Tensor) -> Multipliers:
    """Slopes of CROWN, and squares of a size at which they neither dominate nor vanish; of one node."""
    count = len(part.b)
    nu = torch.zeros(count, dtype=part.b.dtype)
    for j in reversed(range(count)):  # a unit is read by later ones only
        q = part.c[j] + nu @ part.B[:, j]
        l, u = float(lower[j]), float(upper[j])
        slope = float(l >= 0) if l >= 0 or u <= 0 else u / (u - l) if q > 0 else float(u > -l)
        nu[j] = q * slope
    q = part.c + nu @ part.B
    unit = q.abs() + 1e-3 * q.abs().amax().clamp(min=TINY)
    half = (part.high - part.low) / 2
    reached = (part.A.abs() @ half) * part.weight + (upper - lower) / 20
    # a unit that hardly moves needs no square, and the rounding of a large one would be more than the bound is
    kappa = (unit / (0.2 * reached.clamp(min=TINY))).log().masked_fill(still(lower, upper), -AWAY)
    w = part.a + nu @ part.A
    price = (0.3 * w.abs().mean()) ** 2 / (part.A**2).sum(0).mean().clamp(min=TINY)
    at = ((part.low + part.high) / 2) @ part.A.T * part.weight + part.b
    reach = torch.zeros_like(nu)  # h at the middle of the box
    for _ in range(count):
        reach = (at + part.B @ reach).clamp(min=0)
    prices = price.clamp(min=TINY) * torch.eye(count, dtype=nu.dtype)
    mu = kappa.masked_fill(~part.B.any(0), -AWAY)  # squares of an h that no unit reads bring nothing
    found = Multipliers((nu / unit)[None], kappa[None], mu[None], reach[None], prices[None], unit)
    return replace(found, kappa=evaluate(part, found, lower[None], upper[None]).kappa.log())
