r"""Rows of Relu units as a plain chain `s_k = max(0, W_k s_{k-1} + b_k)`, `logits = W s + b`.

What later rows need of the present signals travels through the Relu beside the units: a signal that is never negative as it is,
anything else plus a shift that keeps it non-negative on the whole box. The shift is taken back by the next bias, so the
chain is exact on the box.

Deep networks have intervals that exceed what their forms really reach by orders of magnitude, and so large a shift costs float32
its digits. Such a form v may travel as the pair `max(0, v + c), max(0, -v - c)` instead, whose difference is `v + c` for every c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from onnxsub.budget import Budget
from onnxsub.layouts.chain_cover import carry
from onnxsub.layouts.chain_rows import ReluRows
from onnxsub.ops.base import Array

__all__ = ["Stage", "stages"]

_MARGIN = 2.0**-20
"""Share of its largest size that a carried form stays above 0: sixteen times what rounding the weights to float32 moves it."""

_WIDE = 8.0
"""An interval this many times as wide as the values at the samples is not worth its shift."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One `Gemm`: weight `(out, in)` and bias `(out,)`, float64. The first `units` of its outputs are units of the network."""

    weight: Array
    bias: Array
    units: int


@dataclass(frozen=True, eq=False)
class _Signals:
    """Interval of every value that the next Gemm reads."""

    lower: Array
    upper: Array

    def range(self, forms: sp.csr_array) -> tuple[Array, Array, Array]:
        """Smallest and largest value of linear forms on the intervals, and the largest sum of absolute terms."""
        positive, negative = forms.maximum(0), forms.minimum(0)
        low, high = positive @ self.lower + negative @ self.upper, positive @ self.upper + negative @ self.lower
        return low, high, (positive - negative) @ np.maximum(np.abs(self.lower), np.abs(self.upper))


def stages(rows: ReluRows, samples: Array | None = None, budget: Budget | None = None) -> tuple[Stage, ...]:
    """The Gemms of the chain, a Relu between each two; at least two Gemms.

    Args:
        samples: `(N, n)` inputs inside the box; forms whose interval is far wider than their values there travel as pairs.

    Raises:
        OutOfTime: the budget ended; it is looked at before every Gemm.
    """
    budget = budget or Budget()
    level = rows.levels
    left = np.arange(len(rows.bias))  # rows that are still to be computed, the logits last
    over_signals, over_units, bias = rows.over_input, rows.over_units, rows.bias
    signals = _Signals(rows.lower, rows.upper)
    values = samples
    found = []
    for k in range(1, max(1, int(level.max(initial=0))) + 1):
        budget.check()
        now = np.zeros(len(left), dtype=np.bool_)
        now[left < rows.units] = level[left[left < rows.units]] == k
        units, later = np.flatnonzero(now), np.flatnonzero(~now)
        plan = carry(sp.csr_array(over_signals[later]))
        shift = _shift_of_signals(signals, plan.columns)
        forms = _forms(signals, plan.rows, values)
        straight = sp.csr_array(sp.eye_array(len(signals.lower), format="csr")[plan.columns])
        weight = sp.vstack([over_signals[units], straight, forms.weight]).toarray()
        constant = np.concatenate([bias[units], shift, forms.offset])
        fresh = over_units[:, left[units]][later]
        over_signals = sp.csr_array(sp.hstack([fresh, plan.direct, plan.mix @ forms.back]))
        over_signals.eliminate_zeros()
        bias = bias[later] - plan.direct @ shift - plan.mix @ forms.shift
        signals = _Signals(
            np.concatenate([np.zeros(len(units)), signals.lower[plan.columns] + shift, forms.lower]),
            np.concatenate([rows.upper_units[left[units]], signals.upper[plan.columns] + shift, forms.upper]),
        )
        if len(constant) == 0:  # constant logits: a Gemm must have an output, so a zero travels
            weight, constant = np.zeros((1, weight.shape[1])), np.zeros(1)
            over_signals = sp.csr_array((len(later), 1))
            signals = _Signals(np.zeros(1), np.zeros(1))
        if values is not None:
            values = np.maximum(values @ weight.T + constant, 0.0)
        found.append(Stage(weight, constant, len(units)))
        left, over_units = left[later], over_units[later]
    found.append(Stage(over_signals.toarray(), bias, 0))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _Forms:
    """Carried forms v as signals `s = max(0, weight @ (signals before) + offset)`, with `v = back @ s - shift`."""

    weight: sp.csr_array
    offset: Array
    back: sp.csr_array
    shift: Array
    lower: Array
    upper: Array


def _forms(signals: _Signals, forms: sp.csr_array, values: Array | None) -> _Forms:
    low, high, size = signals.range(forms)
    count = len(low)
    offset, paired = -low + _MARGIN * size, np.zeros(0, dtype=np.int64)
    if values is not None and count:
        seen = values @ forms.toarray().T
        least, width = seen.min(axis=0), np.ptp(seen, axis=0) + _MARGIN * size
        wide = high - low > _WIDE * width
        # one width below the least value seen: the second of the pair is 0 wherever the network is used
        offset = np.where(wide, width - least, offset)
        paired = np.flatnonzero(wide)
    offset = _float32(offset)
    twin = np.concatenate([np.arange(count), paired])
    sign = np.concatenate([np.ones(count), -np.ones(len(paired))])
    mirror = sp.csr_array((sign, (np.arange(len(twin)), twin)), shape=(len(twin), count))
    ends = np.sort([sign * (low + offset)[twin], sign * (high + offset)[twin]], axis=0)
    return _Forms(
        weight=sp.csr_array(mirror @ forms),
        offset=sign * offset[twin],
        back=sp.csr_array(mirror.T),
        shift=offset,
        lower=np.maximum(ends[0], 0.0),
        upper=np.maximum(ends[1], 0.0),
    )


def _shift_of_signals(signals: _Signals, columns: Array) -> Array:
    low = signals.lower[columns]
    return np.where(low >= 0, 0.0, _float32(-low * (1 + _MARGIN)))


def _float32(values: Array) -> Array:
    """Rounded to float32, so that what the next bias takes back is what the file adds."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)
