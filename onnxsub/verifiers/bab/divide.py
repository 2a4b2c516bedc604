"""One tree per target out of a tree of many: what serves one target (cuts, programs, points) is then made for each of them.

A batch of nodes of many targets settles easy ones together. What is left is hard, and there cuts over pairs of units (`cuts/`) are
what closes trees; they are made for the coefficients of one target.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from onnxsub.verifiers.bab.bound import Bounded
from onnxsub.verifiers.bab.frame import Frame
from onnxsub.verifiers.bab.frontier import Frontier
from onnxsub.verifiers.bab.line import Line

__all__ = ["divided"]


def divided(tree: Frontier) -> list[Frontier]:
    """A tree for each target that has nodes left, the one with the smallest key first. The given one stays as it is.

    Args:
        tree: by distance, started, without cuts.
    """
    assert not tree.frame.cuts
    tree.give_back()
    waiting = [*tree.all_open(), *tree.leaves, *tree.given_up]
    first: dict[int, float] = {}
    for w in waiting:
        first[w.target] = min(first.get(w.target, w.key), w.key)
    return [_of(tree, t) for t in sorted(first, key=lambda t: first[t])]


def _of(tree: Frontier, target: int) -> Frontier:
    found = Frontier(_only(tree.frame, target), tree.options, tree.close, tree.order, tree.budget)
    kept = [[replace(w, target=0) for w in nodes if w.target == target] for nodes in (tree.all_open(), tree.leaves, tree.given_up)]
    root = tree.cutter.root
    found.begin(kept[0], None if root is None else _row(root, target), tree.split, tree.spent)
    found.leaves, found.given_up = kept[1], kept[2]
    return found


def _only(frame: Frame, t: int) -> Frame:
    """The frame of one of its targets."""
    rows = slice(t, t + 1)
    lower, upper = ({name: ends[rows] for name, ends in kind.items()} for kind in (frame.lower, frame.upper))
    return replace(
        frame, targets=frame.targets[rows], keys=frame.keys[rows], low=frame.low[rows], high=frame.high[rows], lower=lower,
        upper=upper, slack=frame.slack[rows],
    )  # fmt: skip


def _row(root: Bounded, t: int) -> Bounded:
    """The bounded root of one target, which is then number 0."""
    index = torch.tensor([t], device=root.line.k.device)
    nodes = root.nodes.take(index)
    return Bounded(
        replace(nodes, target=torch.zeros_like(nodes.target)), Line(root.line.c[index], root.line.k[index]), root.point[index],
        tuple(s[index] for s in root.seen),
    )  # fmt: skip
