"""What two numbers with bounds of their own and of their sum and difference can be, and the plane above two Relus there."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

__all__ = ["hull_plane", "octagon"]

_ROOM = 1e-9  # of the size of a plane's numbers, for rounding
_FACES = torch.tensor(list(itertools.combinations(range(8), 3)))


def octagon(lower: Tensor, upper: Tensor, diagonals: Tensor) -> Tensor:
    """8 points whose hull contains every `(p, q)` with these bounds, its corners where no bound is idle: `(P, 8, 2)`.

    Args:
        lower, upper: of p and q, `(P, 2)`.
        diagonals: upper bounds of `p + q`, `-p - q`, `p - q` and `q - p`, `(P, 4)`.
    """
    (pl, ql), (pu, qu) = lower.unbind(1), upper.unbind(1)
    up, down, right, left = diagonals.unbind(1)
    for _ in range(2):  # bounds as small as the others make them, nearly: neighbouring edges meet in a corner or outside
        up, down = torch.minimum(up, pu + qu), torch.minimum(down, -pl - ql)
        right, left = torch.minimum(right, pu - ql), torch.minimum(left, qu - pl)
        pu, pl = torch.minimum(pu, (up + right) / 2), torch.maximum(pl, -(down + left) / 2)
        qu, ql = torch.minimum(qu, (up + left) / 2), torch.maximum(ql, -(down + right) / 2)
    p = torch.stack([pu, pu, up - qu, qu - left, pl, pl, -down - ql, right + ql], 1)
    q = torch.stack([pu - right, up - pu, qu, qu, left + pl, -down - pl, ql, ql], 1)
    return torch.stack([p, q], 2)


def hull_plane(corners: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """`m` `(P, 2)` and `d` `(P,)` with `max(0, p) + max(0, q) <= m . (p, q) + d` on the hull of the corners, smallest at `at`.

    Where no triangle of corners contains `at`, the plane is another one: looser there, and as valid.
    """
    phi = corners.clamp(min=0).sum(2)
    a, b, c = (corners[:, _FACES[:, k]] for k in range(3))
    fa, fb, fc = (phi[:, _FACES[:, k]] for k in range(3))
    ab, ac, ap = b - a, c - a, at[:, None] - a
    area = ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]
    safe = torch.where(area == 0, torch.ones_like(area), area)
    # barycentric coordinates of the point
    v = (ap[..., 0] * ac[..., 1] - ap[..., 1] * ac[..., 0]) / safe
    w = (ab[..., 0] * ap[..., 1] - ab[..., 1] * ap[..., 0]) / safe
    inside = (v >= -1e-9) & (w >= -1e-9) & (v + w <= 1 + 1e-9) & (area != 0)
    height = torch.where(inside, fa + v * (fb - fa) + w * (fc - fa), torch.full_like(v, -torch.inf))
    best = height.argmax(1, keepdim=True)
    rise_b, rise_c = fb - fa, fc - fa
    slope = (
        torch.stack([rise_b * ac[..., 1] - rise_c * ab[..., 1], rise_c * ab[..., 0] - rise_b * ac[..., 0]], -1) / safe[..., None]
    )
    face = slope.gather(1, best[..., None].expand(-1, -1, 2))[:, 0].clamp(-1, 2)
    # an octagon that is no more than a line has no such triangle: then both units' own lines, moved down as far as it lets them
    l, u = corners.amin(1), corners.amax(1)
    own = (u.clamp(min=0) - l.clamp(min=0)) / (u - l).clamp(min=1e-300)
    planes = [(m, _offset(corners, phi, m)) for m in (face, own)]
    first, second = ((m * at).sum(1) + d for m, d in planes)
    better = first <= second
    return torch.where(better[:, None], planes[0][0], planes[1][0]), torch.where(better, planes[0][1], planes[1][1])


def _offset(corners: Tensor, phi: Tensor, m: Tensor) -> Tensor:
    values = phi - (corners * m[:, None]).sum(2)
    size = phi.abs() + (corners * m[:, None]).abs().sum(2)
    return (values + _ROOM * size).amax(1)
