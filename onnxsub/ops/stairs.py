"""Floor, Ceil and Mod: staircases that jump at the whole numbers, where Round and quantisers jump halfway between two of them.

`floor(z)` is the integer nearest to `z - 1/2`, so that interval, lines, rows and the room round a jump are those of `Quantise`,
half a step ahead; only which of the two integers belongs to the jump itself differs. z is not moved by that half, which would
round the tensor: its low bits, or all that is left of a tiny negative number. The others are made of it:

    ceil(z) = -floor(-z),    fmod(z, c) = z - c floor(max(z, 0) / c) + c floor(max(-z, 0) / c)   for c > 0,

where the remainder keeps the sign of z, and lies within `[-c, c]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Array, Operator
from onnxsub.ops.broadcast import leading, of_sample, only_variable
from onnxsub.ops.clip import Clip
from onnxsub.ops.compose import Composer
from onnxsub.ops.node import Node
from onnxsub.ops.quantize import Quantise
from onnxsub.ops.relu import Relu

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from onnxsub.ops.onnx_writer import OnnxWriter
else:
    from onnxsub.lazy import torch

__all__ = ["Stairs", "read_ceil", "read_floor", "read_mod"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Stairs(Quantise):
    """`step floor(z / step)`: at a jump the upper integer, where a quantiser takes the even one."""

    ahead = 0.5

    def _nearest(self, t: Tensor) -> Tensor:
        return torch.floor(t)

    def to_onnx(self, writer: OnnxWriter, inputs: tuple[str, ...], output: str) -> None:
        if (self.step == 1).all():
            writer.node("Floor", inputs, output)
            return
        step = writer.weight(output, "step", leading(self.step, len(self.in_shapes[0])))
        whole = writer.step("Floor", (writer.step("Div", (inputs[0], step), output, "in steps"),), output, "floor")
        writer.node("Mul", (whole, step), output)


def _floor(steps: Composer, x: str, step: Array, into: str | None = None) -> str:
    """`step floor(x / step)`."""
    zero = np.zeros(())
    return steps.apply(Stairs, x, into, step=step, zero=zero, low=-math.inf, high=math.inf, stored=False, room=zero)


def read_floor(node: Node) -> tuple[Operator, ...]:
    """The largest integer that is not above."""
    steps = Composer(node)
    _floor(steps, only_variable(node), np.ones(()), steps.output)
    return steps.done()


def read_ceil(node: Node) -> tuple[Operator, ...]:
    """The smallest integer that is not below."""
    steps = Composer(node)
    steps.scale(_floor(steps, steps.scale(only_variable(node), -1.0), np.ones(())), -1.0, into=steps.output)
    return steps.done()


def read_mod(node: Node) -> tuple[Operator, ...]:
    """The remainder of a division by constants, with the sign of what is divided (`fmod`), as real numbers have it in ONNX."""
    source = only_variable(node)
    if node.inputs[0] != source:
        raise node.refuse("what it divides by depends on the input; constants are read")
    if not int(node.attributes.get("fmod", 0)):
        raise node.refuse("fmod is 0, which is for whole numbers; fmod=1 is read")
    constant = node.constant(1)
    if constant is None:
        raise node.refuse("what it divides by depends on the input; constants are read")
    step = np.abs(of_sample(node, constant, len(node.shapes[source])))
    if not (np.isfinite(step).all() and (step > 0).all()):
        raise node.refuse("it divides by a number that is 0 or not finite")
    steps, shape = Composer(node), node.sample_shape(node.outputs[0])
    if steps.shapes[source] != shape:
        source = steps.scale(source, shift=np.zeros(shape))
    sides = (source, steps.scale(source, -1.0))
    ends = [_floor(steps, steps.apply(Relu, part), step) for part in sides]
    rest = steps.minus(steps.minus(source, ends[0]), steps.scale(ends[1], -1.0))
    most = float(step.max())
    steps.apply(Clip, rest, steps.output, lo=-most, hi=most)
    return steps.done()
