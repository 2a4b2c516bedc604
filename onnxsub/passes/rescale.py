r"""Hidden layers brought to one scale by powers of two: the same function, the same units, numbers of ordinary size.

A Relu commutes with positive factors, `relu(2^e z) = 2^e relu(z)`, so a layer may be multiplied by `2^-e` and the next one by
`2^e` (`propagate/balance.py`). Here e is chosen such that the largest value of the layer at a given point lies in [1/2, 1).
Multiplying by powers of two rounds nothing, so networks that differ by such factors only become one and the same network, number
by number, as long as nothing leaves the range of float64. Whatever compares with an absolute number behind this pass (rows and
tolerances of solvers, gradient steps, float32 arithmetic) sees one scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.elementwise import Scale
from onnxsub.propagate.balance import InexactError, groups, scaled
from onnxsub.properties.rows import RowSet

__all__ = ["exponent_of", "in_row_units", "rescaled"]

_MOST = 1000


def exponent_of(size: float) -> int:
    """e with `size / 2^e` in [1/2, 1), within -1000 and 1000; 0 where `size` is 0 or no number."""
    # 2^-e must be a number too
    return min(max(math.frexp(size)[1], -_MOST), _MOST) if math.isfinite(size) and size > 0 else 0


def rescaled(network: Network, x: Array, unit: Callable[[Array], float] | None = None) -> Network:
    """The network with its layers scaled by powers of two where that rounds nothing.

    Args:
        x: the point at which layers are measured, `(*input_shape)`.
        unit: told the logits there, `(1, classes)`, the size that the output is brought near 1 by; None: it stays as it is.
    """
    with torch.no_grad():
        values = network.values(torch.as_tensor(np.array(x, dtype=np.float64)).unsqueeze(0))
    exponents: dict[str, int] = {}
    for group in groups(network):
        size = max((float(values[n].abs().max()) for n in group if values[n].numel()), default=0.0)
        exponents |= dict.fromkeys(group, -exponent_of(size))
    try:
        found = scaled(network, exponents)
    except InexactError:
        found = network  # one group holds numbers too far apart for any unit
    output = 0 if unit is None else exponent_of(unit(values[network.output].flatten(1).numpy()))
    if not output:
        return found
    shape = network.output_shape
    last = Scale(
        op_type="Rescale", node="logits / 2^e", inputs=(network.output,), output=f"{network.output}:rescaled",
        in_shapes=(shape,), out_shape=shape, scale=np.full(shape, 2.0**-output),
    )  # fmt: skip
    return found.then((last,))


def in_row_units(rows: RowSet, y: Array, least: float) -> RowSet:
    """The same half-spaces with rows of ordinary size at one output vector y, by powers of two.

    Every row is divided by the size of its terms `|b| + |A| |y|`, and all of them by the largest `|b - A y|` that is then left, at
    least `least`. So rows of one kind, the margins of classes for instance, keep their ratios: which one is nearest to zero guides
    searches, and the smallest of several rows is bounded worse where they are stretched apart.
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        terms, sizes = np.abs(rows.b) + np.abs(rows.A) @ np.abs(y), np.abs(rows.b - rows.A @ y)
        own = np.array([exponent_of(float(t)) for t in terms])
        shares = np.nan_to_num(np.maximum(np.ldexp(sizes, -own), least), nan=0.0, posinf=0.0)
        total = own + exponent_of(float(shares.max(initial=0.0)))
        whole = np.column_stack([rows.A, rows.b])
        moved = np.ldexp(whole, -total[:, None])
        # a row whose numbers would leave the range of float64 stays as it is
        lost = ~(np.isfinite(moved) & (np.ldexp(moved, total[:, None]) == whole)).all(1)
        found = np.where(lost[:, None], whole, moved)
    return replace(rows, A=found[:, :-1], b=found[:, -1])
