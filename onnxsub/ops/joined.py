"""Several tensors as one: what a non-linear operator of more than one tensor reads.

A `Nonlinear` has one input, so that bounds, splits and programs know one kind. Where an ONNX node reads several tensors, their
flattened elements stand one after the other in a tensor of their own, and the operator knows where each begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.combine import Concat
from onnxsub.ops.movement import Reshape

if TYPE_CHECKING:
    from onnxsub.ops.onnx_writer import OnnxWriter

__all__ = ["joined", "taken_apart"]


def joined(
    names: tuple[str, ...], shapes: tuple[Shape, ...], output: str, *, op_type: str, node: str, behind: Array | None = None
) -> tuple[Operator, ...]:
    """Operators that write the tensors' elements, flattened, one tensor after the other, to `output`.

    Args:
        names, shapes: of the tensors, per sample.
        op_type, node: of the node that reads them, for messages.
        behind: numbers `(n,)` that stand behind them all.
    """
    flat: list[Operator] = []
    sizes = [math.prod(s) for s in shapes]
    sources = []
    for i, (name, shape, size) in enumerate(zip(names, shapes, sizes, strict=True)):
        source = name
        if shape != (size,):
            source = f"{output}:{i}"
            flat.append(
                Reshape(op_type=op_type, node=node, inputs=(name,), output=source, in_shapes=(shape,), out_shape=(size,))
            )
        sources.append(source)
    slots = tuple(sum(sizes[:i]) for i in range(len(sizes)))
    constant = None if behind is None else np.concatenate([np.zeros(sum(sizes)), behind])
    whole = Concat(
        op_type=op_type, node=node, inputs=tuple(sources), output=output, in_shapes=tuple((n,) for n in sizes),
        out_shape=(sum(sizes) if constant is None else len(constant),), axis=0, slots=slots, constant=constant,
    )  # fmt: skip
    return (*flat, whole)


def taken_apart(writer: OnnxWriter, source: str, output: str, parts: Sequence[tuple[str, int, Shape]]) -> list[str]:
    """Writes nodes that cut tensors out of a joined one, and hands back their names.

    Args:
        parts: what each is called, where it begins in the sample, and its per-sample shape.
    """
    found = []
    for name, start, shape in parts:
        ends = (("start", start), ("end", start + math.prod(shape)), ("axis", 1))
        numbers = [writer.integers(output, f"{name} {what}", np.array([n])) for what, n in ends]
        flat = writer.step("Slice", (source, *numbers), output, f"{name} flat")
        found.append(writer.fresh(f"{output}/{name}"))
        writer.reshape(flat, found[-1], shape)
    return found
