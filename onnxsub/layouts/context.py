"""What a layout may have to know beside the network: where the file must hold, and at which points it is tried."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnxsub.errors import InputError, ModelError
from onnxsub.ops.base import Array, Shape
from onnxsub.region import InputSpace

__all__ = ["EXACT_ON", "LayoutContext", "PrecisionError"]

EXACT_ON = ("domain", "ball", "auto")
"""Where layout `chain` equals the substitute: auto is the domain where that is affordable, else the ball."""


class PrecisionError(ModelError):
    """The model's element type cannot hold a layout.

    Attributes:
        complaint: why not, without the file's name.
    """

    def __init__(self, where: str, complaint: str) -> None:
        super().__init__(f"{where}: {complaint}; use --layout compact")
        self.complaint = complaint


@dataclass(frozen=True, eq=False)
class LayoutContext:
    """Where a file must equal its substitute. Arrays are in un-normalised input units and in the model's per-sample shape.

    Attributes:
        space: domain and normalisation.
        points: `(N, *shape)`, points that matter (the anchor, the adversarial point).
        ball: lower and upper end of the ball round the anchor; None where there is none.
        box: lower and upper end of the inputs on which the file must be exact; None: the whole domain.
        valid_radius: radius of the ball that `box` is, where it is less than the domain.
        flat_input: the file takes `(1, n)` rows (layout `chain`).
        fallback: the ball's radius where the file may be exact on that alone, if exactness on the domain is not affordable.
    """

    space: InputSpace
    points: Array
    ball: tuple[Array, Array] | None = None
    box: tuple[Array, Array] | None = None
    valid_radius: float | None = None
    flat_input: bool = False
    fallback: float | None = None

    @staticmethod
    def of(
        space: InputSpace,
        x0: Array,
        radius: float,
        x_adv: Array | None = None,
        *,
        flat_input: bool = False,
        exact_on: str = "auto",
    ) -> LayoutContext:
        """The context of an anchor: exact where `exact_on` says. What is said in units of a scale is that of the inputs here.

        Args:
            space: that of `x0`, `radius` and `x_adv`; its domain is finite.
        """
        told = np.stack([x0] if x_adv is None else [x0, x_adv])
        far = float(np.abs(told[-1].astype(np.float64) - told[0]).max())
        radius = far if far > radius * (1 + 1e-6) else radius  # what the substitute is built to is inside
        points, ball = space.original(told).astype(np.float64), space.plain_ball(x0, radius)
        if exact_on == "ball":
            return LayoutContext(space.plain, points, ball, ball, radius, flat_input)
        fallback = radius if exact_on == "auto" else None
        return LayoutContext(space.plain, points, ball, flat_input=flat_input, fallback=fallback)

    def on_ball(self, radius: float) -> LayoutContext:
        """The same with the ball, of that radius, as the box."""
        return replace(self, box=self.ball, valid_radius=radius, fallback=None)

    def exact_box(self, shape: Shape) -> tuple[Array, Array]:
        """Lower and upper end, float64, of the inputs on which the file must be exact, un-normalised.

        Raises:
            InputError: it is unbounded, or of another shape.
        """
        ends = self.box or self.space.ends(shape)
        lower, upper = (np.asarray(end, dtype=np.float64) for end in ends)
        if lower.shape != shape or upper.shape != shape:
            raise InputError(f"the box has ends of shape {list(lower.shape)} and {list(upper.shape)}, the input {list(shape)}")
        if not (np.isfinite(lower).all() and np.isfinite(upper).all() and (lower <= upper).all()):
            raise InputError("the domain is unbounded or empty; state a finite one with --domain LO HI, or a ball of finite radius")
        return lower, upper

    def fed(self, x: Array) -> Array:
        """What the model is fed for `x` `(..., *shape)`: `(x - mean) / std` in float64."""
        shape = self.points.shape[1:]
        ms = self.space.mean_std(shape)
        return np.asarray(x, dtype=np.float64) if ms is None else (np.asarray(x, dtype=np.float64) - ms[0]) / ms[1]
