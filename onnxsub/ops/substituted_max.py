"""Windows of which some are kept and the others are lines in two of their elements: what a substitute is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Array, Box, Nonlinear
from onnxsub.ops.broadcast import leading
from onnxsub.ops.interval_rows import Rows, through
from onnxsub.ops.picked import Picked
from onnxsub.ops.relaxation import check_mode
from onnxsub.ops.windows import WindowLines, WindowMax, Windows, encode_windows

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.encoding import Encoder, LinExpr
    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["SubstitutedMax"]


@dataclass(frozen=True, eq=False, kw_only=True)
class SubstitutedMax(Nonlinear):
    """`y_w = max_k x[table[w, k]]` for the windows that are kept, `picked` for the others.

    Attributes:
        base: the windows; they read and write the same tensors.
        kept: bool, of shape `out_shape`.
        picked: the lines; all its numbers are zero for kept windows.
    """

    base: Windows
    kept: Array
    picked: Picked

    def __post_init__(self) -> None:
        if self.kept.shape != self.out_shape or self.kept.dtype != np.bool_:
            raise ValueError(f"{self.op_type} {self.node!r}: kept must be boolean and have the shape {self.out_shape}")
        for part in (self.base, self.picked):
            if (part.inputs, part.output, part.in_shapes) != (self.inputs, self.output, self.in_shapes):
                raise ValueError(f"{self.op_type} {self.node!r}: its parts read {part.inputs}, itself {self.inputs}")

    @staticmethod
    def of(base: Windows, kept: Array, picked: Picked) -> SubstitutedMax:
        """`base` with all windows outside `kept` replaced; takes the place of `base` in its network."""
        kept = np.asarray(kept, dtype=np.bool_)
        return SubstitutedMax(
            op_type=base.op_type, node=base.node, inputs=base.inputs, output=base.output, in_shapes=base.in_shapes,
            out_shape=base.out_shape, base=base, kept=kept, picked=picked.only(~kept),
        )  # fmt: skip

    def renamed(self, inputs: tuple[str, ...], output: str) -> SubstitutedMax:
        """The same between other tensors."""
        base, picked = replace(self.base, inputs=inputs, output=output), replace(self.picked, inputs=inputs, output=output)
        return replace(self, inputs=inputs, output=output, base=base, picked=picked)

    @property
    def index(self) -> Array:
        """Flat positions of the kept windows."""
        return np.flatnonzero(self.kept)

    @property
    def read(self) -> Array:
        """Flat positions of the inputs that kept windows read, sorted: the ones whose intervals matter."""
        table = self.base.table[self.index]
        found: Array = np.unique(table[table >= 0])
        return found

    def _mask(self, like: Tensor) -> Tensor:
        mask: Tensor = self.cached(("kept", like.device), lambda: torch.as_tensor(np.array(self.kept), device=like.device))
        return mask

    def _index(self, like: Tensor) -> Tensor:
        index: Tensor = self.cached(("index", like.device), lambda: torch.as_tensor(self.index, device=like.device))
        return index

    def forward(self, *xs: Tensor) -> Tensor:
        line = self.picked.forward(*xs)
        return torch.where(self._mask(xs[0]), self.base.forward(*xs), line) if self.kept.any() else line

    def interval(self, *boxes: Box) -> Box:
        kept, ends, line = self._mask(boxes[0][0]), self.base.interval(*boxes), self.picked.interval(*boxes)
        return torch.where(kept, ends[0], line[0]), torch.where(kept, ends[1], line[1])

    def relax(self, lower: Tensor, upper: Tensor, mode: str, alpha: Tensor | None = None) -> WindowLines:
        check_mode(mode)
        return self.base.lines(lower, upper, self._index(lower), self.picked)

    def encode(self, encoder: Encoder, *xs: LinExpr) -> LinExpr:
        shift = self.picked.shift.reshape(-1)
        y = xs[0].apply(self.picked.matrices()[0]).shift(shift)
        index = self.index
        if len(index) == 0:
            return y
        kept = encode_windows(encoder, xs[0], self.base.table[index], *encoder.bounds(self.output))
        return y + kept.spread(index, self.out_size)

    def transpose_slopes(self, rows: Rows, *boxes: Box) -> tuple[Rows, ...]:
        mask = self._mask(rows[0])
        centre, radius = (torch.where(mask, t, torch.zeros_like(t)) for t in rows)
        (line,) = through(self.picked, rows)
        (best,) = self.base.transpose_slopes((centre, radius), *boxes)
        return ((line[0] + best[0], line[1] + best[1]),)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        """The kept windows alone, spread among zeros, plus the lines."""
        index = self.index
        if len(index) == 0:
            self.picked.to_onnx(writer, inputs, output)
            return
        size = self.out_size
        few = WindowMax(
            op_type=self.op_type, node=self.node, inputs=self.inputs, output=self.output, in_shapes=self.in_shapes,
            out_shape=(len(index),), windows=self.base.table[index],
        )  # fmt: skip
        kept = writer.fresh(f"{output}/kept")
        few.to_onnx(writer, inputs, kept)
        where = np.zeros(size, dtype=np.int64)
        where[index] = np.arange(len(index))
        spread = writer.step("Gather", (kept, writer.integers(output, "place", where)), output, "spread", axis=1)
        mask = writer.weight(output, "mask", leading(self.kept.reshape(-1).astype(np.float64), 1))
        masked = writer.step("Mul", (spread, mask), output, "masked")
        line, flat = writer.fresh(f"{output}/line"), writer.fresh(f"{output}/line/flat")
        self.picked.to_onnx(writer, inputs, line)
        writer.reshape(line, flat, (size,))
        writer.reshape(writer.step("Add", (masked, flat), output, "sum"), output, self.out_shape)
