r"""A search that asks for no gradient, for networks that jump: steps and comparisons have none that says where the other class is.

Three parts, on offsets from the anchor:

- samples of the domain, many of them drawn nearer to the anchor: `s (u - x0)` with u uniform and s from 1 down to 1/64;
- the segment from the nearest hits to the anchor is halved, always the half whose outer end has another class is kept;
- moves: the offset is cut to a smaller ball and some of its coordinates are drawn anew in it; what keeps another class is nearer.

The ends of the moves are shares of the point's own radius, so a domain of any size is searched alike.
"""

from __future__ import annotations

import torch

from onnxsub.budget import Budget, OutOfTime
from onnxsub.network import Network
from onnxsub.ops.jumping import Jumping
from onnxsub.passes.attack.descent import Objective, Track

__all__ = ["jumps", "nearer_points", "sampled_points"]

_SCALES = 7  # of samples: 1, 1/2, ..., 1/64
_BATCH = 1024
_MOST, _LEAST = 16_384, 256  # points of each part
_WORK = 5e10  # multiplications of each part, at most: a second of one core
_NUMBERS = 2**24  # of a batch of points
_KEPT = 16  # of the hits that are nearest
_HALVINGS = 20
_CUTS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # shares of its radius by which a point is brought nearer
_DRAWN = (0.0, 0.05, 0.2, 0.6)  # shares of its coordinates that are drawn anew; one at least, but for 0


def jumps(network: Network) -> bool:
    """Whether a unit of a network jumps."""
    return any(isinstance(op, Jumping) for op in network.activations)


def sampled_points(objective: Objective, upper: float, share: float, generator: torch.Generator, budget: Budget) -> Track | None:
    """The nearest hits among samples within the radius `upper`, moved to where the class changes; None: there was no time.

    Args:
        share: of the usual work.
        budget: its end leaves what was found so far.
    """
    o, found = objective, None
    low, high = o.low.clamp(min=-upper), o.high.clamp(max=upper)
    left = _evaluations(o, share)
    while left > 0:
        rows = min(_BATCH, left, max(_NUMBERS // o.n, 1))
        left -= rows
        u = torch.rand((rows, o.n), generator=generator, dtype=low.dtype, device=low.device)
        # all scales in turn; every other sample has the full one
        scale = 0.5 ** (torch.arange(rows, device=low.device) % (2 * _SCALES) - _SCALES).clamp(min=0).to(low.dtype)
        delta = (low + (high - low) * u) * scale[:, None]
        try:
            worst, targets = o.worst(delta, budget)
        except OutOfTime:
            break
        radius = delta.abs().amax(dim=1)
        hits = _nearest(Track(targets, delta, radius, torch.where(worst > 0, radius, torch.inf), delta))
        found = hits if found is None else _nearest(found.join(hits))
    return None if found is None else _halved(o, found, budget)


def _evaluations(o: Objective, share: float) -> int:
    """How many points there is work for."""
    return max(int(share * min(_MOST, _WORK / max(o.multiplications, 1))), _LEAST)


def _nearest(track: Track) -> Track:
    return track.take(track.best.argsort(stable=True)[:_KEPT])


def _halved(o: Objective, track: Track, budget: Budget) -> Track:
    """Every point moved along its segment to within a millionth of a change of its class."""
    inner, outer = torch.zeros_like(track.best), torch.ones_like(track.best)
    targets = track.targets
    for _ in range(_HALVINGS):
        middle = (inner + outer) / 2
        try:
            worst, reached = o.worst(middle[:, None] * track.point, budget)
        except OutOfTime:
            break
        inner, outer = torch.where(worst > 0, inner, middle), torch.where(worst > 0, middle, outer)
        targets = torch.where(worst > 0, reached, targets)
    point = outer[:, None] * track.point
    return Track(targets, track.direction, track.radius, torch.where(track.best.isfinite(), outer * track.best, torch.inf), point)


def nearer_points(objective: Objective, track: Track, share: float, generator: torch.Generator, budget: Budget) -> Track:
    """Moves from the points of a track, each of which has another class; arguments as above."""
    o = objective
    cut = torch.tensor(_CUTS, dtype=track.best.dtype, device=track.best.device).repeat(len(_DRAWN))
    drawn = torch.tensor(_DRAWN, dtype=cut.dtype, device=cut.device).repeat_interleave(len(_CUTS))
    drawn = torch.where(drawn > 0, drawn.clamp(min=1 / o.n), drawn)
    count, rows = len(cut), torch.arange(len(track.best), device=cut.device)
    targets, point, best = track.targets, track.point, track.best
    for _ in range(max(_evaluations(o, share) // (count * len(best)), 1)):
        radius = (best[:, None] * (1 - cut)).reshape(-1, 1)
        old = torch.minimum(torch.maximum(point.repeat_interleave(count, 0), -radius), radius)
        new = (torch.rand(old.shape, generator=generator, dtype=old.dtype, device=old.device) * 2 - 1) * radius
        chosen = torch.rand(old.shape, generator=generator, dtype=old.dtype, device=old.device) < drawn.repeat(len(best))[:, None]
        moved = o.project(torch.where(chosen, new, old))
        try:
            worst, reached = o.worst(moved, budget)
        except OutOfTime:
            break
        size = torch.where(worst > 0, moved.abs().amax(dim=1), torch.inf).reshape(-1, count)
        least, at = size.min(dim=1)
        better = least < best
        at = rows * count + at
        best = torch.where(better, least, best)
        point = torch.where(better[:, None], moved[at], point)
        targets = torch.where(better, reached[at], targets)
    return Track(targets, track.direction, track.radius, best, point)
