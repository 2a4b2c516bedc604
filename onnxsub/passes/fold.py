r"""Folding: everything affine between two kept units becomes one row.

With `K_l` kept units in activation l, a network is

    z_l = A_l x + sum_{k<l} B_lk h_k + b_l,    h_l = s_l(z_l),    logits likewise,

and that is what `fold` returns, as `Concat`, `Dense` and activation operators: thousands of units become dozens. The rows come
from backward products (`propagate.pull_back`) and never from a product of dense layers. A window that is kept has a row for
each of its elements; a MaxPool that is wholly kept stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array, Nonlinear, Operator
from onnxsub.ops.combine import Concat
from onnxsub.ops.dense import Dense
from onnxsub.ops.movement import Reshape, flatten
from onnxsub.ops.relaxation import Relaxation, Window, inside
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import WindowMax, Windows
from onnxsub.passes.fold_windows import WindowRecorder, few_windows, rows_of
from onnxsub.passes.substitute import Lines, original_activation, substitute
from onnxsub.passes.windows import narrowed
from onnxsub.propagate import Bounds, pull_back
from onnxsub.propagate.backward import flattened
from onnxsub.propagate.chunks import MEMORY, row_chunks, unit_rows

__all__ = ["fold", "folded_weights", "stabilise"]

_WORK = 1e9
"""Multiplications of one chunk of rows under a time limit: up to half a second of one core in float64."""


def stabilise(network: Network, bounds: Bounds) -> Network:
    """The network in which every unit that `bounds` prove stable is its affine piece: the same function on the box of `bounds`.

    Windows that are fixed there are their winners, the others are left with the elements that can win there.
    """
    few = {op.output: narrowed(op, (bounds.pre[op.output][0][0], bounds.pre[op.output][1][0])) for op in network.windowed}
    network = network.replace(few)
    slopes, offsets, kept = {}, {}, {}
    for op in network.activations:
        l, u = (t[0].double() for t in bounds.pre[op.output])
        stable = op.affine_on(l, u)
        slope, offset = op.tangent(inside(l, u))
        if isinstance(op, Substituted):
            slope = torch.where(torch.from_numpy(op.kept), slope, torch.from_numpy(op.slope))
            offset = torch.where(torch.from_numpy(op.kept), offset, torch.from_numpy(op.offset))
            stable = stable | ~torch.from_numpy(op.kept)
        slopes[op.output], offsets[op.output], kept[op.output] = slope.numpy(), offset.numpy(), ~stable.numpy()
    return substitute(network, Lines("stable", slopes, offsets), kept)


@dataclass(frozen=True, eq=False)
class _Recorder(Relaxation):
    """Notes the coefficients of the kept units and passes on those of the affine ones.

    Not a bound: equality holds everywhere, which is what folding needs.
    """

    kept: Tensor  # flat positions
    slope: Tensor | None  # (*shape), zero for kept units; None where all units are kept
    offset: Tensor | None
    notes: list[Tensor]

    def lower(self, a: Tensor, window: Window = ()) -> tuple[Tensor | None, Tensor]:
        flat = flattened(a, 2)
        self.notes.append(flat[0][:, self.kept])
        if self.slope is None or self.offset is None:
            return None, a.new_zeros(a.shape[:2])
        return a * self.slope, torch.matmul(flat, self.offset.reshape(-1))


@dataclass(frozen=True, eq=False)
class _Block:
    """The kept units of one non-linear operator: its source, their flat positions, and where their values stand."""

    op: Nonlinear
    kept: Array
    output: str  # name of the flat tensor of their values

    @property
    def width(self) -> int:
        return len(self.kept)


def fold(
    network: Network, bounds: Bounds | None = None, *, memory: int = MEMORY, budget: Budget | None = None
) -> Network:
    """The folded form of a network.

    Args:
        bounds: units that these prove stable are folded too; the result is then the same function on their box only.
        memory: bytes for the coefficients of one chunk of rows.
        budget: looked at before every chunk of rows; under a time limit chunks are so small that one takes a second at most.

    Returns:
        A network of the same input and output names; its output is flat: `(classes,)`.

    Raises:
        OutOfTime: the budget ended.
    """
    budget = budget or Budget()
    if bounds is not None:
        network = stabilise(network, bounds)
    network = network.without_dead()
    names = {name for op in network.ops for name in (*op.inputs, op.output)}
    flat = flatten(network.input, network.input_shape, _fresh("folded:x", names))
    ops: list[Operator] = [flat]
    blocks: list[_Block] = []
    recorders: dict[str, _Recorder | WindowRecorder] = {}
    for number, op in enumerate(network.nonlinear):
        kept = _kept(op)
        recorders[op.output] = _recorder(op, kept)
        if len(kept) == 0:
            continue
        stem = _fresh(f"folded:{number}", names)
        index = torch.from_numpy(rows_of(op, kept))
        rows = _rows(network, op.inputs[0], index, recorders, blocks, memory, budget)
        ops += _dense(rows, flat.output, blocks, f"{stem}:z", f"{stem}:all", op)
        ops += _nonlinear(op, kept, stem)
        blocks.append(_Block(op, kept, f"{stem}:h"))
    rows = _rows(network, network.output, torch.arange(network.classes), recorders, blocks, memory, budget)
    ops += _dense(rows, flat.output, blocks, network.output, _fresh("folded:logits", names) + ":all", None)
    return Network(network.input, network.input_shape, network.output, tuple(ops))


def folded_weights(network: Network) -> int:
    """How many weights the rows of the folded form have, zeros included: that many it takes where everything is connected."""
    before, total = network.input_size, 0
    for op in network.without_dead().nonlinear:
        kept = _kept(op)
        if len(kept):
            total += len(rows_of(op, kept)) * before
            before += len(kept)
    return total + network.classes * before


def _fresh(name: str, names: set[str]) -> str:
    while any(n == name or n.startswith(f"{name}:") for n in names):
        name = f"{name}_"
    return name


def _kept(op: Nonlinear) -> Array:
    if isinstance(op, Substituted | SubstitutedMax):
        return np.flatnonzero(op.kept)
    return np.arange(op.out_size)


def _recorder(op: Nonlinear, kept: Array) -> _Recorder | WindowRecorder:
    index = torch.from_numpy(kept)
    if isinstance(op, SubstitutedMax):
        return WindowRecorder(index, op.picked, [])
    if isinstance(op, Windows):
        return WindowRecorder(index, None, [])
    if isinstance(op, Substituted):
        slope, offset = (torch.from_numpy(np.where(op.kept, 0.0, a)) for a in (op.slope, op.offset))
        return _Recorder(index, slope, offset, [])
    return _Recorder(index, None, None, [])


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows over the flat input and over each earlier block, and their constants; float64."""

    input: Array
    blocks: list[Array]
    bias: Array


