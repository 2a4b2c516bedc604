"""What a substituted window's line is off by: as bounds of the window, and as a difference of two networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onnxsub.ops.base import Operator
from onnxsub.ops.relaxation import Relaxation, Window, cropped
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import WindowLines, Windows, contenders
from onnxsub.passes.windows import line_error

__all__ = ["WindowErrors", "past_windows", "with_window_lines"]


@dataclass(frozen=True, eq=False)
class WindowErrors(Relaxation):
    """Windows as `lines` plus an error in `[low, high]`, each flat `(W,)`; zero where the line is a bound by itself."""

    lines: WindowLines
    low: Tensor
    high: Tensor

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor, Tensor]:
        if window:
            whole = a.new_zeros((*a.shape[:2], *self.lines.out_shape))
            cropped(whole, window).copy_(a)
            a = whole
        data, bias = self.lines.lower(a)
        flat = a.reshape(*a.shape[:2], len(self.low))
        return data, bias + torch.matmul(flat.clamp(min=0), self.low) + torch.matmul(flat.clamp(max=0), self.high)


def with_window_lines(op: SubstitutedMax, lower: Tensor, upper: Tensor) -> WindowErrors | None:
    """Bounds of the original windows on one box by the substitute's lines and their errors; fixed and kept windows have their own.

    None where there is more than one box.

    Args:
        lower, upper: proved interval of the operator's input, `(1, *in_shape)`.
    """
    if len(lower) != 1:
        return None
    box = lower[0].double().cpu().numpy(), upper[0].double().cpu().numpy()
    low, high = line_error(op.base, *box, op.picked)
    # an error that is not finite is none that a line could carry
    fixed = contenders(op.base.table, box[0].reshape(-1), box[1].reshape(-1)).sum(axis=1) == 1
    own = op.kept.reshape(-1) | fixed | ~(np.isfinite(low) & np.isfinite(high))
    picked = op.picked.only(~own.reshape(op.out_shape))
    lines = op.base.lines(lower, upper, torch.as_tensor(np.flatnonzero(own), device=lower.device), picked)
    return WindowErrors(lines, *(torch.as_tensor(np.where(own, 0.0, e)).to(lower) for e in (low, high)))


def past_windows(
    op: Windows, there: Operator, lower: Tensor, upper: Tensor, before: Tensor, allowed: Tensor
) -> Tensor | None:
    """At least how far apart windows and what they are in a substitute are; None: some line is not its window.

    A maximum passes on the largest difference of its elements, a line `|w| d_a + |v| d_b + e`.

    Args:
        lower, upper: interval of the operator's input, `(1, *in_shape)`.
        before: how far apart the inputs are, likewise.
        allowed: error up to which a line counts as its window, by element of the input.
    """
    after = op.forward(before)
    if not isinstance(there, SubstitutedMax):
        return after
    low, high = line_error(op, lower[0].numpy(), upper[0].numpy(), there.picked)
    error = np.maximum(np.abs(low), np.abs(high)).reshape(op.out_shape)
    room = op.forward(allowed)[0].numpy()
    if (~there.kept & ~(error <= room)).any():  # NaN is no equality
        return None
    line = there.picked.magnitude(before) + torch.from_numpy(np.where(there.kept, 0.0, error))
    return torch.where(torch.from_numpy(there.kept)[None], after, line)
