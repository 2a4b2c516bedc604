"""One axis of a Resize as a matrix: element i of the output is `sum_j M[i, j] x[j]`, M fixed by lengths, scale and attributes.

The place of output element i in the input is computed in float32, as onnxruntime does. Where the nearest neighbour hangs on the
last bit of that, the axis is refused. Source: the text of ONNX Resize, and onnxruntime where that leaves something open.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsub.ops.base import Array

__all__ = ["COORDINATES", "NEAREST", "AxisResize"]

COORDINATES = (
    "align_corners", "asymmetric", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)  # fmt: skip
"""Ways to place an output element, `coordinate_transformation_mode`."""
NEAREST = ("ceil", "floor", "round_prefer_ceil", "round_prefer_floor", "simple")
"""Ways to round a place, `nearest_mode`; `simple` is that of Upsample and of Resize before opset 11."""


@dataclass(frozen=True)
class AxisResize:
    """The attributes that an axis is resized by.

    Attributes:
        mode: nearest, linear or cubic.
        coordinates: one of `COORDINATES`.
        nearest: one of `NEAREST`.
        cubic: the coefficient a of the cubic kernel.
        exclude_outside: weights of places outside the input are zero and the others sum to one; else the border is repeated.
        antialias: where the axis gets shorter, the kernel (of linear or cubic) is as much wider, so that every element is read.
    """

    mode: str
    coordinates: str
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False

    def places(self, n: int, m: int, scale: float, roi: tuple[float, float], f: Any = np.float32) -> Array:
        """Where in an axis of length n the m elements of the output lie, computed in the type f."""
        return np.asarray(self._places(n, m, scale, roi, f), dtype=f)

    def _places(self, n: int, m: int, scale: float, roi: tuple[float, float], f: Any) -> Any:
        x, s = np.arange(m, dtype=f), f(scale)
        if s == 1:  # also with `tf_crop_and_resize`, whatever its region is
            return x
        match self.coordinates:
            case "asymmetric":
                return np.asarray(x / s)
            case "tf_half_pixel_for_nn":
                return np.asarray((x + f(0.5)) / s)
            case "align_corners":
                return x * f(n - 1) / f(m - 1) if m > 1 else np.zeros(1, f)
            case "tf_crop_and_resize":
                start, end = f(roi[0]), f(roi[1])
                if m == 1:
                    return np.array([0.5 * (start + end) * f(n - 1)], f)
                return np.asarray(start * f(n - 1) + (x * (end - start) * f(n - 1)) / f(m - 1), dtype=f)
            case "pytorch_half_pixel" if m == 1:
                return np.zeros(1, f)
            case "half_pixel_symmetric":
                whole = s * f(n)
                shift = f(n) / f(2) * (f(1) - f(m) / whole)
                return np.asarray(shift + (x + f(0.5)) / s - f(0.5))
            case _:  # half_pixel
                return np.asarray((x + f(0.5)) / s - f(0.5))

    def matrix(self, n: int, m: int, scale: float, roi: tuple[float, float]) -> Array:
        """M, float64 `(m, n)`. Rows of places outside the input are zero with `tf_crop_and_resize`."""
        at = self.places(n, m, scale, roi)
        result = np.zeros((m, n))
        for i, x in enumerate(at):
            if self.coordinates == "tf_crop_and_resize" and not 0 <= x <= n - 1:
                continue
            for j, weight in self._wide_taps(float(x), n, scale) if self.antialias else self._taps(float(x), n, scale):
                result[i, min(max(j, 0), n - 1)] += weight
        return result

    def hangs_on_rounding(self, n: int, m: int, scale: float, roi: tuple[float, float], exact: float) -> bool:
        """Whether an element is another one with places in float64 and the scale `exact`, of which `scale` is the float32 form."""
        if self.coordinates == "tf_crop_and_resize":
            fine = self.places(n, m, exact, roi, np.float64)
            if not np.array_equal(self.inside(n, m, scale, roi), (fine >= 0) & (fine <= n - 1)):
                return True
        if self.mode != "nearest" or scale == 1:
            return False
        at, fine = self.places(n, m, scale, roi), self.places(n, m, exact, roi, np.float64)
        if self.coordinates == "half_pixel_symmetric":  # onnxruntime computes it in another order
            border = fine - (0.5 if self.nearest.startswith("round") else 0.0)
            if (np.abs(border - np.round(border)) < 1e-6 * (1 + n)).any():
                return True
        return any(self._round(float(x), scale) != self._round(float(y), scale) for x, y in zip(at, fine, strict=True))

    def inside(self, n: int, m: int, scale: float, roi: tuple[float, float]) -> Array:
        """Which of the m places lie in the input; the others have the extrapolation value with `tf_crop_and_resize`."""
        at = self.places(n, m, scale, roi)
        return (at >= 0) & (at <= n - 1) if self.coordinates == "tf_crop_and_resize" else np.ones(m, dtype=bool)

    def _taps(self, x: float, n: int, scale: float) -> list[tuple[int, float]]:
        if self.mode == "nearest":
            return [(self._round(x, scale), 1.0)]
        if self.mode == "linear":
            x = min(max(x, 0.0), n - 1.0)
            low = int(x)
            return [(low, 1.0 - (x - low)), (low + 1, x - low)] if x > low else [(low, 1.0)]
        low = math.floor(x)
        taps = [(j, self._kernel(j - x)) for j in range(low - 1, low + 3)]
        return self._shares(taps, n) if self.exclude_outside else [(j, w) for j, w in taps if w != 0]

    def _wide_taps(self, x: float, n: int, scale: float) -> list[tuple[int, float]]:
        """Shares of a kernel that is stretched by how much shorter the axis gets; what sticks out belongs to the border."""
        wide = max(1.0, 1.0 / scale)
        reach = (1.0 if self.mode == "linear" else 2.0) * wide
        taps = [(j, self._kernel((j - x) / wide)) for j in range(math.floor(x - reach), math.ceil(x + reach) + 1)]
        return self._shares(taps, n if self.exclude_outside else None)

    @staticmethod
    def _shares(taps: list[tuple[int, float]], n: int | None) -> list[tuple[int, float]]:
        """Weights that sum to one, of those in an axis of length n."""
        taps = [(j, w) for j, w in taps if n is None or 0 <= j < n]
        total = sum(w for _, w in taps)
        return [(j, w / total) for j, w in taps if w != 0]

    def _kernel(self, d: float) -> float:
        """The weight of an element at the distance d."""
        d, a = abs(d), self.cubic
        if self.mode == "linear":
            return max(0.0, 1.0 - d)
        if d < 1:
            return ((a + 2) * d - (a + 3)) * d * d + 1
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0

    def _round(self, x: float, scale: float) -> int:
        match self.nearest:
            case "floor":
                return math.floor(x)
            case "ceil":
                return math.ceil(x)
            case "round_prefer_ceil":
                return math.floor(x + 0.5)
            case "simple":
                return math.ceil(x) if scale < 1 else int(x)
            case _:  # round_prefer_floor
                return math.ceil(x - 0.5)