def _rows(
    network: Network,
    tensor: str,
    index: Tensor,
    recorders: Mapping[str, _Recorder | WindowRecorder],
    blocks: list[_Block],
    memory: int,
    budget: Budget,
) -> _Rows:
    """The flat positions `index` of a tensor as functions of the input and of the kept units before it."""
    count = len(index)
    like = torch.zeros((), dtype=torch.float64)
    over_input = np.zeros((count, network.input_size))
    over_blocks = [np.zeros((count, b.width)) for b in blocks]
    bias = np.zeros(count)
    most = max(1, int(_WORK // max(network.multiplications, 1))) if budget.limited else count
    place = {int(p): i for i, p in enumerate(index.tolist())}
    with torch.no_grad():
        chunks = row_chunks(network, tensor, index, domains=1, itemsize=8, memory=memory)
        for chunk in (part for whole in chunks for part in torch.split(whole, most)):
            budget.check()
            where = [place[int(p)] for p in chunk.tolist()]
            for recorder in recorders.values():
                recorder.notes.clear()
            bound = pull_back(network, tensor, unit_rows(chunk, network.shapes[tensor], like), recorders)
            data = bound.coefficients.full(network.input_shape)
            over_input[where] = data.reshape(len(where), -1).numpy()
            bias[where] = bound.lower_bias[0].numpy()
            for matrix, block in zip(over_blocks, blocks, strict=True):
                for note in recorders[block.op.output].notes:
                    matrix[where] += note.numpy()
    return _Rows(over_input, over_blocks, bias)


def _dense(
    rows: _Rows, flat_input: str, blocks: list[_Block], output: str, joined: str, op: Nonlinear | None
) -> list[Operator]:
    """One `Dense` over the input and those earlier blocks that the rows read, joined by a `Concat` where there are several."""
    names, parts = [flat_input], [rows.input]
    for matrix, block in zip(rows.blocks, blocks, strict=True):
        if matrix.any():
            names.append(block.output)
            parts.append(matrix)
    weight = np.concatenate(parts, axis=1)
    node = "logits" if op is None else f"rows of {op.node}"
    shapes = tuple((p.shape[1],) for p in parts)
    new: list[Operator] = []
    source = flat_input
    if len(names) > 1:
        source = joined
        new.append(
            Concat(
                op_type="Concat",
                node=node,
                inputs=tuple(names),
                output=source,
                in_shapes=shapes,
                out_shape=(weight.shape[1],),
                axis=0,
                slots=tuple(int(n) for n in np.cumsum([0, *(p.shape[1] for p in parts[:-1])])),
            )
        )
    new.append(
        Dense(
            op_type="Gemm",
            node=node,
            inputs=(source,),
            output=output,
            in_shapes=((weight.shape[1],),),
            out_shape=(weight.shape[0],),
            weight=weight,
            bias=rows.bias,
        )
    )
    return new


def _nonlinear(op: Nonlinear, kept: Array, stem: str) -> list[Operator]:
    """The kept units as an operator of their own: flat values `stem:h` of the rows `stem:z`."""
    if isinstance(op, Activation):
        base = original_activation(op)
        return [base.take(kept, node=base.node, inputs=(f"{stem}:z",), output=f"{stem}:h")]
    if isinstance(op, SubstitutedMax | WindowMax):
        return [few_windows(op, kept, f"{stem}:z", f"{stem}:h")]
    shape = op.in_shapes[0]
    image = Reshape(
        op_type="Reshape",
        node=op.node,
        inputs=(f"{stem}:z",),
        output=f"{stem}:image",
        in_shapes=((int(np.prod(shape)),),),
        out_shape=shape,
    )
    pooled = replace(op, inputs=(f"{stem}:image",), output=f"{stem}:pooled")
    return [image, pooled, flatten(pooled.output, pooled.out_shape, f"{stem}:h")]
