"""What a search on one ball starts from: proved intervals per target, stacked so that nodes of different targets share a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from onnxsub.device import free_memory
from onnxsub.network import Network
from onnxsub.ops.base import Activation
from onnxsub.ops.splitting import Splittable
from onnxsub.propagate.backward import flattened
from onnxsub.verifiers.bab.cuts.planes import Cuts
from onnxsub.verifiers.box.clause import ClauseModel
from onnxsub.verifiers.options import BabOptions

if TYPE_CHECKING:
    from onnxsub.verifiers.bab.relu.matrices import Matrices

__all__ = ["Frame"]

_MORE = 16  # times as many nodes of a step on a GPU, at most
_WITH_CUTS = 2  # times as many where there are cuts: trees are wide then
_LINES, _PASS, _BOX, _PLANE = 96, 32, 40, 160  # bytes that one child takes per unit, element of the widest tensor, input, cut


@dataclass(frozen=True, eq=False)
class Frame:
    """A network on one box, for T clauses of one row; everything holds at the points of the box with `row_t >= -slack_t`.

    Attributes:
        network: the folded form where there is one.
        x0: the anchor, flat, `(n,)`.
        label: y, or the output that is the constant 0.
        radius: what is proved here is claimed for this ball.
        targets: the outputs t, one per row of everything below.
        keys: what each stands for.
        low, high: box of `x - x0`, `(T, n)`.
        lower, upper: input intervals by the tensor that the operator writes, `(T, *in_shape)`.
        slack: `(T,)`.
        whole: the question is about the whole box and no distance: multipliers lower the line's largest value in the box.
        cuts: by the tensor that the operator writes (`pairs.py`).
    """

    network: Network
    x0: Tensor
    label: int
    radius: float
    targets: tuple[int, ...]
    keys: tuple[int, ...]
    low: Tensor
    high: Tensor
    lower: dict[str, Tensor]
    upper: dict[str, Tensor]
    slack: Tensor
    whole: bool = False
    cuts: Mapping[str, Cuts] = field(default_factory=dict)

    @staticmethod
    def of(models: list[ClauseModel], *, whole: bool = False, device: str = "cpu") -> Frame:
        """The clauses that are left of one `BoxModel`, on a device."""
        local = models[0].local
        x0 = torch.as_tensor(np.asarray(local.box.x0, dtype=np.float64), device=device).reshape(-1)
        low = torch.stack([torch.as_tensor(m.lower).reshape(-1).double() for m in models]).to(device) - x0
        high = torch.stack([torch.as_tensor(m.upper).reshape(-1).double() for m in models]).to(device) - x0
        lower: dict[str, Tensor] = {}
        upper: dict[str, Tensor] = {}
        for op in local.network.nonlinear:
            for k, ends in enumerate((lower, upper)):
                parts = [torch.as_tensor(np.array(m.intervals[op.output][k])).reshape(op.in_shapes[0]) for m in models]
                ends[op.output] = torch.stack(parts).to(device)
        slack = torch.tensor([m.slack for m in models], dtype=torch.float64, device=device)
        return Frame(
            local.network, x0, local.rows.zero, local.box.radius, tuple(m.row for m in models), tuple(m.key for m in models), low,
            high, lower, upper, slack, whole,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        return self.x0.device

    def at_once(self, options: BabOptions) -> int:
        """Nodes that one step splits: on a GPU, which is idle with few, as many more as half of the memory holds."""
        batch = options.batch * (_WITH_CUTS if self.cuts else 1)
        if self.device.type == "cpu":
            return batch
        shapes = self.network.shapes.values()
        units = sum(math.prod(op.in_shapes[0]) for op in self.splits)
        # both children of every candidate, with intervals, lines and the coefficients of a pass (`branch.py`)
        child = _LINES * units + _PASS * max(math.prod(s) for s in shapes) + _BOX * self.network.input_size
        each = 2 * options.look * (child + _PLANE * sum(len(c) for c in self.cuts.values()))
        room = min(options.memory, free_memory(self.device)) / 2
        return max(batch, min(_MORE * batch, int(room / each)))

    @cached_property
    def splits(self) -> tuple[Activation | Splittable, ...]:
        """The operators whose inputs' intervals a search splits."""
        return tuple(op for op in self.network.nonlinear if isinstance(op, Activation | Splittable))

    @cached_property
    def matrices(self) -> Matrices | None:
        """The network as matrices, where it is one of Relus and not too large."""
        from onnxsub.verifiers.bab.relu.matrices import matrices_of

        return matrices_of(self)

    def values(self, x: Tensor) -> list[Tensor]:
        """What the operators of `splits` read at points `(B, *input_shape)`."""
        names = tuple(op.inputs[0] for op in self.splits)
        values = self.network.values(x, names)
        return [values[n] for n in names]

    def unstable(self, op: Activation | Splittable) -> Tensor:
        """`(T, *in_shape)`: elements of the input on whose interval the operator is not affine."""
        return ~op.affine_on(self.lower[op.output], self.upper[op.output])

    @property
    def open_units(self) -> int:
        """Most unstable units of any target."""
        counts = sum(flattened(self.unstable(op), 1).sum(1) for op in self.splits)
        return int(torch.as_tensor(counts).max()) if self.splits else 0
