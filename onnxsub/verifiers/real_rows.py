"""Rows of a network at points over the real numbers: float64 evaluation, and what it cannot tell from zero there.

The error of a row is estimated at the point itself, never from sizes elsewhere: an operator's sum is off by a few units in the
last place of the size of its terms there (the scale of `propagate/rounding.py` on a box of one point), and that reaches the row
with the row's slope behind it. Slopes at a kink are those of the side that was computed, so the estimate is capped by a share of
the terms of the row itself: an estimate that is too small only leaves a point unconfirmed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Affine, Array
from onnxsub.propagate.backward import flattened
from onnxsub.query import worst_margin

__all__ = ["RealMargins", "output_scales", "real_margins"]

_UNITS = 2.0**-50  # eight units in the last place of float64, of the size of all terms
_CAP = 1e-9  # of the terms of the row itself
_VALUES = 2**22  # numbers of all tensors of the points that are evaluated together


@dataclass(frozen=True, eq=False)
class RealMargins:
    """`max_t f_t - f_y` at N points; every array is `(N,)`, float64.

    Attributes:
        margins: by float64 evaluation.
        leaders: that t.
        terms: size of all terms of all sums that lead to the margin, times its slope behind them: what rounding is relative to.
        own: size of the terms of the margin's last sum.
    """

    margins: Array
    leaders: Array
    terms: Array
    own: Array

    @property
    def error(self) -> Array:
        """What the margins cannot be told from zero by; 0 where it is no number."""
        error = np.minimum(_UNITS * self.terms, _CAP * self.own)
        return np.where(np.isfinite(error), error, 0.0)

    @property
    def reached(self) -> Array:
        """Whether the boundary is reached, bool; NaN is not."""
        return np.asarray(self.margins >= -self.error)


def real_margins(network: Network, x: Array, label: int, target: int | None = None) -> RealMargins:
    """Margins of points `(N, *input_shape)`, and what their rounding is relative to."""
    per_point = sum(math.prod(shape) for shape in network.shapes.values())
    chunk = max(1, _VALUES // max(per_point, 1))
    parts = [_of_some(network, x[k : k + chunk], label, target) for k in range(0, len(x), chunk)]
    joined = (np.concatenate([part[i] for part in parts]) if parts else np.zeros(0) for i in range(4))
    return RealMargins(*joined)


def output_scales(network: Network, x: Array) -> Array:
    """Size of the terms of every output's last sum at one point `(*input_shape)`: `(outputs,)`."""
    with torch.no_grad():
        values = network.values(torch.as_tensor(np.asarray(x, dtype=np.float64)).reshape(1, *network.input_shape))
        return np.asarray(_scales(network, values)[network.output].reshape(-1).numpy())


def _of_some(network: Network, x: Array, label: int, target: int | None) -> tuple[Array, Array, Array, Array]:
    points = torch.tensor(np.asarray(x, dtype=np.float64)).requires_grad_()
    values = network.values(points)
    logits = values[network.output].flatten(1)
    margins, leaders = worst_margin(logits.detach().numpy(), label, target)
    at = torch.arange(len(x))
    row = logits[at, torch.as_tensor(leaders)] - logits[:, label]
    with torch.no_grad():
        scales = _scales(network, {name: value.detach() for name, value in values.items()})
        outputs = scales[network.output].flatten(1)
        own = outputs[at, torch.as_tensor(leaders)] + outputs[:, label]
    names = [op.output for op in network.ops if values[op.output].requires_grad]
    terms = own.clone()
    if row.requires_grad:
        slopes = torch.autograd.grad(row.sum(), [values[name] for name in names], allow_unused=True)
        for name, slope in zip(names, slopes, strict=True):
            if slope is not None:
                terms += flattened(torch.where(slope == 0, 0.0, slope.abs() * scales[name]), 1).sum(1)
    return margins, leaders, terms.numpy(), own.numpy()


def _scales(network: Network, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scale of every tensor on a box of one point, as `propagate/rounding.py` defines it."""
    scales = {network.input: values[network.input].abs()}
    for op in network.ops:
        if not isinstance(op, Affine):
            scales[op.output] = values[op.output].abs()
            continue
        scale = op.magnitude(*[torch.maximum(scales[name], values[name].abs()) for name in op.inputs])
        offset = op.offset(scale)
        scales[op.output] = scale if offset is None else scale + offset.abs()
    return scales
