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
from onnxsub.verifiers.real_rows import RealMargins, real_margins
from onnxsub.verifiers.witness import Witness, grid_step

__all__ = ["TIE", "Referee"]

TIE = 1e-5
"""A margin below zero is a tie where float32 inference cannot tell it from zero, `TIE * (max |logit| + max |logit at x0|)`, and
where the network over the real numbers has reached the boundary there, by float64 evaluation up to what that cannot tell from
zero at the point itself (`real_rows.py`). Rounding alone makes no witness: the second condition keeps a point that is short of the
boundary, on a plateau behind a steep slope say, from standing for the distance."""

_FAR = 10.0  # times the tolerance of a tie
_ROOM = np.array([0.0, 0.25, 0.5, 1.0])  # shares of the room round a point in which the boundary is looked for

_FLOAT32 = 2.0**-24
_WHOLE_STEPS = np.arange(5) / 2  # of whole numbers: up to the next ones
# of a point's distance: how far it is pushed outward; where that does not do, a search from it finds nearer points
_SHARES = np.concatenate([[0.0], np.geomspace(1e-7, 1e-2, 21)])
_GRID = np.arange(len(_SHARES)) / 4  # and at least so many steps of float32


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
            near[near] = self._real(points[near]).reached
        radii = np.abs(points.astype(np.float64) - self._x0).reshape(len(points), -1).max(1)
        found = []
        for point, radius, margin, target, tie in zip(points, radii.tolist(), margins.tolist(), labels.tolist(), near, strict=True):
            # NaN is neither: it compares false everywhere
            kind = "strict" if margin > 0 else "tie" if margin == 0 or tie else "rejected"
            found.append(Witness(point, radius, target, margin, kind))
        return found

    def _real(self, points: Array) -> RealMargins:
        return real_margins(self._network, points, self._label, self._target)

    def over_reals(self, witness: Witness) -> float:
        """The margin of the network at a witness over the real numbers (float64), 0 where that cannot be told from it, in units
        of the margin at the anchor or of the terms of the margin at the witness, whichever are smaller."""
        real = self._real(witness.x[None])
        margin = float(real.margins[0])
        return 0.0 if abs(margin) <= real.error[0] else margin / max(min(self._scale, float(real.own[0])), 1e-300)

    def float32_only(self, witness: Witness) -> bool:
        """Whether a witness has another class by float32 execution alone: over the real numbers it is short of the boundary by more
        than float32 rounding explains, of the logits or of the terms that lead to them there. A point at a jump is none of
        these: what is proved holds for either side."""
        with torch.no_grad():
            logits = self._network.forward(torch.as_tensor(witness.x, dtype=torch.float64).unsqueeze(0)).numpy()
            at_anchor = self._network.forward(torch.as_tensor(self._x0).unsqueeze(0)).numpy()
        size = float(np.abs(logits).max()) + float(np.abs(at_anchor).max())
        real = self._real(witness.x[None])
        short = real.margins[0] < -TIE * min(_FAR * size, float(real.terms[0]))
        return bool(short) and not at_a_jump(self._network, witness.x)

    def on_boundary(self, witness: Witness, room: float) -> bool:
        """Whether the network over the real numbers has reached the boundary at a witness, or within `room` of it straight ahead. A
        point at a jump counts as one that has."""
        if self._real(witness.x[None]).reached[0]:
            return True
        moved = self._ahead(witness.x, room * _ROOM)
        ahead = np.clip(moved, self._space.lower, self._space.upper)
        return bool(self._real(ahead).reached.any()) or at_a_jump(self._network, witness.x)

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
        radius = np.abs(base - self._x0).max()
        lengths = _WHOLE_STEPS
        if not self._space.whole:
            lengths = np.maximum(_SHARES * radius, _GRID * grid_step(base, self._x0, self._space))
        moved, steps = self._ahead(base, lengths), lengths.reshape(-1, *[1] * base.ndim)
        # rounding to float32 must not carry a point across the limit
        ball = np.minimum(radius + steps, max(limit - _FLOAT32 * (1.0 + np.abs(base).max()), 0.0))
        low, high = np.maximum(self._x0 - ball, self._space.lower), np.minimum(self._x0 + ball, self._space.upper)
        inside: Array = np.clip(moved, low, high)
        return inside

    def _ahead(self, x: Array, steps: Array) -> Array:
        """`x` and points at `steps` from it along the sign of the margin's gradient: `(len(steps), *input_shape)`."""
        t = torch.tensor(np.asarray(x, dtype=np.float64)).unsqueeze(0).requires_grad_()
        logits = self._network.forward(t)[0]
        leader = int(worst_margin(logits.detach()[None].numpy(), self._label, self._target)[1][0])
        (gradient,) = torch.autograd.grad(logits[leader] - logits[self._label], t)
        ahead: Array = x + np.sign(gradient[0].numpy()) * steps.reshape(-1, *[1] * np.ndim(x))
        return ahead
