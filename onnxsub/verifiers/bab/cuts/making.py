"""When a tree gets cuts over pairs of units, and how its open nodes meet them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.verifiers.bab.bound import Bounded
from onnxsub.verifiers.bab.cuts.pairs import paired

if TYPE_CHECKING:
    from onnxsub.verifiers.bab.frontier import Frontier

__all__ = ["Cutter"]

_AFRESH = 100  # gradient steps for nodes that meet new cuts
_IDLE = 0.02  # multiplier below which a cut counts for nothing
_TARGETS = 3  # that get cuts, the hardest ones
_SHARE = 0.7  # of the time left that making cuts and meeting them may take
_AS_LONG = 2.0  # times as long as the tree has taken so far that making cuts may take
_MEETING = 5  # nodes that take as long as bounding one open node anew, about


class Cutter:
    """Makes cuts once, when a tree turns out to be hard.

    Attributes:
        root: the bounded roots of the tree; None: they were made, or no pair is promising.
        cut: cuts were made.
        hard: nodes stayed open when they had met these.
    """

    def __init__(self) -> None:
        self.root: Bounded | None = None
        self.cut = self.hard = False
        self._after = 0.0  # seconds of steps: where looking for pairs takes too long, it waits until the tree has

    def make(self, tree: Frontier, look: Callable[[Tensor], None], budget: Budget) -> bool:
        """Whether cuts were looked for now: the tree is hard, and there is time to make them and to bound all open nodes anew.

        Args:
            budget: of a tree that goes on when its share of the time is over, all that is left: the sooner cuts come, the fewer
                nodes have to meet them.
        """
        if self.root is None or not tree.options.pairs or tree.split < tree.options.hard or tree.spent < self._after:
            return False
        meeting = tree.spent / tree.split * _MEETING * tree.open
        seconds = min(_SHARE * budget.remaining - meeting, _AS_LONG * tree.spent)
        if seconds <= 0:
            return False
        hardest = {w.target: w for w in sorted(tree.all_open(), key=lambda w: -w.key)}
        few = sorted(hardest.values(), key=lambda w: w.key)[:_TARGETS]
        found = tree.bounder.bound(tree.batch(few), 0, tree.close)
        cuts, need = paired(tree.bounder, self.root, found, tree.options.pairs, budget.part(seconds))
        if not cuts:
            # where no pair is promising, none ever will be
            self.root = self.root if need else None
            # if the time left is what was too short, looking again at every step would take the rest of it
            self._after = need / _AS_LONG if need > _AS_LONG * tree.spent else tree.spent + need
            return True
        # nodes from before have multipliers of 0: an interruption from here on leaves every one of them as good as it was
        self.root, self.cut = None, True
        count = tree.frame.at_once(tree.options)
        tree.meet(replace(tree.frame, cuts=cuts), list(tree.all_open()))
        waiting = sorted(tree.all_open(), key=lambda w: w.key)
        for i in range(0, len(waiting), count):
            if budget.over:
                break
            waiting[i : i + count], points = tree.afresh(waiting[i : i + count], _AFRESH)
            look(points)
        tree.meet(tree.frame, waiting)
        self.hard = bool(tree.open)
        _drop_idle(tree)
        return True


def _drop_idle(tree: Frontier) -> None:
    """Forgets cuts that no open node makes use of: every one costs time in every pass."""
    gammas = [w.gamma for w in tree.all_open() if len(w.gamma)]
    if not gammas:
        return
    used = np.max(gammas, axis=0) > _IDLE
    parts = np.split(used, np.cumsum(tree.bounder.cut_counts)[:-1])
    cuts = {}
    for op, part in zip(tree.bounder.splits, parts, strict=True):
        if part.any():
            cuts[op.output] = tree.frame.cuts[op.output].take(torch.from_numpy(np.flatnonzero(part)).to(tree.frame.device))
    waiting = [replace(w, gamma=w.gamma[used]) if len(w.gamma) else w for w in tree.all_open()]
    tree.meet(replace(tree.frame, cuts=cuts), waiting)
