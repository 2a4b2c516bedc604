"""The referee: what a point is worth is said by a replay in float32, never by the verifier that found it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from onnxsub.instance import Instance
from onnxsub.ops.base import Array
from onnxsub.passes.attack.polish import as_points
from onnxsub.query import worst_margin
from onnxsub.verifiers.jumps import at_a_jump
from onnxsub.verifiers.witness import Witness

__all__ = ["TIE", "Referee"]

TIE = 1e-5
"""A margin below zero is a tie where float32 inference cannot tell it from zero, `TIE * (max |logit| + max |logit at x0|)`, and
where the network over the real numbers has reached the boundary there. Rounding alone makes no witness: the second
condition keeps a point that is short of the boundary from standing for the distance."""

_FAR = 10.0  # times the tolerance of a tie
_REAL = 1e-9  # of the margin at the anchor: what float64 inference cannot tell from zero

_FLOAT32 = 2.0**-24
_WHOLE_STEPS = np.arange(5) / 2  # of whole numbers: up to the next ones
_STEPS = np.concatenate([[0.0], np.geomspace(1e-8, 1e-3, 21)])


class Referee:
    """Judges points round an anchor.

    Args:
        instance: its `replay` gives the logits that count, its network the direction in which a point that just fails is pushed.
    """

    def __init__(self, instance: Instance) -> None:
        self._network = instance.network
        self._x0 = instance.x0
        self._label = instance.label
        self._target = instance.target
        self._space = instance.space
        replay = instance.judged.replay
        assert replay is not None
        self._replay = replay

    @cached_property
    def _size(self) -> float:
        """Largest logit at the anchor, by the replay."""
        return float(np.abs(np.asarray(self._replay(self._x0[None].astype(np.float32)))).max())

    @cached_property
    def _scale(self) -> float:
        """The margin of the network at the anchor, at least a thousandth of its largest logit."""
        with torch.no_grad():
            logits = self._network.forward(torch.as_tensor(self._x0).unsqueeze(0)).numpy()
        return max(abs(float(worst_margin(logits, self._label, self._target)[0][0])), 1e-3 * float(np.abs(logits).max()))

    def judge(self, x: Array) -> list[Witness]:
        """One witness per point of `(N, *input_shape)`, each rounded to float32 and clipped to the domain first."""
        offsets = np.asarray(x, dtype=np.float64) - self._x0
        points = as_points(self._x0, offsets.reshape(len(offsets), -1), self._space)
        logits = np.asarray(self._replay(points), dtype=np.float64)
        margins, labels = worst_margin(logits, self._label, self._target)
        near = (margins < 0) & (margins >= -TIE * (self._size + np.abs(logits).max(1)))
        if near.any():
            with torch.no_grad():
                exact = self._network.forward(torch.as_tensor(points[near], dtype=torch.float64)).numpy()
            near[near] = worst_margin(exact, self._label, self._target)[0] >= -_REAL * self._scale
        radii = np.abs(points.astype(np.float64) - self._x0).reshape(len(points), -1).max(1)
        found = []
        for point, radius, margin, target, tie in zip(points, radii.tolist(), margins.tolist(), labels.tolist(), near, strict=True):
            # NaN is neither: it compares false everywhere
            kind = "strict" if margin > 0 else "tie" if margin == 0 or tie else "rejected"
            found.append(Witness(point, radius, target, margin, kind))
        return found

    def over_reals(self, witness: Witness) -> float:
        """The margin of the network at a witness over the real numbers (float64), in units of the margin at the anchor."""
        with torch.no_grad():
            logits = self._network.forward(torch.as_tensor(witness.x, dtype=torch.float64).unsqueeze(0)).numpy()
        return float(worst_margin(logits, self._label, self._target)[0][0]) / max(self._scale, 1e-300)

    def float32_only(self, witness: Witness) -> bool:
        """Whether a witness has another class by float32 execution alone: over the real numbers it is short of the boundary by more
        than float32 rounding of the logits explains. A point at a jump is none of these: what is proved holds for either side."""
        with torch.no_grad():
            logits = self._network.forward(torch.as_tensor(witness.x, dtype=torch.float64).unsqueeze(0)).numpy()
            at_anchor = self._network.forward(torch.as_tensor(self._x0).unsqueeze(0)).numpy()
        size = float(np.abs(logits).max()) + float(np.abs(at_anchor).max())
        short = worst_margin(logits, self._label, self._target)[0][0] < -_FAR * TIE * size
        return bool(short) and not at_a_jump(self._network, witness.x)

    def margins(self, x: Array) -> tuple[Array, Array]:
        """`max_t f_t - f_y` and that t for points `(N, *input_shape)`, as the attack asks for it."""
        return worst_margin(np.asarray(self._replay(x)), self._label, self._target)

    def settle(self, x: Array, tol: float, limit: float = np.inf) -> Witness:
        """The nearest confirmed point near `x`: `x` itself, or `x` pushed outward against the class that is defended.

        A strict point is preferred to a tie when it costs at most `tol` of distance, and points beyond `limit` do not
        count. Where no point is confirmed, `x` comes back as `rejected`.
        """
        witnesses = self.judge(self._pushed(x, limit))
        inside = [w for w in witnesses if w.radius <= limit]
        strict = min((w for w in inside if w.kind == "strict"), key=lambda w: w.radius, default=None)
        tie = min((w for w in inside if w.kind == "tie"), key=lambda w: w.radius, default=None)
        if strict is not None and (tie is None or strict.radius <= tie.radius + tol):
            return strict
        return tie or next((w for w in inside if w.kind == "rejected"), witnesses[0])

    def _pushed(self, x: Array, limit: float) -> Array:
        """`x` moved by growing steps along the sign of the margin's gradient, within the ball that grows by the same step."""
        base = np.clip(np.asarray(x, dtype=np.float64), self._space.lower, self._space.upper)
        t = torch.tensor(base, dtype=torch.float64).unsqueeze(0).requires_grad_()
        logits = self._network.forward(t)[0]
        leader = int(worst_margin(logits.detach()[None].numpy(), self._label, self._target)[1][0])
        (gradient,) = torch.autograd.grad(logits[leader] - logits[self._label], t)
        sign = np.sign(gradient[0].numpy())
        radius = np.abs(base - self._x0).max()
        steps = (_WHOLE_STEPS if self._space.whole else _STEPS).reshape(-1, *[1] * base.ndim)
        moved = base + sign * steps
        # rounding to float32 must not carry a point across the limit
        ball = np.minimum(radius + steps, max(limit - _FLOAT32 * (1.0 + np.abs(base).max()), 0.0))
        low, high = np.maximum(self._x0 - ball, self._space.lower), np.minimum(self._x0 + ball, self._space.upper)
        inside: Array = np.clip(moved, low, high)
        return inside
