r"""Quantisers in a network: put together with what undoes them, and given room for what float32 rounds before them.

A file stores integers between QuantizeLinear and DequantizeLinear. Where nothing else reads them, both are one operator on real
numbers. A quantiser whose input already lies on its steps is the identity, in float32 too.

**Room.** Float32 execution of what a quantiser reads is off by at most E, which near the middle of two steps is a whole step.
With u = 2^-24, an interval of every tensor on the domain, and M the size of its ends plus E,

    input              E = 0 (the file is fed float32 numbers)
    affine, n terms    E = |L| E_in + (n + 8) u (|L| M_in + |c|) / (1 - (n + 8) u)
    product, n terms   E = M_x E_y + E_x M_y + (n + 8) u M_x M_y / (1 - (n + 8) u)
    activation         E = s E_in + 64 u M, s its steepest slope there; of Sigmoid, Gelu, Elu and others made of larger numbers
                       64 u (|s(0)| + S (1 + M_in)) more, S the steepest slope of all
    Relu, a change of sign, what only moves elements      E = E_in
    log-sum-exp of n terms (a Softmax)                    E = max E_in + (n + 64) u (1 + 2 M)
    quantiser, jump    E = 2 u M, of a jump and s E_in: what it may jump is in its own relation already
    a variance that is the mean square less the squared mean, of n numbers x      (3 n + 80) u M_x^2 more
    anything else      E = the width of its interval, and infinite where |y| + E is beyond float32

    product, inverse root of a normalisation, probability of a Softmax, where functions jump      E = 0: they have room of
                       their own, by the ends of the box that is asked about (`ops/bilinear.py`, `ops/steps.py`)

plus 2^-126 for each of the n + 8 or 64 roundings: what is smaller may become 0. This holds for every order of summation, for fused
multiply-add, and for sums of integers (Higham 2002, 3.5). E / step is added to the room of the quantiser, E to that of any other
function that jumps: its bounds hold for every execution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from onnxsub.network import Network
from onnxsub.ops.average import AveragePool
from onnxsub.ops.base import Activation, Affine, Array, Operator
from onnxsub.ops.bent import Bent
from onnxsub.ops.bilinear import Bilinear
from onnxsub.ops.combine import Concat, Sum
from onnxsub.ops.conv import Conv, ConvTranspose
from onnxsub.ops.convex import Square
from onnxsub.ops.dense import Dense, LeftProduct
from onnxsub.ops.dynamic import DynamicSteps
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.jumping import Jumping
from onnxsub.ops.logsumexp import LogSumExp
from onnxsub.ops.maxpool import MaxPool
from onnxsub.ops.movement import Pad, Reshape, Selection
from onnxsub.ops.normalised import Normalised
from onnxsub.ops.partial import Partial
from onnxsub.ops.quantize import Quantise
from onnxsub.ops.reduce import Reduce
from onnxsub.ops.relu import Relu
from onnxsub.ops.smooth import Sigmoid
from onnxsub.ops.steps import Executed, InversePower, Step
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.windows import Windows
from onnxsub.runtime import squares_deviations

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from onnxsub.lazy import torch

__all__ = ["joined", "jumps", "off_by", "with_room"]

_UNIT = 2.0**-24
_LEAST = 2.0**-126  # the least normal float32: a result below it loses digits, or all of it where a runtime flushes
_LARGEST = (2 - 2.0**-23) * 2.0**127
_SQUARES = 2.0**-60  # beside less, squares that underflow are not nothing
_MORE = 8  # roundings of an affine operator beside its terms: scales that are multiplied in, a bias, a sum
_FUNCTION = 64  # units in the last place that a runtime's Sigmoid, Tanh and the like may be off by


def joined(ops: tuple[Operator, ...], output: str) -> tuple[Operator, ...]:
    """The operators, quantisers joined with what undoes them; those that change nothing are views.

    Args:
        output: of the network, which is read from outside.
    """
    readers: dict[str, list[Operator]] = {}
    for op in ops:
        for name in op.inputs:
            readers.setdefault(name, []).append(op)
    quantisers = {op.output: op for op in ops if isinstance(op, Quantise) and op.stored and math.isfinite(op.low)}
    whole = {
        name: op for name, op in quantisers.items() if name != output and all(_undoes(r, op) for r in readers.get(name, []))
    }  # fmt: skip
    found: list[Operator] = []
    grids: dict[str, Quantise] = {}  # tensors whose elements lie on the steps of a quantiser
    first: dict[str, str] = {}  # by integer tensor, what the first operator that works on integers makes of it
    for op in ops:
        before = whole.get(op.inputs[0])
        if op.output in whole:
            continue
        if before is not None and op.inputs[0] in first and op.op_type != "DequantizeLinear":
            op = _view(op, first[op.inputs[0]])
        elif before is not None:
            if op.op_type != "DequantizeLinear":  # its output is a tensor of the file, which `inplace` writes by itself
                first[op.inputs[0]] = op.output
            op = replace(before, output=op.output, out_shape=op.out_shape, stored=False)
            grid = grids.get(op.inputs[0])
            if grid is not None and _same(grid, op):
                op = _view(op, op.inputs[0])
        if isinstance(op, Quantise) and not op.stored:
            if _uniform(op):
                grids[op.output] = op
        elif op.inputs[0] in grids and (isinstance(op, MaxPool) or (isinstance(op, Selection) and not isinstance(op, Pad))):
            grids[op.output] = grids[op.inputs[0]]
        found.append(op)
    return tuple(found)


def _view(op: Operator, source: str) -> Reshape:
    """The output of an operator where it is another tensor of the same shape."""
    return Reshape(
        op_type=op.op_type, node=op.node, inputs=(source,), output=op.output, in_shapes=op.in_shapes, out_shape=op.out_shape
    )


def _undoes(op: Operator, quantiser: Quantise) -> bool:
    """Whether an operator is `step (m - zero)` of the integers of a quantiser."""
    if not isinstance(op, Scale) or op.in_shapes[0] != op.out_shape:
        return False
    scale = np.ones(()) if op.scale is None else op.scale
    shift = np.zeros(()) if op.shift is None else op.shift
    return _equal(scale, quantiser.step) and _equal(shift, -quantiser.step * quantiser.zero)


def _equal(a: Array, b: Array) -> bool:
    first, second = np.broadcast_arrays(a, b)
    return a.ndim <= max(b.ndim, 1) and bool((first == second).all())


def _same(a: Quantise, b: Quantise) -> bool:
    return _uniform(b) and (a.step, a.zero, a.low, a.high) == (b.step, b.zero, b.low, b.high)


def _uniform(op: Quantise) -> bool:
    """Whether all units have the same steps, so that their order does not matter."""
    return op.step.ndim == op.zero.ndim == 0


def jumps(network: Network) -> bool:
    """Whether rounding may lead to another step of some function."""
    return any(isinstance(_function(op), Jumping | DynamicSteps) for op in network.ops)


def with_room(network: Network, lower: Array | float, upper: Array | float) -> Network:
    """The network whose functions that jump have room for what float32 rounds before them on a domain, beside what they have.

    Args:
        lower, upper: ends of every input that will be asked about, `(*input_shape)` or one number.
    """
    if not jumps(network):
        return network
    return network.replace(_followed(network, *_ends(network, lower, upper), executed=True)[0])


def off_by(network: Network, x: Array) -> Array:
    """E of the logits at a point: what any float32 execution may be off by there; infinite where it may overflow.

    Args:
        x: `(*input_shape)`.
    """
    return np.asarray(_followed(network, *_ends(network, x, x))[1].flatten().numpy())


def _followed(network: Network, low: Tensor, high: Tensor, *, executed: bool = False) -> tuple[dict[str, Operator], Tensor]:
    """The functions that jump, with room for what float32 rounds before them on a box, and E of the output.

    Args:
        executed: whether products and steps of normalisations get such room as well, and pass nothing on that they have room for.
    """
    boxes = {network.input: (low, high)}
    errors = {network.input: torch.zeros_like(low)}
    new: dict[str, Operator] = {}
    made = {op.output: op for op in network.ops}
    with torch.no_grad():
        for op in network.ops:
            read = [errors[n] for n in op.inputs]
            ends = [(l - e, u + e) for (l, u), e in zip((boxes[n] for n in op.inputs), read, strict=True)]
            function = _function(op)
            squares, raw = _mean_of_squares(op, made, errors) if executed else None, _of_raw_moments(op)
            if squares is not None and not raw:
                op = new[op.output] = squares
            elif executed and raw and isinstance(op, InversePower | Normalised):
                op = new[op.output] = op.roomier(read[0][0].numpy()).of_raw_moments()
            elif isinstance(function, Jumping):
                wider = function.roomier(read[0][0].numpy())
                op = wider if op is function else replace(op, base=wider)  # type: ignore[call-arg]
                new[op.output] = op
            elif isinstance(op, DynamicSteps) or (executed and isinstance(op, Bilinear | Executed)):
                op = new[op.output] = op.roomier(read[0][0].numpy())
            low, high = boxes[op.output] = op.interval(*ends)
            error = _rounded(op, read, ends, boxes[op.output]).nan_to_num(nan=math.inf, posinf=math.inf)
            if raw and isinstance(op, Reduce) and (square := _squared(op, made)) is not None:
                name = made[square.inputs[0]].inputs[0]  # x, of the deviations x - mean
                most = torch.maximum(*(t.abs() for t in boxes[name])) + errors[name]
                error = error + (3 * _terms(op) + 80) * _UNIT * most.max().square()
            errors[op.output] = error.masked_fill(~(torch.maximum(-low, high) + error <= _LARGEST), math.inf)
    return new, errors[network.output]


def _squared(op: Operator | None, made: Mapping[str, Operator]) -> Square | None:
    """What writes the squares that an operator is the mean of."""
    square = made.get(op.inputs[0]) if isinstance(op, Reduce) and op.factor == 1.0 / _terms(op) else None
    return square if isinstance(square, Square) else None


def _mean_of_squares(op: Operator, made: Mapping[str, Operator], errors: Mapping[str, Tensor]) -> InversePower | None:
    """The inverse power of a mean of squares, with room for its executions."""
    mean = made.get(op.inputs[0])
    square = _squared(mean, made)
    if not isinstance(op, InversePower) or not isinstance(mean, Reduce) or square is None or op.shift <= _SQUARES:
        return None
    error = errors[square.inputs[0]] if bool(torch.isfinite(errors[mean.output]).all()) else errors[mean.output]
    return op.of_squares(error[0].numpy(), _terms(mean))


def _of_raw_moments(op: Operator) -> bool:
    """Whether onnxruntime takes the variance of its node as the mean square less the squared mean, however small that is."""
    others = ("LayerNormalization", "InstanceNormalization")  # before 1.28
    return op.op_type == "GroupNormalization" or (op.op_type in others and not squares_deviations())


def _function(op: Operator) -> Operator:
    return op.base if isinstance(op, Substituted) else op


def _ends(network: Network, lower: Array | float, upper: Array | float) -> tuple[Tensor, Tensor]:
    shape = network.input_shape
    low, high = (torch.as_tensor(np.broadcast_to(np.asarray(e, dtype=np.float64), shape).copy())[None] for e in (lower, upper))
    return low, high


def _rounded(op: Operator, errors: list[Tensor], ends: list[tuple[Tensor, Tensor]], box: tuple[Tensor, Tensor]) -> Tensor:
    """E of what an operator writes."""
    low, high = box
    size = torch.maximum(low.abs(), high.abs())
    if isinstance(op, Affine):
        sizes = [torch.maximum(l.abs(), u.abs()) for l, u in ends]
        if isinstance(op, Selection) or _only_signs(op):
            return op.magnitude(*errors)
        count = _terms(op) + _MORE
        n = count * _UNIT
        terms = op.magnitude(*sizes)
        c = op.offset(terms)
        terms = terms if c is None else terms + c.abs()
        return op.magnitude(*errors) + n / (1 - n) * terms + count * _LEAST
    if isinstance(op, Windows):
        return op.forward(*errors)
    if isinstance(op, Relu):
        return errors[0]
    if (isinstance(op, Bilinear) and op.rooms) or (isinstance(op, Executed) and op.room is not None):
        return torch.full_like(size, (_FUNCTION + getattr(op, "terms", 0)) * _LEAST)  # the rest is in its own relation already
    if isinstance(op, Bilinear):
        return _of_product(op, errors[0], torch.maximum(*(t.abs() for t in ends[0])))
    if isinstance(op, Jumping):
        return op.passed_on(errors[0], size)
    if isinstance(op, DynamicSteps):
        return 2 * _UNIT * size
    if isinstance(op, LogSumExp):  # it rises by no more than the element that rises most
        most = errors[0].amax([a + 1 for a in op.axes], keepdim=True)
        return most + (_FUNCTION + op.count) * (_UNIT * (1 + 2 * size) + _LEAST)
    if isinstance(op, Activation) and "slopes" not in _function(op).unsupported:
        least, most = op.slopes(*ends[0])
        steepest = torch.maximum(least.abs(), most.abs())
        if isinstance(function := _function(op), Activation) and _cancels(function):
            everywhere, origin = torch.full_like(size, math.inf), function.forward(torch.zeros_like(size)).abs()
            slope = torch.maximum(*(t.abs() for t in function.slopes(-everywhere, everywhere)))
            size = size + origin + slope * (1 + torch.maximum(*(t.abs() for t in ends[0])))
        return torch.where(errors[0] > 0, steepest * errors[0], errors[0]) + _FUNCTION * (_UNIT * size + _LEAST)
    return high - low + _FUNCTION * (_UNIT * size + _LEAST)


def _cancels(op: Operator) -> bool:
    """Whether a value may be far smaller than what it is computed of: `exp(x) - 1`, `x (1 + erf(x))`, `log(1 + exp(x))`."""
    return isinstance(op, Sigmoid) or (isinstance(op, Bent) and not isinstance(op, Step | Partial))


def _only_signs(op: Affine) -> bool:
    """Whether it writes what it reads or the negative of that, which rounds nothing."""
    return isinstance(op, Scale) and op.shift is None and op.scale is not None and bool((np.abs(op.scale) == 1).all())


def _of_product(op: Bilinear, error: Tensor, size: Tensor) -> Tensor:
    (ex, ey), (mx, my) = op.split(error), op.split(size)
    count = op.terms + _MORE
    n = count * _UNIT
    # sizes include the errors, so E_x E_y is counted
    return (op.product(mx, ey) + op.product(ex, my) + n / (1 - n) * op.product(mx, my) + count * _LEAST).reshape(-1, *op.out_shape)


def _terms(op: Affine) -> int:
    """The largest number of terms of a sum."""
    if isinstance(op, Conv):
        return math.prod(op.weight.shape[1:])
    if isinstance(op, ConvTranspose):
        return int(np.prod(op.weight.shape[2:]) * op.weight.shape[0]) // op.groups
    if isinstance(op, Dense | LeftProduct):
        return int(op.weight.shape[-1])
    if isinstance(op, AveragePool):
        return math.prod(op.sliding.kernel)
    if isinstance(op, Reduce):
        return math.prod(op.in_shapes[0]) // max(1, math.prod(op.out_shape))
    if isinstance(op, Sum | Concat):
        return len(op.inputs)
    return 2 if not op.mixing else sum(math.prod(s) for s in op.in_shapes)
