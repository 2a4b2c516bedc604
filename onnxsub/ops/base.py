"""What an operator is: one immutable object with all its meanings.

| meaning | method | used by |
|---|---|---|
| value | `forward` | attack, sampling, substitutes |
| interval | `interval` | `ibp`, and as a start for every tighter method |
| linear bounds | `Affine.transpose` / `Nonlinear.relax` | `fastlin`, `crown`, `alpha-crown`, `fold` |
| MILP rows | `encode` | the MILP verifier |
| slopes | `transpose_slopes`, of which `Activation.slopes` is the elementwise part | certified Lipschitz constants |
| ONNX nodes | `to_onnx` | layouts that are built anew |

Shapes are *per sample*: the batch axis of the file is stripped, and every tensor that a method sees carries one leading
axis N of its own. An operator that lacks a meaning says why in `unsupported`; asking for it raises
`UnsupportedOperatorError`. Nothing is ever skipped or taken as zero.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.ops.interval_rows import Rows, through, times

if TYPE_CHECKING:
    import scipy.sparse as sp
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
    from onnxsub.ops.relaxation import Elementwise, Relaxation, Window
else:
    from onnxsub.lazy import torch

__all__ = ["MEANINGS", "Activation", "Affine", "Array", "Box", "Nonlinear", "Operator", "Shape"]

MEANINGS = ("interval", "linear", "milp", "slopes", "onnx")
"""What an operator has beside its value, or declares in `unsupported`."""

Shape = tuple[int, ...]
Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple["Tensor", "Tensor"]
"""Lower and upper end, each `(N, *shape)`."""

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, eq=False, kw_only=True)
class Operator(abc.ABC):
    """One node of a `Network`.

    Attributes:
        op_type: ONNX operator type of the node it was read from, for messages.
        node: name of that node, for messages.
        inputs: names of the tensors it reads (constants are parameters, not inputs).
        output: name of the tensor it writes.
        in_shapes, out_shape: per-sample shapes.
    """

    op_type: str
    node: str
    inputs: tuple[str, ...]
    output: str
    in_shapes: tuple[Shape, ...]
    out_shape: Shape
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    unsupported: ClassVar[Mapping[str, str]] = _NONE
    """Meaning -> reason, for each of `MEANINGS` that this operator does not have."""

    @abc.abstractmethod
    def forward(self, *xs: Tensor) -> Tensor:
        """Value: tensors `(N, *in_shapes[i])` to `(N, *out_shape)`, differentiable."""

    @abc.abstractmethod
    def interval(self, *boxes: Box) -> Box:
        """An interval that contains the value for every input inside `boxes`."""

    @abc.abstractmethod
    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        """MILP rows: adds what is needed to `encoder`, returns the flattened output as linear expressions."""

    @abc.abstractmethod
    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        """`S^T a` for every input, a interval rows, S the interval matrix of the operator's difference quotients.

        Args:
            rows: `(R, *out_shape)`.
            boxes: the interval of every input, `(1, *in_shapes[i])`; an affine operator needs none.
        """

    @abc.abstractmethod
    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """Writes nodes that compute the tensor `output` of a file from its tensors `inputs`: the operator, no bound of it."""

    def missing(self, meaning: str) -> UnsupportedOperatorError:
        """The error for a meaning that `unsupported` declares."""
        return UnsupportedOperatorError(
            f"{self.op_type} (node {self.node!r}) has no {meaning}: {self.unsupported.get(meaning, 'not implemented')}"
        )

    @property
    def out_size(self) -> int:
        return math.prod(self.out_shape)

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()`, computed once per `key` for this operator (parameters in one dtype and device, sparse matrices)."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """The array attribute `name` as a tensor of the dtype and device of `like`."""
        kind, device = like.dtype, like.device
        make = lambda: torch.as_tensor(np.array(getattr(self, name)), dtype=kind, device=device)  # noqa: E731
        return self.cached((name, kind, device), make)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False, kw_only=True)
class Affine(Operator):
    r"""`y = sum_i L_i x_i + c`.

    A subclass gives `linear` and, where there is one, `offset`; it overrides `magnitude` unless all coefficients are
    non-negative, and `transpose` and `matrix` where something faster than the default is known.
    """

    mixing: ClassVar[bool] = True
    """Whether an output element may depend on more than one input element. Elementwise operators and selections say False."""

    @abc.abstractmethod
    def linear(self, *xs: Tensor) -> Tensor:
        """`sum_i L_i x_i`: tensors `(N, *in_shapes[i])` to `(N, *out_shape)`."""

    def offset(self, like: Tensor) -> Tensor | None:
        """`c`, broadcastable to `out_shape`, in the dtype of `like`; None where it is zero."""
        return None

    def magnitude(self, *rs: Tensor) -> Tensor:
        """`sum_i |L_i| r_i` for `r_i >= 0`."""
        return self.linear(*rs)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """`L_i^T a` for every input: `(N, *out_shape)` to one `(N, *in_shapes[i])` each.

        The default is the vector-Jacobian product of `linear`, which every linear map has. Differentiable in `a`.
        """
        n = a.shape[0]
        # alpha-crown differentiates through the backward pass: the product is linear in `a`, so its graph may be kept
        graph = torch.is_grad_enabled() and a.requires_grad
        with torch.enable_grad():
            xs = [torch.zeros((n, *s), dtype=a.dtype, device=a.device, requires_grad=True) for s in self.in_shapes]
            y = self.linear(*xs)
            grads = torch.autograd.grad(y, xs, a, allow_unused=True, create_graph=graph)
        return tuple(torch.zeros_like(x) if g is None else g for g, x in zip(grads, xs, strict=True))

    def transpose_window(self, a: Tensor, window: Window) -> tuple[Tensor, Window] | None:
        """`L^T a` for a coefficient tensor that is zero outside `window`; None where the operator does not know how.

        Args:
            a: `(N, *lead, *spatial)`, cropped to `window` in its last axes.
            window: where in the last `len(window)` axes of `out_shape` the crop lies.

        Returns:
            The coefficients of the one input, cropped to the smallest window that can be non-zero, and that window.
        """
        return None

    def matrices(self) -> tuple[sp.csr_array, ...]:
        """`L_i` as sparse matrices `(out_size, in_size_i)` over flattened tensors (cached)."""
        return self.cached("matrices", self._matrices)  # type: ignore[no-any-return]

    def _matrices(self) -> tuple[sp.csr_array, ...]:
        """The default asks `transpose` for blocks of rows; operators with many outputs override it."""
        from onnxsub.ops.affine_rows import matrices_by_rows as by_rows

        return by_rows(self)

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        return through(self, rows)

    def forward(self, *xs: Tensor) -> Tensor:
        y = self.linear(*xs)
        c = self.offset(xs[0])
        return y if c is None else y + c

    def interval(self, *boxes: Box) -> Box:
        centre = self.forward(*[(lo + hi) / 2 for lo, hi in boxes])
        radius = self.magnitude(*[(hi - lo) / 2 for lo, hi in boxes])
        return centre - radius, centre + radius

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        y = None
        for m, x in zip(self.matrices(), xs, strict=True):
            y = x.apply(m) if y is None else y + x.apply(m)
        assert y is not None  # every operator has at least one input
        c = self.offset(torch.zeros((), dtype=torch.float64))
        return y if c is None else y.shift(c.expand(self.out_shape).reshape(-1).numpy())


@dataclass(frozen=True, eq=False, kw_only=True)
class Nonlinear(Operator):
    """An operator with one input whose linear bounds depend on the interval of that input."""

    @property
    def takes_alpha(self) -> bool:
        """Whether `relax` takes `alpha`: one line per unit that may be turned between two sound positions."""
        return False

    @abc.abstractmethod
    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Relaxation:
        """Linear bounds of the output over `lower <= z <= upper`, both `(B, *in_shape)`.

        Args:
            mode: one of `onnxsub.ops.relaxation.MODES`: `fastlin` (parallel lines, where the function has them) or `crown` (the
                tighter lower line).
            alpha: position in [0, 1] of the line that may be turned, `(B, *in_shape)`, in place of what `mode` says, for units
                that are not affine on the interval; every value is sound (Relu: the lower slope itself). Only with
                `takes_alpha`.

        Raises:
            ValueError: unknown mode.
        """


@dataclass(frozen=True, eq=False, kw_only=True)
class Activation(Nonlinear):
    """An elementwise function `s` of one tensor: the operator that has *units*.

    Attributes:
        inner: a step of what an ONNX node computes, of a normalisation for instance: split by searches, neither counted nor pruned.
    """

    inner: bool = False

    @property
    def piecewise_linear(self) -> bool:
        """Whether `tangent` is the function itself around almost every point (the method `act` needs that)."""
        return True

    @abc.abstractmethod
    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> Elementwise: ...

    @abc.abstractmethod
    def tangent(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and offset of the piece at `z` (smooth functions: of the tangent), each shaped like `z`."""

    @abc.abstractmethod
    def slopes(self, lower: Tensor, upper: Tensor) -> Box:
        """Range of s' on `[lower, upper]`: an interval that holds `(s(a) - s(b)) / (a - b)` for all a != b in there.

        The smallest one, but for rounding where s is smooth. On one point it holds the slope of a piece there. Where an end is not
        a number, or the ends are in the wrong order, it holds all slopes of s, or its own ends are not numbers either.
        """

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        ((lower, upper),) = boxes
        return (times(rows, *self.slopes(lower, upper)),)

    def kinks(self, like: Tensor) -> tuple[Tensor, ...]:
        """Where `s` passes from one affine piece to the next, each shaped like `like`; () for smooth functions."""
        return (torch.zeros_like(like),) if self.piecewise_linear else ()

    def middle(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Where a unit without a kink inside `[lower, upper]` is split."""
        return (lower + upper) / 2

    def unsure(self, z: Tensor) -> Tensor:
        """Boolean per unit: rounding of z, not z, decides between values that are far apart."""
        return torch.zeros_like(z, dtype=torch.bool)

    def grain(self, z: Tensor) -> Tensor:
        """How far apart two pre-activations must lie for a line through both: nearer ones are the same but for rounding."""
        return torch.zeros_like(z)

    @abc.abstractmethod
    def line_error(self, lower: Tensor, upper: Tensor, slope: Tensor, offset: Tensor) -> Box:
        """Smallest interval `[e_lo, e_hi]` with `s(z) - (slope z + offset)` inside for all `lower <= z <= upper`."""

    @abc.abstractmethod
    def affine_on(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Boolean per unit: `s` is one affine piece on `[lower, upper]` (the unit is *stable*)."""

    @abc.abstractmethod
    def encode_units(self, encoder: Encoder, z: LinExpr, lower: Array, upper: Array) -> LinExpr:
        """MILP rows of `y = s(z)` for flattened units with `lower <= z <= upper`; returns y."""

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        lower, upper = encoder.bounds(self.output)
        return self.encode_units(encoder, xs[0], lower, upper)

    @abc.abstractmethod
    def take(self, index: Array, *, node: str, inputs: tuple[str, ...], output: str) -> Activation:
        """The same function on the units `index` (of the flattened tensor) only, as a flat activation."""
