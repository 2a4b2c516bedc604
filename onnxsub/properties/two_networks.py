"""A question about two networks at once, as VNN-LIB 2.0 text: do they differ by more than a number somewhere on a box?"""

from __future__ import annotations

import numpy as np

from onnxsub.errors import InputError, OptionError
from onnxsub.ops.base import Array, Shape
from onnxsub.properties.vnnlib2 import element
from onnxsub.properties.write import DOWN, UP, number

__all__ = ["write_difference"]


def write_difference(
    lower: Array, upper: Array, input_shape: Shape, output_shape: Shape, delta: float, *, comment: str = ""
) -> str:
    """`|f_k(x) - g_k(x)| >= delta` for some output k and some `lower <= x <= upper`, networks named `f` and `g`.

    Satisfiable: they differ by at least `delta` somewhere. Both have the same input; it is said by equal elements.

    Args:
        lower, upper: flat or of `input_shape`, in the units that both models are fed.
        input_shape, output_shape: of the files, batch axis included.

    Raises:
        InputError: `delta` is not a positive number, or the box is not finite.
    """
    lo, hi = np.asarray(lower, dtype=np.float64).reshape(-1), np.asarray(upper, dtype=np.float64).reshape(-1)
    if not (np.isfinite(delta) and delta > 0):
        raise OptionError(f"--delta {delta} must be a positive number")
    if not (np.isfinite(lo).all() and np.isfinite(hi).all()):
        raise InputError("the box of the comparison is not finite; state a finite domain with --domain LO HI")
    lines = [f"; {line}".rstrip() for line in comment.splitlines()]
    lines.append("(vnnlib-version <2.0>)")
    for name in ("f", "g"):
        shapes = [", ".join(map(str, shape)) for shape in (input_shape, output_shape)]
        lines += [
            f"(declare-network {name}",
            f"    (declare-input X_{name} real [{shapes[0]}])",
            f"    (declare-output Y_{name} real [{shapes[1]}])",
            ")",
        ]
    for i, (a, b) in enumerate(zip(lo.tolist(), hi.tolist(), strict=True)):
        x, other = element("X_f", input_shape, i), element("X_g", input_shape, i)
        lines += [f"(assert (<= {x} {number(b, UP)}))", f"(assert (>= {x} {number(a, DOWN)}))"]
        lines += [f"(assert (<= {x} {other}))", f"(assert (>= {x} {other}))"]
    outputs = int(np.prod(output_shape))
    lines.append("(assert (or")
    for k in range(outputs):
        f, g = element("Y_f", output_shape, k), element("Y_g", output_shape, k)
        d = number(delta, DOWN)
        lines += [f"    (and (>= (+ {f} (* -1.0 {g})) {d}))", f"    (and (>= (+ {g} (* -1.0 {f})) {d}))"]
    lines.append("))")
    return "\n".join(lines) + "\n"
