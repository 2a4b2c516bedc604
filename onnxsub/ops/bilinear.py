r"""Products of two tensors that both depend on the input: elementwise, and of matrices.

With centres c and radii r of the factors' intervals,

    x y = c_y x + c_x y - c_x c_y + (x - c_x)(y - c_y),    |(x - c_x)(y - c_y)| <= r_x r_y.

So `x y` lies between two parallel planes, `r_x r_y` above and below the one that touches it at the centre. Each is the mean of
the two planes of McCormick (1976) on its side, for instance below of `l_y x + l_x y - l_x l_y` and `u_y x + u_x y - u_x u_y`, with
the same volume under it as either of them. Parallel planes let one backward pass bound both ends, and their slopes are the
derivatives at the centre: on small boxes the error is of second order whatever follows.
A sum of products, as in a product of matrices, is bounded by the sum of their planes; no product is ever written down on its own.

**Executed.** Between functions that jump, where float32 decides, a product may stand for every execution of it (`rooms`): with
factors that are off by at most e and f, u = 2^-24, and n terms,

    |fl(x y) - x y| <= e |y| + f (|x| + e) + (n + 16) u (|x| + e) (|y| + f),

the sizes being those of the box at hand, not of the domain.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Self

from onnxsub.ops.base import Array, Box, Shape
from onnxsub.ops.broadcast import flattened, sum_to
from onnxsub.ops.interval_rows import Rows
from onnxsub.ops.joined import taken_apart
from onnxsub.ops.planes import Parallel
from onnxsub.ops.relaxation import check_mode
from onnxsub.ops.splitting import Splittable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Bilinear", "MatrixProduct", "Pairwise", "Planes", "Product"]

_ULPS = 16
"""Bounds are widened by this many units in the last place of what enters them, and one more per term of a sum."""

_UNIT = 2.0**-24
_MORE = 16  # roundings of an executed product beside its terms

_FAR = 1e30
"""The radius of an interval without an end, where intervals are ranked."""


@dataclass(frozen=True, eq=False)
class Planes(Parallel):
    """`a . y` is within `spread` of the plane that touches the products at the centre of the factors' boxes.

    Attributes:
        op: the product.
        x, y: centres of the factors, `(B, *shape)`, whose product is minus `value`; the spread is infinite where one has no bound.
    """

    op: Bilinear
    x: Tensor
    y: Tensor

    def coefficients(self, a: Tensor) -> Tensor:
        b, rows = max(a.shape[0], self.x.shape[0]), a.shape[1]
        first = self.op.from_first(a, self.y.unsqueeze(1)).reshape(b, rows, -1)
        second = self.op.from_second(a, self.x.unsqueeze(1)).reshape(b, rows, -1)
        return torch.cat((first, second), -1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Bilinear(Splittable, abc.ABC):
    """A sum of products of elements of a first and a second tensor, which stand joined in the one input (`joined.py`).

    Attributes:
        first, second: per-sample shapes of the two tensors.
        rooms: what the executed factors may be off by; None: the product over the real numbers.
    """

    first: Shape
    second: Shape
    rooms: tuple[float, float] | None = None

    unsupported: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"milp": "a product of two tensors is not piecewise linear; choose --verifier bab"}
    )

    @abc.abstractmethod
    def product(self, x: Tensor, y: Tensor) -> Tensor:
        """Of tensors `(N, *first)` and `(N, *second)`."""

    @abc.abstractmethod
    def from_first(self, a: Tensor, y: Tensor) -> Tensor:
        """Coefficients `(B, R, *first)` of the first factor in `a . product(x, y)`, a `(B, R, *out_shape)`, y `(B, 1, *second)`."""

    @abc.abstractmethod
    def from_second(self, a: Tensor, x: Tensor) -> Tensor:
        """Coefficients of the second factor: a `(B, R, *out_shape)`, x `(B, 1, *first)` to `(B, R, *second)`."""

    @property
    @abc.abstractmethod
    def terms(self) -> int:
        """How many products an element of the output is the sum of."""

    @abc.abstractmethod
    def corners(self, x: Box, y: Box) -> Box:
        """Smallest and largest value for factors within finite intervals, but for rounding."""

    def split(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The two tensors in the joined one, `(N, size)`."""
        size = math.prod(self.first)
        return t[:, :size].reshape(-1, *self.first), t[:, size:].reshape(-1, *self.second)

    def forward(self, *xs: Tensor) -> Tensor:
        return self.product(*self.split(xs[0])).reshape(-1, *self.out_shape)

    def interval(self, *boxes: Box) -> Box:
        known, (xl, xu, yl, yu) = self._finite(*boxes[0])
        low, high = self.corners((xl, xu), (yl, yu))
        sizes = torch.maximum(xl.abs(), xu.abs()), torch.maximum(yl.abs(), yu.abs())
        size = self.product(*sizes)
        slack = self._rounded(size) + self._off(*sizes)
        lost = self._unbounded(known, (xl, xu, yl, yu))
        shape = (-1, *self.out_shape)
        low, high = (low - slack).masked_fill(lost, -math.inf), (high + slack).masked_fill(lost, math.inf)
        return low.reshape(shape), high.reshape(shape)

    def roomier(self, error: Array) -> Self:
        """The product as it is executed on factors that are off by `error`, which stand joined as they do."""
        size = math.prod(self.first)
        return replace(self, rooms=(float(error[:size].max()), float(error[size:].max())))

    def _off(self, x: Tensor, y: Tensor) -> Tensor:
        """What an execution may be off by from the product of factors of these sizes; infinite where one has no bound."""
        if self.rooms is None:
            return x.new_zeros(())
        e, f = self.rooms
        off = self.product(torch.full_like(x, e), y) + self.product(x + e, torch.full_like(y, f))
        off = off + (self.terms + _MORE) * _UNIT * self.product(x + e, y + f)
        return off.nan_to_num(nan=math.inf, posinf=math.inf)  # 0 times inf as well

    def _rounded(self, size: Tensor) -> Tensor:
        """What sums of products of this size may round, 0 for those of zeros alone."""
        info = torch.finfo(size.dtype)
        # what underflows is less than the smallest normal number per term
        slack = (_ULPS + self.terms) * info.eps * size + self.terms * info.tiny
        return torch.where(size == 0, torch.zeros_like(slack), slack)

    def _finite(self, lower: Tensor, upper: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Which elements of the first and the second factor have a bound; and the ends of both, 0 where there is none."""
        (xl, yl), (xu, yu) = self.split(lower), self.split(upper)
        known = [torch.isfinite(l) & torch.isfinite(u) for l, u in ((xl, xu), (yl, yu))]
        pairs = ((known[0], xl), (known[0], xu), (known[1], yl), (known[1], yu))
        return known, tuple(torch.where(k, t, torch.zeros_like(t)) for k, t in pairs)

    def _unbounded(self, known: list[Tensor], ends: tuple[Tensor, ...]) -> Tensor:
        """Which sums have a term with a factor that has no bound, unless the other factor is 0 throughout, executed too."""
        xl, xu, yl, yu = ends
        like, room = xl, self.rooms is not None
        able = [((l != 0) | (u != 0) | ~k | room).to(like) for (l, u), k in zip(((xl, xu), (yl, yu)), known, strict=True)]
        endless = [(~k).to(like) for k in known]
        return (self.product(endless[0], able[1]) + self.product(able[0], endless[1])) > 0

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Planes:
        """The planes that touch at the centre, for both modes."""
        check_mode(mode)
        known, ends = self._finite(lower, upper)
        xl, xu, yl, yu = ends
        x, y = xl / 2 + xu / 2, yl / 2 + yu / 2
        # from the centre as it was rounded to the end that is farther away
        rx, ry = torch.maximum(xu - x, x - xl), torch.maximum(yu - y, y - yl)
        value, spread = self.product(x, y), self.product(rx, ry)
        sizes = x.abs() + rx, y.abs() + ry
        spread = spread + self._rounded(self.product(*sizes)) + self._off(*sizes)
        spread = spread.masked_fill(self._unbounded(known, ends), math.inf)
        shape = (-1, *self.out_shape)
        return Planes(spread.reshape(shape), -value.reshape(shape), self, x, y)

    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        """An element is settled where it is one number, or all numbers that it is multiplied by are."""
        wide = (upper > lower) | ~torch.isfinite(lower) | ~torch.isfinite(upper)
        one = lower.new_ones((lower.shape[0], 1, *self.out_shape))
        x, y = (t.to(lower.dtype).unsqueeze(1) for t in self.split(wide))
        met = torch.cat([flattened(self.from_first(one, y)[:, 0], 1), flattened(self.from_second(one, x)[:, 0], 1)], 1)
        return ~wide | (met == 0)

    def losses(self, a: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """`sum |a| r_x r_y` over the products that an element is in."""
        rx, ry = self.split((upper / 2 - lower / 2).nan_to_num(nan=_FAR, posinf=_FAR))
        size = a.abs().unsqueeze(1)
        first = self.from_first(size, ry.unsqueeze(1))[:, 0] * rx
        second = self.from_second(size, rx.unsqueeze(1))[:, 0] * ry
        return torch.cat([flattened(first, 1), flattened(second, 1)], 1)

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        raise self.missing("milp")

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        """`x y - x' y' = y (x - x') + x' (y - y')`: the slope for one factor is the interval of the other."""
        ((xl, yl), (xu, yu)) = (self.split(end) for end in boxes[0])
        centre, radius = rows
        found = []
        for back, l, u in ((self.from_first, yl, yu), (self.from_second, xl, xu)):
            mid, half = ((l + u) / 2).unsqueeze(1), ((u - l) / 2).unsqueeze(1)
            c = back(centre.unsqueeze(0), mid)
            # |a||s| over all a and s of the two intervals, less the product of the centres; and what rounds
            r = back((radius * (1 + 1e-13)).unsqueeze(0), mid.abs() + half) + back(centre.abs().unsqueeze(0), half)
            r = r + 1e-13 * back(centre.abs().unsqueeze(0), mid.abs() + half)
            found.append((flattened(c[0], 1), flattened(r[0], 1)))
        (c1, r1), (c2, r2) = found
        return ((torch.cat((c1, c2), 1), torch.cat((r1, r2), 1)),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        parts = (("first", 0, self.first), ("second", math.prod(self.first), self.second))
        factors = taken_apart(writer, inputs[0], output, parts)
        self.write(writer, (factors[0], factors[1]), output)

    @abc.abstractmethod
    def write(self, writer: OnnxWriter, factors: tuple[str, str], output: str) -> None:
        """The node that multiplies two tensors of the shapes `first` and `second`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pairwise(Bilinear, abc.ABC):
    """`x y`, elementwise; axes of length 1 are broadcast. Both factors have the same number of axes."""

    @property
    def terms(self) -> int:
        return 1

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y

    def from_first(self, a: Tensor, y: Tensor) -> Tensor:
        return _summed(a * y, self.first)

    def from_second(self, a: Tensor, x: Tensor) -> Tensor:
        return _summed(a * x, self.second)

    def corners(self, x: Box, y: Box) -> Box:
        products = [p * q for p in x for q in y]
        low, high = products[0], products[0]
        for p in products[1:]:
            low, high = torch.minimum(low, p), torch.maximum(high, p)
        return low, high

    def write(self, writer: OnnxWriter, factors: tuple[str, str], output: str) -> None:
        writer.node("Mul", factors, output)


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Pairwise):
    """`x y`, elementwise, of any two factors."""


