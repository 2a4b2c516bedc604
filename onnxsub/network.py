"""The immutable `Network`: operators in topological order, over per-sample shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from onnxsub.ops.base import Activation, Nonlinear, Operator, Shape
from onnxsub.ops.conv import Conv, ConvTranspose
from onnxsub.ops.dense import Dense
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows

if TYPE_CHECKING:
    from torch import Tensor

    from onnxsub.budget import Budget

__all__ = ["Network"]


@dataclass(frozen=True, eq=False)
class Network:
    """A directed acyclic graph of operators with one input and one output.

    Attributes:
        input, output: tensor names.
        input_shape: per-sample shape (no batch axis).
        ops: in topological order; every operator reads the input or the output of an earlier one, and every tensor name is
            written once.
    """

    input: str
    input_shape: Shape
    output: str
    ops: tuple[Operator, ...]

    def __post_init__(self) -> None:
        shapes = {self.input: self.input_shape}
        for op in self.ops:
            for name, shape in zip(op.inputs, op.in_shapes, strict=True):
                if shapes.get(name) != shape:
                    raise ValueError(f"{op.op_type} {op.node!r} reads {name!r} as {shape}, which is {shapes.get(name)}")
            if op.output in shapes:
                raise ValueError(f"tensor {op.output!r} is written twice")
            shapes[op.output] = op.out_shape
        if self.output not in shapes:
            raise ValueError(f"output {self.output!r} is written by no operator")

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Per-sample shape of every tensor."""
        return {self.input: self.input_shape} | {op.output: op.out_shape for op in self.ops}

    @property
    def output_shape(self) -> Shape:
        return self.shapes[self.output]

    @property
    def input_size(self) -> int:
        return math.prod(self.input_shape)

    @property
    def classes(self) -> int:
        return math.prod(self.output_shape)

    @cached_property
    def producers(self) -> Mapping[str, Operator]:
        """The operator that writes each tensor (the input has none)."""
        return {op.output: op for op in self.ops}

    @cached_property
    def activations(self) -> tuple[Activation, ...]:
        """The elementwise functions, in topological order. Unit i of activation a is `(a, i)`, i in the flattened tensor."""
        return tuple(op for op in self.ops if isinstance(op, Activation))

    @cached_property
    def nonlinear(self) -> tuple[Nonlinear, ...]:
        """Every operator whose linear bounds need an interval of its input: the activations and windows."""
        return tuple(op for op in self.ops if isinstance(op, Nonlinear))

    @cached_property
    def windowed(self) -> tuple[Windows | SubstitutedMax, ...]:
        """The operators that have windows (MaxPool, ReduceMax, ...), in topological order."""
        return tuple(op for op in self.ops if isinstance(op, Windows | SubstitutedMax))

    @cached_property
    def prunable(self) -> tuple[Activation | Windows | SubstitutedMax, ...]:
        """The operators whose outputs a substitute may replace by lines: activations and windows, in topological order.

        The steps that one ONNX node is read as (`Activation.inner`) are none.
        """
        kinds = Activation | Windows | SubstitutedMax
        return tuple(op for op in self.ops if isinstance(op, kinds) and not (isinstance(op, Activation) and op.inner))

    @property
    def units(self) -> int:
        """Units of activations."""
        return sum(a.out_size for a in self.activations if not a.inner)

    @property
    def windows(self) -> int:
        return sum(op.out_size for op in self.windowed)

    @property
    def units_and_windows(self) -> int:
        """All that gamma counts."""
        return self.units + self.windows

    def ancestors(self, tensor: str) -> tuple[Operator, ...]:
        """The operators that `tensor` depends on, the one that writes it included, in topological order."""
        needed = {tensor}
        found = []
        for op in reversed(self.ops):
            if op.output in needed:
                needed.update(op.inputs)
                found.append(op)
        return tuple(reversed(found))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(N, classes)` of `x` `(N, *input_shape)`."""
        return self.values(x, (self.output,))[self.output].flatten(1)

    @cached_property
    def multiplications(self) -> int:
        """Of one point's forward pass, without those of elementwise operators: how long a pass takes, to a factor of a few."""
        return sum(_multiplications(op) for op in self.ops)

    def values(
        self, x: Tensor, names: tuple[str, ...] | None = None, *, budget: Budget | None = None
    ) -> dict[str, Tensor]:
        """The value of every tensor, or of `names` only (others are dropped as soon as they are read for the last time).

        Raises:
            OutOfTime: the budget ended, which is looked at before every operator.
        """
        last: dict[str, int] = {}
        for i, op in enumerate(self.ops):
            for name in op.inputs:
                last[name] = i
        values = {self.input: x}
        for i, op in enumerate(self.ops):
            if budget is not None:
                budget.check()
            values[op.output] = op.forward(*[values[n] for n in op.inputs])
            if names is not None:
                for n in set(op.inputs):
                    if last[n] == i and n not in names:
                        del values[n]
        return values if names is None else {n: values[n] for n in names}

    def preactivations(self, x: Tensor, *, budget: Budget | None = None) -> list[Tensor]:
        """`z^l(x)` for every activation l: a list of `(N, *in_shape)`. Raises OutOfTime like `values`."""
        names = tuple(a.inputs[0] for a in self.activations)
        values = self.values(x, names, budget=budget)
        return [values[n] for n in names]

    def replace(self, new: Mapping[str, Operator]) -> Network:
        """The network in which the operator that writes tensor `name` is `new[name]`, for every name given."""
        unknown = set(new) - set(self.producers)
        if unknown:
            raise ValueError(f"no operator writes {sorted(unknown)}")
        return Network(self.input, self.input_shape, self.output, tuple(new.get(op.output, op) for op in self.ops))

    def without_dead(self) -> Network:
        """The network without operators that the output does not depend on."""
        return Network(self.input, self.input_shape, self.output, self.ancestors(self.output))

    def before(self, first: tuple[Operator, ...], input_name: str, input_shape: Shape) -> Network:
        """The network with operators put in front, which lead from a new input to the old one (normalisation)."""
        return Network(input_name, input_shape, self.output, (*first, *self.ops))

    def then(self, last: tuple[Operator, ...]) -> Network:
        """The network with operators added behind; the last one writes the new output."""
        return Network(self.input, self.input_shape, last[-1].output, (*self.ops, *last)) if last else self


def _multiplications(op: Operator) -> int:
    if isinstance(op, Conv):
        return int(math.prod(op.out_shape) * math.prod(op.weight.shape[1:]))
    if isinstance(op, ConvTranspose):
        return int(math.prod(op.in_shapes[0]) * math.prod(op.weight.shape[1:]))
    if isinstance(op, Dense):
        return int(op.weight.size) * max(1, math.prod(op.out_shape) // len(op.weight))
    return 0
