"""Several tensors as one: what a non-linear operator of more than one tensor reads.

A `Nonlinear` has one input, so that bounds, splits and programs know one kind. Where an ONNX node reads several tensors, their
flattened elements stand one after the other in a tensor of their own, and the operator knows where each begins.
"""

from __future__ import annotations

import math

from onnxsub.ops.base import Operator, Shape
from onnxsub.ops.combine import Concat
from onnxsub.ops.movement import Reshape

__all__ = ["joined"]


def joined(names: tuple[str, ...], shapes: tuple[Shape, ...], output: str, *, op_type: str, node: str) -> tuple[Operator, ...]:
    """Operators that write the tensors' elements, flattened, one tensor after the other, to `output`."""
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
    whole = Concat(
        op_type=op_type, node=node, inputs=tuple(sources), output=output, in_shapes=tuple((n,) for n in sizes),
        out_shape=(sum(sizes),), axis=0, slots=slots,
    )  # fmt: skip
    return (*flat, whole)