def _summed(t: Tensor, shape: Shape) -> Tensor:
    """`(B, R, *big)` summed to `(B, R, *shape)`: the transpose of broadcasting."""
    return sum_to(t.flatten(0, 1), shape).reshape(*t.shape[:2], *shape)


@dataclass(frozen=True, eq=False, kw_only=True)
class MatrixProduct(Bilinear):
    """`X Y`, with X `(*batch, rows, inner)` and Y `(*batch, inner, columns)`; batch axes of length 1 are broadcast."""

    @property
    def terms(self) -> int:
        return self.first[-1]

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.matmul(x, y)

    def from_first(self, a: Tensor, y: Tensor) -> Tensor:
        return _summed(torch.matmul(a, y.transpose(-1, -2)), self.first)

    def from_second(self, a: Tensor, x: Tensor) -> Tensor:
        return _summed(torch.matmul(x.transpose(-1, -2), a), self.second)

    def corners(self, x: Box, y: Box) -> Box:
        (xl, xu), (yl, yu) = x, y
        low = high = torch.zeros((), dtype=xl.dtype, device=xl.device)
        # one inner index at a time: never more than a few tensors of the output's size
        for k in range(self.first[-1]):
            products = [p[..., :, k : k + 1] * q[..., k : k + 1, :] for p in (xl, xu) for q in (yl, yu)]
            least, most = products[0], products[0]
            for p in products[1:]:
                least, most = torch.minimum(least, p), torch.maximum(most, p)
            low, high = low + least, high + most
        return low, high

    def write(self, writer: OnnxWriter, factors: tuple[str, str], output: str) -> None:
        writer.node("MatMul", factors, output)
