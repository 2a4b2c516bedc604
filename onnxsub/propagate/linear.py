r"""Linear bounds of many elements of a tensor, or of rows over the output, on one or more boxes: chunked, widened, never NaN."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Box, Nonlinear
from onnxsub.ops.relaxation import Relaxation
from onnxsub.propagate.backward import Coefficients, flattened, pull_back
from onnxsub.propagate.chunks import MEMORY, row_chunks, unit_rows
from onnxsub.propagate.rounding import Scales, scales_of, settled, slack

__all__ = ["linear_range", "per_domain", "row_range"]


def linear_range(
    network: Network,
    tensor: str,
    index: Tensor,
    relaxations: Mapping[str, Relaxation],
    lower: Tensor,
    upper: Tensor,
    memory: int = MEMORY,
    *,
    scales: Scales | None = None,
    budget: Budget | None = None,
) -> Box:
    """Linear bounds of the flat positions `index` of a tensor over the boxes: `(B, len(index))` each, in the order of `index`.

    Args:
        scales: of all tensors up to this one (`rounding.py`); None: by plain intervals.
        budget: looked at per chunk and per operator.

    Raises:
        OutOfTime: the budget ended.
    """
    shape = network.shapes[tensor]
    scales = scales_of(network, lower, upper) if scales is None else scales
    parallel = all(relaxations[op.output].parallel for op in network.ancestors(tensor) if isinstance(op, Nonlinear))
    domains = lower.shape[0]
    lows = lower.new_empty((domains, len(index)))
    highs, low_passed, high_passed = (torch.empty_like(lows) for _ in range(3))
    place = torch.empty(int(index.max()) + 1, dtype=torch.long, device=index.device)
    place[index] = torch.arange(len(index), device=index.device)
    for chunk in row_chunks(network, tensor, index, domains=domains, itemsize=lower.element_size(), memory=memory):
        if budget is not None:
            budget.check()
        rows = per_domain(network, tensor, unit_rows(chunk, shape, lower), relaxations, domains)
        where = place[chunk]
        bound = pull_back(network, tensor, rows, relaxations, both=parallel, scales=scales.finite, budget=budget)
        low_passed[:, where] = _passed(bound.passed)
        if parallel:
            lows[:, where], highs[:, where] = bound.range(lower, upper)
            high_passed[:, where] = _passed(bound.passed)
        else:
            lows[:, where] = bound.minimum(lower, upper)
            negative = Coefficients(-rows.data, rows.window)
            bound = pull_back(network, tensor, negative, relaxations, scales=scales.finite, budget=budget)
            highs[:, where] = -bound.minimum(lower, upper)
            high_passed[:, where] = _passed(bound.passed)
    return _widened(lows, highs, flattened(scales[tensor], 1)[:, index], low_passed, high_passed, scales.largest)


def row_range(
    network: Network,
    tensor: str,
    rows: Tensor,
    row_scale: Tensor,
    relaxations: Mapping[str, Relaxation],
    lower: Tensor,
    upper: Tensor,
    *,
    scales: Scales,
    budget: Budget | None = None,
) -> Box:
    """Linear bounds of `rows . tensor`, rows `(R, *shape)`, over the boxes: `(B, R)` each.

    Args:
        row_scale: `|rows| . s`, `(B, R)`.
    """
    start = per_domain(network, tensor, Coefficients(rows.unsqueeze(0)), relaxations, lower.shape[0])
    below = pull_back(network, tensor, start, relaxations, scales=scales.finite, budget=budget)
    above = pull_back(network, tensor, Coefficients(-start.data), relaxations, scales=scales.finite, budget=budget)
    low, high = below.minimum(lower, upper), -above.minimum(lower, upper)
    return _widened(low, high, row_scale, _passed(below.passed), _passed(above.passed), scales.largest)


def _widened(low: Tensor, high: Tensor, scale: Tensor, low_passed: Tensor, high_passed: Tensor, largest: float) -> Box:
    below, above = (slack(low, high, scale, passed, largest=largest) for passed in (low_passed, high_passed))
    return settled(low - below, high + above)


def _passed(passed: Tensor | None) -> Tensor:
    assert passed is not None  # scales were given
    return passed


def per_domain(
    network: Network, tensor: str, rows: Coefficients, relaxations: Mapping[str, Relaxation], domains: int
) -> Coefficients:
    """Rows that are common to all domains, stated for each one where a pooling before `tensor` picks other elements in each."""
    if domains == 1 or all(relaxations[op.output].windowed for op in network.ancestors(tensor) if isinstance(op, Nonlinear)):
        return rows
    return Coefficients(rows.data.expand(domains, *rows.data.shape[1:]), rows.window)
