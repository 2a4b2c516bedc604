"""What a free attack knows of a decision: the nearest adversarial point that it finds lies inside the ball, or it does not.

An attack that may go as far as it likes finds points just inside a ball that one confined to it misses. A ball with one clause of
one row per other class is asked as a distance: the attack looks for the smallest radius, and its point counts where it lies in the
box. A box that comes from a file does not say round which point it is a ball; where its sides allow it, that point is worked out.
"""

from __future__ import annotations

import math

import numpy as np

from onnxsub.errors import InputError
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, attack_network
from onnxsub.region import InputSpace
from onnxsub.verifiers.decision import Decision, SpecBox

__all__ = ["ball_of", "free_attack"]

_SHARE = 1 / 4  # of the time left
_SAME = 1e-5  # relative difference of half-widths that counts as none: ends are float32 numbers
_ROOM = 3.0  # where nothing of a box shows the domain: how far beyond its sides the attack may go, in radii


def free_attack(decision: Decision, numbers: list[int]) -> set[int]:
    """Attacks the boxes that are balls, and says which; a point inside becomes the witness."""
    budget, session = decision.budget, decision.session
    attacked: set[int] = set()
    for i, number in enumerate(dict.fromkeys(numbers)):
        box = decision.spec.boxes[number]
        if not decision.running or box.confirm is None or any(len(m) > 1 for m in box.rows.clauses):
            continue
        question = ball_of(box)
        if question is None:
            continue
        x0, space = question
        attacked.add(number)
        budget.tell(f"attack on box {number + 1}")
        left = _SHARE * budget.remaining / (len(numbers) - i)
        options = AttackOptions(
            seed=session.limits.seed, timeout=None if math.isinf(left) else max(left, 1e-3), threads=session.limits.threads,
            device=session.bab.device,
        )  # fmt: skip
        zero = len(box.rows.b)
        with budget.stage("attack"):
            found = attack_network(decision.margins(number), x0.astype(np.float32), zero, space, options, box.confirm)
            if found.x_adv is not None:
                decision.replay(number, found.x_adv)
    return attacked


def ball_of(box: SpecBox) -> tuple[Array, InputSpace] | None:
    """The anchor and the domain of a box that is a ball clipped to a domain, the same range for every input; None: it is none.

    Every side is either as wide as the widest one, or stops at the smallest or at the largest end of all.
    """
    if box.anchor is not None:
        return box.anchor.x0, box.anchor.space
    lower, upper = box.lower, box.upper
    eps = float((upper - lower).max(initial=0.0)) / 2
    bottom, top = float(lower.min(initial=math.inf)), float(upper.max(initial=-math.inf))
    if not (eps > 0 and math.isfinite(bottom) and math.isfinite(top)):
        return None
    short = (upper - lower) / 2 < eps * (1 - _SAME)
    below, above = short & (lower <= bottom), short & (upper >= top)
    if (short & ~below & ~above).any():
        return None
    centre = np.where(below & ~above, upper - eps, np.where(above & ~below, lower + eps, lower + (upper - lower) / 2))
    low = bottom if below.any() else bottom - _ROOM * eps
    high = top if above.any() else top + _ROOM * eps
    centre = np.clip(centre, lower, upper)
    try:
        return centre, InputSpace(low, high)
    except InputError:
        return None
