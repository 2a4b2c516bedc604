r"""An attack on many anchors of one model at once, at several radii: what makes security of many models affordable.

Projected sign gradients with momentum on `excess(x)`, which is positive where the property is violated:

    cr          max_t f_t - f_y                    sr    |f - f(x0)|_p - delta
    scr         log eta - log p_y                  lr    |f - f(x0)|_inf - L |x - x0|_inf
    confidence  max_k |p_k - p_k(x0)| - gamma

The radii ascend: a violation is one at every larger radius too, and what held out begins where it ended at the smaller one. The
search is in float32; what it finds counts once onnxruntime has confirmed it on the file. It is a weaker attack than that of a
single anchor, so it lets a few more samples stand; like every attack it proves nothing of them. Of cr it is not tried where bounds
prove that there is nothing to find (`beyond_reach.py`), which it says no otherwise than that it found nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.beyond_reach import proved_radii
from onnxsub.metrics.local.classification import ClassificationRobustness
from onnxsub.metrics.local.decide import settled_at_anchor
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.looking import Looking, excess_at
from onnxsub.metrics.local.search import BallJudge
from onnxsub.metrics.local.verdict import STOOD, LocalVerdict
from onnxsub.ops.base import Array
from onnxsub.query import Query, own_scores, two_classes

__all__ = ["BatchAttack", "attack_batch", "queries_of"]

_CHUNK = 2**25  # numbers of one forward pass
_WORK = 2e9  # multiplications of one forward pass
_LOOKS = 5  # steps between two looks at which samples are violated already
_PARTS = (1.0, 0.25, 1 / 16)  # of the radius at which lr looks: its worst point may lie anywhere in the ball
_RANDOM = 8  # random points of which a search begins at the best
_PROMISING = 1e-6  # an excess that float32 may have rounded down is replayed too, relative to the outputs


@dataclass(frozen=True)
class BatchAttack:
    """How hard to try.

    Attributes:
        steps: of a search. restarts: per anchor and radius: from the sign of the gradient, from where the smaller radius ended,
            then at random, of cr towards one class after the other. seed: of these.
    """

    steps: int = 40
    restarts: int = 6
    seed: int = 0


def queries_of(query: Query, x: Array, labels: Sequence[int] | None) -> list[Query]:
    """The question of a query at other anchors.

    Args:
        x: float32, `(N, *shape)`, in the domain. labels: classes to defend; None: the predicted ones.

    Raises:
        InputError: the model takes whole numbers, or its logits at an anchor are not finite.
    """
    query.refuse_whole("an attack")
    fed = query.space.normalise(x)
    logits = two_classes(query.runtime.logits(fed))
    if not np.isfinite(logits).all():
        raise InputError("the model's logits at an anchor are not finite; check the model's weights and its --mean and --std")
    said = own_scores(query.runtime.raw(fed), query.model.outputs) if query.model.stripped else logits
    predicted = [int(k) for k in said.argmax(axis=1)]
    return [
        replace(query, x0=anchor, label=k if labels is None else labels[i], predicted=k, target=None)
        for i, (anchor, k) in enumerate(zip(x, predicted, strict=True))
    ]


def attack_batch(
    queries: Sequence[Query], props: Sequence[LocalProperty], options: BatchAttack, *, budget: Budget | None = None
) -> list[list[LocalVerdict]]:
    """For every radius the verdicts on all anchors: `violated` with a replayed point, `misclassified`, else `undecided`.

    Args:
        queries: of one model, see `queries_of`. props: one property at ascending radii.
        budget: where it ends, what is left is undecided.

    Raises:
        UnsupportedOperatorError: an operator of the model is not in the table.
    """
    budget = budget or Budget()
    known: dict[int, LocalVerdict] = {}
    for i, query in enumerate(queries):
        early = settled_at_anchor(query, props[0], "attack", proves=False)
        if early is not None:
            known[i] = early
    proved: dict[int, float] = {}
    if isinstance(props[0], ClassificationRobustness):
        standing = [i for i in range(len(queries)) if i not in known]
        proved = proved_radii(queries, standing, [prop.eps for prop in props], budget)
    search = _Search(queries, options)
    rows = []
    for prop in props:
        left = [i for i in range(len(queries)) if i not in known]
        if left and prop.eps > 0 and not budget.over:
            out = {i: proved[i] == prop.eps for i in left if proved.get(i, -1.0) >= prop.eps}
            known |= search.run(prop, left, out, budget)
        why = budget.why if budget.over else STOOD
        rows.append([
            replace(known[i], prop=prop) if i in known
            else LocalVerdict.of(query, prop, "undecided", why, verifier="attack", time_s={"total": 0.0})
            for i, query in enumerate(queries)
        ])  # fmt: skip
    return rows


class _Search:
    """Anchors of one model, and where the search for each ended last."""

    def __init__(self, queries: Sequence[Query], options: BatchAttack) -> None:
        self._queries = queries
        self._options = options
        first = queries[0]
        self._network = first.network
        self._generator = torch.Generator().manual_seed(options.seed)
        self._x = torch.as_tensor(np.stack([q.x0 for q in queries]))
        low, high = (torch.as_tensor(np.asarray(end, dtype=np.float32)) for end in first.space.ends(first.x0.shape))
        self._low, self._high = low, high
        self._labels = torch.tensor([q.label for q in queries])
        self._aim: Tensor | None = None
        size = sum(math.prod(s) for s in self._network.shapes.values())
        self._chunk = max(1, min(_CHUNK // size, int(_WORK // max(self._network.multiplications, 1))))
        with torch.no_grad():
            self._f0 = torch.cat([self._network.forward(part) for part in torch.split(self._x, self._chunk)])
        others = self._f0.scatter(1, self._labels[:, None], -math.inf)
        self._order = others.argsort(dim=1, descending=True)[:, : self._f0.shape[1] - 1]
        self._ended: dict[int, Tensor] = {}

    def run(self, prop: LocalProperty, left: Sequence[int], out: Mapping[int, bool], budget: Budget) -> dict[int, LocalVerdict]:
        """The anchors of `left` that are violated at the radius of `prop`.

        Args:
            out: anchors at which nothing is to be found; True: the next radius begins where the last search at this one ends.
        """
        found: dict[int, LocalVerdict] = {}
        last = self._options.restarts - 1
        for part in _PARTS if isinstance(prop, LipschitzRobustness) else (1.0,):
            for restart in range(self._options.restarts):
                standing = [i for i in left if i not in found]
                tried = [k for k, i in enumerate(standing) if i not in out or (restart == last and out[i])]
                if not standing or budget.over:
                    break
                self._aim = None if restart < 2 else self._order[:, (restart - 2) % self._order.shape[1]]
                draws = self._draws(len(standing), tried, restart)
                if not tried:
                    deque(draws, maxlen=0)
                    continue
                chosen = [standing[k] for k in tried]
                points, excess = self._ascend(prop, chosen, part * prop.eps, restart, draws, budget)
                for k, i in enumerate(chosen):
                    if part == 1.0:
                        self._ended[i] = points[k] - self._x[i]
                    if float(excess[k]) > -_PROMISING * (1.0 + float(self._f0[i].abs().max())):
                        verdict = self._confirmed(prop, i, points[k])
                        if verdict is not None:
                            found[i] = verdict
        return found

    def _confirmed(self, prop: LocalProperty, i: int, point: Tensor) -> LocalVerdict | None:
        query = self._queries[i]
        near = replace(prop, eps=query.space.within_reach(query.x0, prop.eps))
        seen = BallJudge(query, near).judge(point.numpy())
        if not seen.confirmed:
            return None
        witness = seen.x.reshape(query.x0.shape).astype(np.float32)
        why = "a point of the ball that the attack found"
        return LocalVerdict.of(query, near, "violated", why, verifier="attack", time_s={"total": 0.0}, witness=witness)

    def _draws(self, standing: int, tried: Sequence[int], restart: int) -> Iterator[Tensor]:
        """Uniform numbers in [-1, 1], drawn for all that stand: they do not depend on which of these are tried."""
        for _ in range(1 if restart < 2 else 1 + _RANDOM):
            cloud = torch.rand((standing, *self._x.shape[1:]), generator=self._generator)[tried]
            yield 2 * cloud - 1

    def _ascend(
        self, prop: LocalProperty, chosen: Sequence[int], radius: float, restart: int, draws: Iterator[Tensor], budget: Budget
    ) -> tuple[Tensor, Tensor]:
        """The best point within the radius of every chosen anchor, and its excess."""
        rows = torch.tensor(chosen)
        look = self._look(rows, radius)
        x = look.project(look.x0 + self._start(prop, look, radius, restart, draws))
        best, reached = x, torch.full((len(rows),), -math.inf)
        found, found_reached = torch.empty_like(x), torch.empty_like(reached)
        live = torch.arange(len(rows))
        momentum = torch.zeros_like(x)
        for step in range(self._options.steps + 1):
            value, gradient = self._gradient(prop, x, look)
            better = value > reached
            reached = torch.where(better, value, reached)
            best = torch.where(better.reshape(-1, *_ones(x)), x, best)
            if step == self._options.steps or budget.over:
                break
            size = gradient.flatten(1).abs().mean(1).clamp(min=1e-30).reshape(-1, *_ones(x))
            momentum.mul_(0.75).addcdiv_(gradient, size)
            length = radius * 0.5 * (1 + math.cos(math.pi * step / self._options.steps)) * 0.5 + radius / 100
            x = look.project(momentum.sign().mul_(length).add_(x))
            if step % _LOOKS == _LOOKS - 1:
                keep = reached <= 0
                if keep.all():
                    continue
                found[live], found_reached[live] = best, reached
                live, x, momentum, best, reached = live[keep], x[keep], momentum[keep], best[keep], reached[keep]
                look = look.take(keep)
                if not len(live):
                    break
        found[live], found_reached[live] = best, reached
        return found, found_reached

    def _look(self, rows: Tensor, radius: float) -> Looking:
        x0 = self._x[rows]
        low, high = torch.maximum(x0 - radius, self._low), torch.minimum(x0 + radius, self._high)
        aim = None if self._aim is None else self._aim[rows][:, None]
        return Looking(rows, x0, low, high, self._f0[rows], self._labels[rows][:, None], aim)

    def _start(
        self, prop: LocalProperty, look: Looking, radius: float, restart: int, draws: Iterator[Tensor]
    ) -> Tensor:
        """Offsets to begin with."""
        x0 = look.x0
        if restart == 0:
            # where the output itself is compared with that at the anchor, its gradient is zero there
            _, gradient = self._gradient(prop, x0 + 1e-3 * radius * next(draws), look)
            return radius * gradient.sign()
        cloud = radius * next(draws)
        if restart == 1:
            known = [self._ended.get(int(i)) for i in look.rows]
            return torch.stack([cloud[k] if d is None else d for k, d in enumerate(known)])
        best, reached = cloud, torch.full((len(x0),), -math.inf)
        for k in range(_RANDOM):
            # a gradient may lead nowhere where a network is constant, so the best of some points is where to begin
            value = self._value(prop, x0 + cloud, look)
            better = value > reached
            reached = torch.where(better, value, reached)
            best = torch.where(better.reshape(-1, *_ones(x0)), cloud, best)
            cloud = radius * next(draws)
            cloud = cloud.sign() * radius if k % 2 else cloud
        return best

    def _value(self, prop: LocalProperty, x: Tensor, look: Looking) -> Tensor:
        """The excess at points, one of each anchor."""
        with torch.no_grad():
            parts = [
                excess_at(prop, self._network.forward(x[part]), x[part], look, part) for part in look.parts(self._chunk)
            ]
        return torch.cat(parts).nan_to_num(nan=-math.inf)

    def _gradient(self, prop: LocalProperty, x: Tensor, look: Looking) -> tuple[Tensor, Tensor]:
        """The excess and its gradient at points, one of each anchor."""
        values, gradients = [], []
        for part in look.parts(self._chunk):
            with torch.enable_grad():
                point = x[part].detach().requires_grad_(True)
                value = excess_at(prop, self._network.forward(point), point, look, part)
                (gradient,) = torch.autograd.grad(value.sum(), point)
            values.append(value.detach())
            gradients.append(gradient if bool(gradient.sum().isfinite()) else gradient.nan_to_num())
        value, gradient = (t[0] if len(t) == 1 else torch.cat(t) for t in (values, gradients))
        return value.nan_to_num(nan=-math.inf), gradient


def _ones(x: Tensor) -> list[int]:
    return [1] * (x.dim() - 1)
