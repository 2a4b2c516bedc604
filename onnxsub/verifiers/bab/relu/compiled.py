"""The two loops over all inputs that a tree spends its time in, compiled; `cut.py` and `nearest.py` compute the same by torch.

numba is imported by whoever imports this module, which takes a second: see `kernels.py`. Machine code is kept in numba's cache,
beside the source or in the user's folder; where neither can be written, every process compiles anew.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from onnxsub.ops.base import Array

__all__ = ["cut_rows", "kept", "reached_rows"]

_SUMS = {"reassoc", "contract", "nsz", "arcp"}  # sums in any order; numbers that are none stay so
_TANGENTS = 10
_ENOUGH = 1e-4  # of a row's width: what a better multiplier may still bring
_NEWTON = 60


def kept(function: Callable[..., None]) -> Callable[..., None]:
    """The function compiled, its machine code kept where numba finds a place for it."""
    try:
        compiled: Callable[..., None] = njit(function, cache=True, fastmath=_SUMS)
    except RuntimeError:  # no place
        compiled = njit(function, fastmath=_SUMS)
    return compiled


@kept
def cut_rows(a: Array, b: Array, sign: float, box: tuple[Array, Array, Array], middle: Array, out: Array) -> None:
    """`Halved.minimum` for `a` `(B, R, n)`, `b` and `out` `(B, R)`.

    Args:
        box: c, the centre and half of the sides, `(B, n)` each.
        middle: the half-space's value at the centres, `(B,)`.
    """
    c, centre, half = box
    count, rows, n = a.shape
    for i in range(count):
        ci, hi, xi, m = c[i], half[i], centre[i], middle[i]
        cut = 0.0
        for p in range(n):
            cut += abs(ci[p]) * hi[p]
        for r in range(rows):
            ai = a[i, r]
            width, value, rise, fall = 0.0, 0.0, 0.0, 0.0
            for p in range(n):
                x, y = sign * ai[p] * hi[p], ci[p] * hi[p]
                width += abs(x)
                value += sign * ai[p] * xi[p]
                rise += y if x > 0 else -y
                fall += x if y > 0 else -x
            value += sign * b[i, r]
            top = -width
            up0, up1, down0, down1 = -width, rise - m, fall, -cut - m
            if up1 > 0:
                for _ in range(_TANGENTS):
                    if not up1 > down1:
                        break
                    v = (down0 - up0) / (up1 - down1)
                    if not (v >= 0 and v < 1e30) or not up0 + v * up1 > top + _ENOUGH * width:
                        break
                    spread, slope = 0.0, 0.0
                    for p in range(n):
                        d = sign * ai[p] - v * ci[p]
                        y = ci[p] * hi[p]
                        spread += abs(d) * hi[p]
                        slope += y if d > 0 else -y
                    slope -= m
                    found = -v * m - spread
                    if found > top:
                        top = found
                    if slope > 0:
                        up0, up1 = found - slope * v, slope
                    else:
                        down0, down1 = found - slope * v, slope
            total = value + top
            out[i, r] = total if abs(total) < np.inf else -np.inf


@kept
def reached_rows(
    box: tuple[Array, Array, Array], k: Array, begin: Array, within: tuple[float, bool, int], found: tuple[Array, Array, Array],
    point: Array,
) -> None:  # fmt: skip
    """`newton_radius`, the line's value at the farthest point within `min(radius, close)`, `|c|_1`, and that point.

    Args:
        box: c and the ends, `(B, n)` each, as is `point`. The others: `(B,)`.
        begin: guesses of the distances; 0 is always one.
        within: the radius of the point at most; whether it is always that; the most Newton steps.
        found: the three numbers.
    """
    c, low, high = box
    close, inside, most = within
    radius, value, size = found
    count, n = c.shape
    for i in range(count):
        ci, lo, hi = c[i], low[i], high[i]
        least, total = lo[0] * 0, lo[0] * 0
        for p in range(n):
            least = max(least, lo[p], -hi[p])
            total += abs(ci[p])
        r = max(least, begin[i]) if begin[i] < np.inf else least
        left = begin[i] <= least
        for _ in range(most):
            g, speed = lo[0] * 0, lo[0] * 0
            for p in range(n):
                w = abs(ci[p])
                stop = hi[p] if ci[p] > 0 else -lo[p]
                g += w * min(stop, r)
                speed += w if stop > r else 0
            g += k[i]
            if speed > 0:
                new = max(least, r - g / speed)
            elif g >= 0:
                if left:
                    break
                new = least
            else:
                new = r * 0 + np.inf
            if left and not new > r:
                break
            left, r = True, new
            if r == np.inf:
                break
        at = close if inside or r > close else r
        g = lo[0] * 0
        for p in range(n):
            x = min(hi[p], max(at, lo[p])) if ci[p] > 0 else max(lo[p], min(-at, hi[p]))
            point[i, p] = x
            g += ci[p] * x
        radius[i], value[i], size[i] = r, k[i] + g, total
