"""The loop over all inputs that the intervals of nodes take, compiled; `intervals.py` computes the same by torch."""

from __future__ import annotations

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.relu.compiled import kept

__all__ = ["near_rows"]

_BLOCK = 256  # numbers that are summed in float32


@kept
def near_rows(
    rows: tuple[Array, Array, Array], lines: tuple[Array, Array, Array], share: float, tries: int, start: Array, out: Array
) -> None:
    """`least_above` of `intervals.py`.

    Args:
        rows: `(R, n)`; which of them, `(N,)`; t, `(N,)`.
        lines: w `(L, n)` and k `(L,)`; which of them, `(N,)`.
        share: what norms are multiplied by.
        start: multipliers, `(N,)`, replaced by better ones. Near a positive one three are tried in one pass, and three more where
            an outer one is the best; else it is looked for by two tangents, in up to `tries` passes.
    """
    v, which, t = rows
    w, k, line = lines
    n = v.shape[1]
    sizes = np.full(len(w), -1.0)
    for i in range(len(which)):
        r, c, middle = v[which[i]], w[line[i]], k[line[i]]
        x = float(start[i])
        best, at = np.inf, 0.0
        if x > 0:
            for _ in range(2):
                g0, g1, g2 = np.float32(0.7 * x), np.float32(x), np.float32(1.45 * x)
                f0, f1, f2 = 0.0, 0.0, 0.0
                for first in range(0, n, _BLOCK):
                    r1, c1 = r[first : first + _BLOCK], c[first : first + _BLOCK]
                    a0, a1, a2 = np.float32(0), np.float32(0), np.float32(0)
                    for p in range(len(r1)):
                        z, y = r1[p], c1[p]
                        a0 += abs(z + g0 * y)
                        a1 += abs(z + g1 * y)
                        a2 += abs(z + g2 * y)
                    f0 += float(a0)
                    f1 += float(a1)
                    f2 += float(a2)
                f0, f1, f2 = (t[i] + g0 * middle + f0 * share, t[i] + g1 * middle + f1 * share, t[i] + g2 * middle + f2 * share)
                if f0 < best:
                    best, at = f0, float(g0)
                if f1 < best:
                    best, at = f1, float(g1)
                if f2 < best:
                    best, at = f2, float(g2)
                if f1 <= f0 and f1 <= f2:
                    down, up = (f0 - f1) / 0.3, (f2 - f1) / 0.45
                    bend = down + up
                    if bend > 0:
                        at = x * (1 + (down * 0.45 - up * 0.3) / (2 * bend))
                    break
                x *= 0.42 if f0 < f2 else 2.4
        else:
            if sizes[line[i]] < 0:
                size = 0.0
                for first in range(0, n, _BLOCK):
                    c1 = c[first : first + _BLOCK]
                    a0 = np.float32(0)
                    for p in range(len(c1)):
                        a0 += abs(c1[p])
                    size += float(a0)
                sizes[line[i]] = size
            x, left, right = 0.0, 0.0, -1.0
            f0, s0, f1, s1 = 0.0, 0.0, 0.0, 0.0
            for step in range(tries + 1):
                g = np.float32(x)
                total, slope = 0.0, 0.0
                for first in range(0, n, _BLOCK):
                    r1, c1 = r[first : first + _BLOCK], c[first : first + _BLOCK]
                    a, b = np.float32(0), np.float32(0)
                    for p in range(len(r1)):
                        y = c1[p]
                        d = r1[p] + g * y
                        a += abs(d)
                        b += y if d > 0 else -y
                    total += float(a)
                    slope += float(b)
                value = t[i] + g * middle + total * share
                slope += middle
                if value < best:
                    best, at = value, float(g)
                if step == 0:
                    if not slope < 0:
                        break
                    f0, s0 = value, slope
                    x = 0.5 * total / max(sizes[line[i]], 1e-30)
                    continue
                if slope < 0:
                    left, f0, s0 = float(g), value, slope
                else:
                    right, f1, s1 = float(g), value, slope
                if right < 0:
                    x = 2 * float(g)
                    if not x < 1e30:
                        break
                    continue
                if not s1 > s0:
                    break
                x = (f0 - s0 * left - f1 + s1 * right) / (s1 - s0)
                if not (x > left and x < right) or f0 + s0 * (x - left) > best - 1e-3 * total:
                    break
        start[i] = at if at < 1e30 else 0.0
        out[i] = best if abs(best) < np.inf else np.inf
