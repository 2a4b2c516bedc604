"""Constants against tensors that have lost their batch axis, and sums back to a shape that was broadcast from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Array, Shape
from onnxsub.ops.node import Node
from onnxsub.ops.relaxation import Window, cropped

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["crop", "flattened", "leading", "of_sample", "only_variable", "required", "sample_axes", "sum_to"]


def of_sample(node: Node, value: Array, rank: int) -> Array:
    """A constant that is broadcast against a tensor of full rank `rank` (batch axis first), without its batch axis, as float64.

    Raises:
        UnsupportedOperatorError: the constant differs along the batch axis, or has more axes than the tensor.
    """
    if value.ndim > rank:
        raise node.refuse(f"a constant of shape {list(value.shape)} against a tensor with {rank} axes moves the batch axis")
    if value.ndim == rank and rank > 0:
        if value.shape[0] != 1:
            raise node.refuse(f"a constant of shape {list(value.shape)} differs along the batch axis")
        value = value[0]
    result = np.asarray(value, dtype=np.float64)
    if not np.isfinite(result).all():
        raise node.refuse("a constant operand is not finite")
    return result


def sample_axes(node: Node, axes: list[int], rank: int) -> tuple[int, ...]:
    """Axes of a full tensor (negative ones count from the end) as axes `>= 0` of its sample, sorted; none may be the batch axis."""
    found = []
    for axis in axes:
        if not -rank <= axis < rank:
            raise node.refuse(f"axis {axis} of a tensor with {rank} axes")
        if axis % rank == 0:
            raise node.refuse("it works along the batch axis")
        found.append(axis % rank - 1)
    if len(set(found)) != len(found):
        raise node.refuse(f"an axis is given twice in {axes}")
    return tuple(sorted(found))


def required(node: Node, i: int, what: str) -> Array:
    """The constant that input i must be."""
    value = node.constant(i)
    if value is None:
        raise node.refuse(f"{what} must be a constant")
    return value


def only_variable(node: Node, i: int = 0) -> str:
    """Name of input i, which must be the one input that depends on the network's input."""
    if node.variables != (node.inputs[i],):
        raise node.refuse(f"only input {i} may depend on the network's input")
    return node.inputs[i]


def sum_to(t: Tensor, shape: Shape) -> Tensor:
    """The transpose of broadcasting: `(N, *big)` summed to `(N, *shape)`."""
    big = tuple(t.shape[1:])
    if big == shape:
        return t
    extra = len(big) - len(shape)
    axes = [i + 1 for i, n in enumerate(big) if i < extra or (shape[i - extra] == 1 and n != 1)]
    if axes:
        t = t.sum(axes, keepdim=True)
    return t.reshape(t.shape[0], *shape)


def leading(value: Array, rank: int) -> Array:
    """A constant that is broadcast against samples with `rank` axes, as one with `1 + rank` axes: those in front have length 1."""
    return value.reshape((1,) * (1 + rank - value.ndim) + value.shape)


def crop(parameter: Tensor, window: Window) -> Tensor:
    """A parameter that is broadcast against a sample, cropped to `window` in the last axes; axes of length 1 stay."""
    if not window or parameter.dim() == 0:
        return parameter
    # only the axes that the parameter has and that are not broadcast; both counted from the last one
    axes = list(zip(reversed(parameter.shape), reversed(window), strict=False))
    return cropped(parameter, tuple(slice(None) if n == 1 else w for n, w in reversed(axes)))


def flattened(t: Tensor, lead: int) -> Tensor:
    """All axes behind the first `lead` ones as one; a scalar per sample gets an axis of length 1."""
    return t.flatten(lead) if t.dim() > lead else t.unsqueeze(lead)
