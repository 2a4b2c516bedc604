"""What the tests of properties share."""

from __future__ import annotations

import numpy as np

from onnxsub.properties import Property

HEAD1 = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX1 = "(assert (>= X_0 0.0))\n(assert (<= X_0 1.0))\n(assert (>= X_1 -1.0))\n(assert (<= X_1 2.0))\n"
HEAD2 = "(vnnlib-version <2.0>)\n(declare-network N\n (declare-input X float32 [1, 2])\n (declare-output Y float32 [1, 2])\n)\n"
BOX2 = "(assert (>= X[0,0] 0.0))\n(assert (<= X[0,0] 1.0))\n(assert (>= X[0,1] -1.0))\n(assert (<= X[0,1] 2.0))\n"


def same(a: Property, b: Property) -> bool:
    """Whether two properties say the same, bit by bit, in the same order."""
    if len(a.cases) != len(b.cases):
        return False
    for p, q in zip(a.cases, b.cases, strict=True):
        if p.lower.tobytes() != q.lower.tobytes() or p.upper.tobytes() != q.upper.tobytes() or len(p.clauses) != len(q.clauses):
            return False
        for c, d in zip(p.clauses, q.clauses, strict=True):
            if not (np.array_equal(c.A, d.A) and c.b.tobytes() == d.b.tobytes() and np.array_equal(c.strict, d.strict)):
                return False
    return True
