"""The two loops over all elements of all groups, compiled; `levels.py` computes the same by torch.

Choices that a node leaves out, and ones without weight, cost nothing here. See `relu/compiled.py` for what importing takes.
"""

from __future__ import annotations

from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.relu.compiled import kept

__all__ = ["heights", "pulls"]


@kept
def heights(R: Array, s: Array, allowed: Array, group: tuple[Array, Array, Array], sizes: Array, out: Array) -> None:
    """`R b + |R W - s|_1` where it is allowed, `(N, G, K)`.

    Args:
        R: `(N, G, M)`. s: `(N, G, S)`. allowed: `(N, G, K)`, bool.
        group: W, b and what the place is for; sizes: members, choices and coordinates of each group, `(G, 3)`.
        out: is written to where a choice is allowed.
    """
    W, b, row = group
    for n in range(len(s)):
        for g in range(len(sizes)):
            M, K, S = sizes[g]
            for k in range(K):
                if not allowed[n, g, k]:
                    continue
                height = 0.0 * R[n, g, 0]
                for m in range(M):
                    height += R[n, g, m] * b[g, m, k]
                for i in range(S):
                    row[i] = R[n, g, 0] * W[g, 0, k, i] - s[n, g, i]
                for m in range(1, M):
                    weight = R[n, g, m]
                    for i in range(S):
                        row[i] += weight * W[g, m, k, i]
                total = 0.0 * height
                for i in range(S):
                    total += abs(row[i])
                out[n, g, k] = height + total


@kept
def pulls(
    R: Array, s: Array, z: Array, group: tuple[Array, Array, Array], sizes: Array, read: bool, out: tuple[Array, Array]
) -> None:
    """`sum_k z sign(R W - s)`, `(N, G, S)`, and where `read`: `sum_k z (b + sign(R W - s) W)`, `(N, G, M)`; added to `out`.

    Args:
        z: `(N, G, K)`. The others as above.
    """
    W, b, row = group
    sums, inner = out
    for n in range(len(s)):
        for g in range(len(sizes)):
            M, K, S = sizes[g]
            for k in range(K):
                weight = z[n, g, k]
                if not weight > 0:
                    continue
                for i in range(S):
                    row[i] = R[n, g, 0] * W[g, 0, k, i] - s[n, g, i]
                for m in range(1, M):
                    factor = R[n, g, m]
                    for i in range(S):
                        row[i] += factor * W[g, m, k, i]
                none = 0.0 * weight
                for i in range(S):
                    row[i] = weight if row[i] > none else (-weight if row[i] < none else none)
                    sums[n, g, i] += row[i]
                if read:
                    for m in range(M):
                        total = weight * b[g, m, k]
                        for i in range(S):
                            total += row[i] * W[g, m, k, i]
                        inner[n, g, m] += total
