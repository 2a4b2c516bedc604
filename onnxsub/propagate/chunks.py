"""Which rows are pulled back together: few enough for the memory limit, near enough to each other for small windows."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from onnxsub.network import Network
from onnxsub.ops.base import Shape
from onnxsub.propagate.backward import Coefficients

__all__ = ["MEMORY", "row_chunks", "unit_rows"]

MEMORY = 256 * 2**20
"""Bytes that the coefficient tensors of one chunk may take together (a chunk has at least one row)."""

_TILE = 2  # side of the square of positions whose rows travel together; see PERFORMANCE.md
_VALUES = 2**22  # of one coefficient tensor: an operator takes less than 0.2 s for them between two looks at the clock
_LIVE = 4  # copies of the widest coefficient tensor that are alive at a time: operand, product, sign mask, result


def row_chunks(
    network: Network, tensor: str, index: Tensor, *, domains: int, itemsize: int, memory: int = MEMORY
) -> Iterator[Tensor]:
    """Splits the flat positions `index` of `tensor` into chunks.

    A chunk's coefficients take at most about `memory` bytes, counting the widest tensor before `tensor`, and have at most 2^22
    values, so that a look at the clock is never far. Positions of an
    image `(C, H, W)` are grouped by tiles, so that each chunk depends on a small window only.
    """
    before = [network.shapes[tensor], network.input_shape, *(op.out_shape for op in network.ancestors(tensor))]
    widest = max(math.prod(s) for s in before)
    limit = max(1, min(int(memory // (_LIVE * widest * itemsize * domains)), _VALUES // (widest * domains)))
    shape = network.shapes[tensor]
    if len(shape) != 3 or len(index) == 0:
        yield from torch.split(index, limit) if len(index) else ()
        return
    tile = _tile_of(index, shape)
    order = torch.argsort(tile, stable=True)
    sizes = torch.unique_consecutive(tile[order], return_counts=True)[1].tolist()
    for group in _merge(sizes, shape, index[order]):
        yield from torch.split(group, limit)


def _merge(sizes: list[int], shape: Shape, ordered: Tensor) -> Iterator[Tensor]:
    """Neighbouring tiles with few rows left travel together: a call has a price of its own."""
    enough = max(32, min(256, shape[0] * _TILE * _TILE))
    start = stop = 0
    for size in sizes:
        stop += size
        if stop - start >= enough:
            yield ordered[start:stop]
            start = stop
    if stop > start:
        yield ordered[start:stop]


def _tile_of(index: Tensor, shape: Shape) -> Tensor:
    """Number of the tile of every position, tiles numbered along a snake so that neighbours in number are neighbours in space."""
    _, height, width = shape
    row = (index // width) % height // _TILE
    column = index % width // _TILE
    columns = -(-width // _TILE)
    return row * columns + torch.where(row % 2 == 0, column, columns - 1 - column)


def unit_rows(index: Tensor, shape: Shape, like: Tensor) -> Coefficients:
    """One row per flat position in `index`: coefficient 1 there and 0 elsewhere, cropped to their common window."""
    rows = torch.arange(len(index), device=index.device)
    if len(shape) != 3:
        data = like.new_zeros((len(index), math.prod(shape)))
        data[rows, index] = 1.0
        return Coefficients(data.reshape(1, len(index), *shape))
    _, height, width = shape
    h, w, c = (index // width) % height, index % width, index // (height * width)
    h0, h1, w0, w1 = int(h.min()), int(h.max()) + 1, int(w.min()), int(w.max()) + 1
    data = like.new_zeros((1, len(index), shape[0], h1 - h0, w1 - w0))
    data[0, rows, c, h - h0, w - w0] = 1.0
    return Coefficients(data, (slice(h0, h1), slice(w0, w1)))
