"""A box's network without windows, for searches that split signs."""

from __future__ import annotations

from dataclasses import replace

from onnxsub.passes.fold import fold, stabilise
from onnxsub.passes.unpool import without_windows
from onnxsub.verifiers.box.model import BoxModel

__all__ = ["with_relus"]


def with_relus(local: BoxModel) -> BoxModel:
    """The same questions with `max(a, b) = b + relu(a - b)` for the windows that the box leaves open; itself where it has none.

    A window's elements that cannot win on the box are left out first. Differences are bounded as what they are, so elements may
    turn out not to win that their own intervals say nothing about.

    Raises:
        OutOfTime: the budget ended.
    """
    if not local.network.windows:
        return local
    network = without_windows(stabilise(local.network, local.bounds))
    if not local.folds_further:
        network = fold(network, budget=local.how.budget)
    return replace(local, rows=replace(local.rows, network=network)).bounded(local.how.method)
