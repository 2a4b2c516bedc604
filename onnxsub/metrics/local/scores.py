r"""Softmax scores of logits, and what a bound of a score says about logits.

With `p_k = exp(f_k) / sum_t exp(f_t)` and 0 < s < 1:

    p_k >= s   <=>   sum_{t != k} exp(f_t - f_k - tau) <= 1,    tau = log((1 - s) / s).

For two classes that is linear: `f_t - f_k <= tau`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from onnxsub.errors import InputError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.convex import Odds
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import flatten

__all__ = ["log_odds", "odds_network", "scores"]


_MOST = 10**8  # coefficients of the rows behind the logits


def scores(logits: Array) -> Array:
    """Softmax over the last axis, in float64 whatever the logits are."""
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64), axis=-1))


def log_odds(score: float) -> float:
    """`tau = log((1 - s) / s)`."""
    return math.log1p(-score) - math.log(score)


def odds_network(network: Network, asked: Sequence[tuple[int, float]]) -> Network:
    """The network with `sum_{t != k} Odds(f_t - f_k - log_odds(s))` behind it for every `(k, s)` asked about: `(asked,)`.

    An output is above 1 where `p_k < s`, below 1 where `p_k > s`.

    Raises:
        InputError: there are too many classes for that.
    """
    m = network.classes
    if len(asked) * (m - 1) * m > _MOST:
        raise InputError(f"{len(asked)} scores of {m} classes at once are too many to decide about; choose property cr, sr or scr")
    flat = flatten(network.output, network.output_shape, "scores:logits")
    others = m - 1
    rows = np.zeros((len(asked) * others, m))
    shift = np.zeros(len(rows))
    for i, (k, score) in enumerate(asked):
        block = slice(i * others, (i + 1) * others)
        rows[block] = np.delete(np.eye(m), k, axis=0)
        rows[block, k] -= 1.0
        shift[block] = -log_odds(score)
    gaps = Dense(
        op_type="Score", node="f_t - f_k - tau", inputs=(flat.output,), output="scores:gaps", in_shapes=((m,),),
        out_shape=(len(rows),), weight=rows, bias=shift,
    )  # fmt: skip
    odds = Odds(
        op_type="Score", node="exp(f_t - f_k - tau)", inputs=(gaps.output,), output="scores:odds", in_shapes=((len(rows),),),
        out_shape=(len(rows),),
    )  # fmt: skip
    total = Dense(
        op_type="Score", node="sum over t", inputs=(odds.output,), output="scores:sums", in_shapes=((len(rows),),),
        out_shape=(len(asked),), weight=np.kron(np.eye(len(asked)), np.ones(others)),
    )  # fmt: skip
    return network.then((flat, gaps, odds, total))
