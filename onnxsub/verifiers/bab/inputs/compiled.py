"""Zonotopes through dense layers and Relus, compiled: one box after the other, with generators of units that are unstable there."""

from __future__ import annotations

import numpy as np

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.relu.compiled import kept

__all__ = ["zonotopes"]

_UNIT = 1.2e-16  # a little more than what one operation of float64 rounds, as a share
_UP = 1 + 1e-14  # moves what a few operations made outward
_TINY = 1e-300  # more than what underflows


@kept
def zonotopes(
    box: tuple[Array, Array],
    weights: tuple[Array, ...],
    biases: tuple[Array, ...],
    sources: tuple[Array, ...],
    lows: tuple[Array, ...],
    highs: tuple[Array, ...],
) -> None:
    """`Zonotopes.within`: intervals `(B, m)` of every layer, in place.

    Args:
        box: ends, `(B, n)` each.
        weights, biases: of the layers, `(m, k)` and `(m,)`.
        sources: which of all values so far, inputs first, a layer reads, `(k,)`.
        lows, highs: what is known, `(B, m)` each; an end that is not finite says nothing.
    """
    lower, upper = box
    count, n = lower.shape
    total = n
    for t in range(len(weights)):
        total += weights[t].shape[0]
    # value r is c[r] + generators[r] . (xi in [-1, 1]) within error[r]
    c, error, generators = np.zeros(total), np.zeros(total), np.zeros((total, total))
    for i in range(count):
        generators[:] = 0.0
        for p in range(n):
            c[p] = lower[i, p] / 2 + upper[i, p] / 2
            generators[p, p] = max(upper[i, p] - c[p], c[p] - lower[i, p]) * _UP
            # sums may be done in any order, so that half the side need not reach both ends from a rounded centre
            error[p] = 4 * _UNIT * (abs(lower[i, p]) + abs(upper[i, p])) + _TINY
        used, first = n, n
        for t in range(len(weights)):
            w, b, source = weights[t], biases[t], sources[t]
            m, k = w.shape
            rounded = (k + used + 8) * _UNIT
            middle, size, read = np.zeros(k), np.zeros(k), np.zeros((k, used))
            for q in range(k):
                row = source[q]
                middle[q] = c[row]
                wide = abs(c[row])
                for r in range(used):
                    g = generators[row, r]
                    read[q, r] = g
                    wide += abs(g)
                size[q] = error[row] + rounded * wide
            centre, spread = np.dot(w, middle), np.dot(w, read)
            begin = used
            for j in range(m):
                off, wide = 0.0, 0.0
                for q in range(k):
                    off += abs(w[j, q]) * size[q]
                for r in range(begin):
                    wide += abs(spread[j, r])
                at = centre[j] + b[j]
                off = (off + rounded * (wide + abs(centre[j]) + abs(b[j])) + _TINY) * _UP
                # comparisons with what is no number are false: then nothing is learnt
                if at - wide - off > lows[t][i, j]:
                    lows[t][i, j] = at - wide - off
                if at + wide + off < highs[t][i, j]:
                    highs[t][i, j] = at + wide + off
                l, u, row = lows[t][i, j], highs[t][i, j], first + j
                if u <= 0:
                    c[row], error[row] = 0.0, 0.0
                elif l >= 0:
                    c[row], error[row] = at, off
                    for r in range(begin):
                        generators[row, r] = spread[j, r]
                elif l > -1e150 and u < 1e150:
                    # relu(z) - slope z lies in [0, top] for every slope in [0, 1]
                    slope = u / (u - l)
                    top = max(-slope * l, (1 - slope) * u)
                    c[row] = slope * at + top / 2
                    for r in range(begin):
                        generators[row, r] = slope * spread[j, r]
                    generators[row, used] = top / 2 * _UP + _TINY
                    error[row] = (slope * off + 8 * _UNIT * (abs(c[row]) + wide + top)) * _UP + _TINY
                    used += 1
                else:
                    c[row], error[row] = 0.0, np.inf
            first += m
