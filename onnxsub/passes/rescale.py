r"""Hidden layers brought to one scale by powers of two: the same function, the same units, numbers of ordinary size.

A Relu commutes with positive factors, `relu(2^e z) = 2^e relu(z)`, so a layer may be multiplied by `2^-e` and the next one by
`2^e`. Here e is chosen such that the largest `|z|` of the layer at a given point lies in [1/2, 1). Multiplying by powers of two
rounds nothing, so networks that differ by such factors only become one and the same network, number by number (as long as nothing
leaves the range of float64). Whatever compares with an absolute number behind this pass (rows and tolerances of solvers,
gradient steps, float32 arithmetic) sees one scale.

Tensors carry an exponent: `value = 2^e * stored`. Linear operators pass it on, positively homogeneous ones too, operators with
constants take it into these; before any other operator, and at the output, it is multiplied back.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from onnxsub.network import Network
from onnxsub.ops.base import Affine, Array, Operator
from onnxsub.ops.conv import Conv, ConvTranspose
from onnxsub.ops.dense import Dense
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.relu import Relu
from onnxsub.ops.substituted import Substituted

__all__ = ["exponent_of", "rescaled"]

_HOMOGENEOUS = (Relu, Leaky, MaxPool)
"""`s(c z) = c s(z)` for c > 0; what is not listed gets its input multiplied back, which is right for every operator."""

_PARAMETRIC = (Dense, Conv, ConvTranspose, Scale)


def exponent_of(size: float) -> int:
    """e with `size / 2^e` in [1/2, 1); 0 where `size` is 0 or no number."""
    return math.frexp(size)[1] if math.isfinite(size) and size > 0 else 0


def rescaled(network: Network, x: Array, output: int | Array = 0) -> Network:
    """The network with its layers scaled by powers of two, its output by `2^-output`.

    Args:
        x: the point at which layers are measured, `(*input_shape)`.
        output: exponents that the outputs are divided by: one, or one for each, in the shape of the output.
    """
    with torch.no_grad():
        values = network.values(torch.as_tensor(np.array(x, dtype=np.float64)).unsqueeze(0))
    sizes = {name: float(v.abs().max()) if v.numel() else 0.0 for name, v in values.items()}
    exponents = {network.input: 0}
    whole: dict[str, str] = {}  # where a tensor stands multiplied back
    ops: list[Operator] = []
    for op in network.ops:
        ins = [exponents[n] for n in op.inputs]
        if len(ins) == 1 and isinstance(op, _PARAMETRIC) and op.output != network.output:
            out = exponent_of(sizes[op.output])
            ops.append(_scaled(op, ins[0], out))
        elif len(set(ins)) == 1 and _passes_on(op):
            out = ins[0]
            ops.append(op)
        else:
            out = 0
            for name in dict.fromkeys(op.inputs):
                if exponents[name] and name not in whole:
                    ops.append(_multiply(name, exponents[name], network))
                    whole[name] = ops[-1].output
            ops.append(_moved(op, whole))
        exponents[op.output] = out
    last = exponents[network.output] - np.asarray(output)
    found = Network(network.input, network.input_shape, network.output, tuple(ops))
    if not np.any(last):
        return found
    shape = network.output_shape
    factor = np.broadcast_to(np.exp2(last.astype(np.float64)), shape)
    final = Scale(
        op_type="Rescale", node="logits / 2^e", inputs=(network.output,), output=f"{network.output}:rescaled",
        in_shapes=(shape,), out_shape=shape, scale=np.array(factor),
    )  # fmt: skip
    return found.then((final,))


def _passes_on(op: Operator) -> bool:
    """Whether the operator commutes with positive factors."""
    linear = isinstance(op, Affine) and op.offset(torch.zeros((), dtype=torch.float64)) is None
    return linear or isinstance(op, _HOMOGENEOUS)


def _scaled(op: Operator, before: int, after: int) -> Operator:
    """The operator for an input that stands divided by `2^before` and an output that is to stand divided by `2^after`."""
    factor, back = 2.0 ** (before - after), 2.0**-after
    if isinstance(op, Scale):
        scale = np.asarray(1.0 if op.scale is None else op.scale, dtype=np.float64) * factor
        return replace(op, scale=scale, shift=None if op.shift is None else np.asarray(op.shift, dtype=np.float64) * back)
    assert isinstance(op, Dense | Conv | ConvTranspose)
    bias = None if op.bias is None else np.asarray(op.bias, dtype=np.float64) * back
    return replace(op, weight=np.asarray(op.weight, dtype=np.float64) * factor, bias=bias)


def _moved(op: Operator, whole: dict[str, str]) -> Operator:
    inputs = tuple(whole.get(n, n) for n in op.inputs)
    if inputs == op.inputs:
        return op
    if isinstance(op, Substituted):
        return replace(op, inputs=inputs, base=replace(op.base, inputs=inputs))
    return replace(op, inputs=inputs)


def _multiply(name: str, exponent: int, network: Network) -> Scale:
    shape = network.shapes[name]
    return Scale(
        op_type="Rescale", node="2^e x", inputs=(name,), output=f"{name}:whole", in_shapes=(shape,), out_shape=shape,
        scale=np.array(2.0**exponent),
    )  # fmt: skip
