"""The loop over all inputs that the intervals of nodes take, compiled; `intervals.py` computes the same by torch."""

from __future__ import annotations

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.relu.compiled import kept

__all__ = ["least_rows"]

_BLOCK = 256  # numbers that are summed in float32


@kept
def least_rows(rows: tuple[Array, Array, Array], lines: tuple[Array, Array, Array], share: float, tries: int, out: Array) -> None:
    """`least_above` of `intervals.py`.

    Args:
        rows: `(R, n)`; which of them, `(N,)`; t, `(N,)`.
        lines: w `(L, n)` and k `(L,)`; which of them, `(N,)`.
        share: what norms are multiplied by.
    """
    v, which, t = rows
    w, k, line = lines
    n = v.shape[1]
    sizes = np.empty(len(w))
    for j in range(len(w)):
        size = 0.0
        for start in range(0, n, _BLOCK):
            z = np.float32(0)
            for p in range(start, min(start + _BLOCK, n)):
                z += abs(w[j, p])
            size += float(z)
        sizes[j] = size
    for i in range(len(which)):
        r, c, middle = v[which[i]], w[line[i]], k[line[i]]
        x, first, second = 0.0, 0.0, -1.0
        f0, s0, f1, s1 = 0.0, 0.0, 0.0, 0.0
        best = np.inf
        for step in range(tries + 1):
            g = np.float32(x)
            total, slope = 0.0, 0.0
            for start in range(0, n, _BLOCK):
                a, b = np.float32(0), np.float32(0)
                for p in range(start, min(start + _BLOCK, n)):
                    y = c[p]
                    d = r[p] + g * y
                    a += abs(d)
                    b += y if d > 0 else -y
                total += float(a)
                slope += float(b)
            value = t[i] + g * middle + total * share
            slope += middle
            if value < best:
                best = value
            if step == 0:
                if not slope < 0:
                    break
                f0, s0 = value, slope
                x = 0.5 * total / max(sizes[line[i]], 1e-30)
                continue
            if slope < 0:
                first, f0, s0 = float(g), value, slope
            else:
                second, f1, s1 = float(g), value, slope
            if second < 0:
                x = 2 * float(g)
                if not x < 1e30:
                    break
                continue
            if not s1 > s0:
                break
            x = (f0 - s0 * first - f1 + s1 * second) / (s1 - s0)
            if not (x > first and x < second) or f0 + s0 * (x - first) > best - 1e-3 * total:
                break
        out[i] = best if abs(best) < np.inf else np.inf
