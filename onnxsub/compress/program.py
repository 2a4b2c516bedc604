r"""The program of the importance scores (ElAraby, Wolf and Carvalho 2020).

One score s in [0, 1] per unit (per channel for convolutions), shared by all images. Per image and unit with `l <= z <= u` in the
network as it is, on a tiny interval round the image, `U = max(0, u)` and v binary:

    h >= 0,   h <= v U,   h >= z - (1 - s) U,   h <= z - (1 - v) l - (1 - s) U

    min  lambda mean_k [log sum_c exp f_c(x_k) - f_y(x_k)] + (sum of the (L - 1) largest I_l) / units,    I_l = sum_j (s_lj - 2)

The image itself is a point, so a first layer is `h = s max(0, z)` without a binary. The interval decides how far the scores of one
layer may move what the next one reads: l and u that hold for all scores leave so much room that most scores are 0 and most of the
accuracy goes with them. Of one hidden layer, that one counts (L - 1 would be none). The first term is convex;
`onnxsub.compress.solve` adds its tangents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from onnxsub.errors import InputError, UnsupportedOperatorError
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Affine, Array, Nonlinear, Operator
from onnxsub.ops.encoding import LinExpr
from onnxsub.ops.relu import Relu
from onnxsub.verifiers.programs.encode import MilpModel

__all__ = ["ScoreProgram", "Size", "build_program", "layers_of", "size_of"]


@dataclass(frozen=True)
class Size:
    """How large a program will be: `binaries`, and `coefficients` of rows between layers, before anything is built."""

    binaries: int
    coefficients: int


@dataclass(frozen=True, eq=False)
class ScoreProgram:
    """All rows but the tangents.

    Attributes:
        scores: columns of the scores, per layer (by the tensor that its Relu writes).
        logits: per image, one row per class, as variables of the program.
        loss: per image, a column t with `t >= log sum_c exp f_c - f_y` once all tangents are there.
        sparsity: the second term. weight: lambda divided by the number of images.
    """

    model: MilpModel
    scores: Mapping[str, LinExpr]
    logits: tuple[LinExpr, ...]
    labels: Array
    loss: LinExpr
    sparsity: LinExpr
    weight: float

    @property
    def objective(self) -> LinExpr:
        """`weight * sum of the losses + sparsity`, one row."""
        ones = sp.csr_array(np.full((1, len(self.loss)), self.weight))
        return self.loss.apply(ones) + self.sparsity


def layers_of(network: Network) -> dict[str, int]:
    """Channels of an activation of `(C, ...)`, units of one of `(n,)`, by the tensor that it writes.

    Raises:
        InputError: there is none.
    """
    layers = {op.output: op.out_shape[0] for op in network.activations if not op.inner and op.out_shape}
    if not layers:
        raise InputError("the network has no activation, so it has no units; give a network with hidden layers")
    return layers


def _scored_layers(network: Network) -> dict[str, int]:
    """Scores per layer. Raises UnsupportedOperatorError: another activation than Relu. InputError: none at all."""
    for op in network.nonlinear:
        if isinstance(op, Activation) and not isinstance(op, Relu):
            raise UnsupportedOperatorError(
                f"{op.op_type} (node {op.node!r}): importance scores are defined for Relu; remove units without scores "
                "(onnxsub compress --by magnitude --share S)"
            )
    return layers_of(network)


def size_of(network: Network, images: int) -> Size:
    """An estimate that is no smaller than the program, but for its score and loss rows."""
    first = _first(network)
    units = sum(op.out_size for op in network.activations if op.output not in first)
    windows = sum(op.out_size for op in network.windowed)
    behind = 0
    seen = False
    for op in network.ops:
        seen = seen or isinstance(op, Nonlinear)
        if seen and isinstance(op, Affine):
            behind += _multiplications(op)
    return Size(images * (units + 4 * windows), images * (behind + 12 * units))


def _multiplications(op: Affine) -> int:
    weight = getattr(op, "weight", None)
    if weight is None:
        return op.out_size
    per = int(np.prod(np.shape(weight)[1:]))
    return op.out_size * per


def _first(network: Network) -> set[str]:
    """Relus that depend on the input by affine operators alone."""
    return {
        op.output for op in network.activations
        if not any(isinstance(before, Nonlinear) for before in network.ancestors(op.inputs[0]))
    }  # fmt: skip


class _Image:
    """An `Encoder` for one image: the rows go into the shared program, the intervals are its own."""

    def __init__(self, model: MilpModel, intervals: Mapping[str, tuple[Array, Array]]) -> None:
        self._model, self._intervals = model, intervals

    def bounds(self, output: str) -> tuple[Array, Array]:
        return self._intervals[output]

    def continuous(self, lower: Array, upper: Array) -> LinExpr:
        return self._model.continuous(lower, upper)

    def binary(self, count: int) -> LinExpr:
        return self._model.binary(count)

    def variables(self, expression: LinExpr, lower: Array, upper: Array) -> LinExpr:
        return self._model.variables(expression, lower, upper)

    def rows(self, expression: LinExpr, lower: Array | float, upper: Array | float) -> None:
        self._model.rows(expression, lower, upper)


def build_program(network: Network, x: Array, labels: Array, weight: float, radius: float = 0.0) -> ScoreProgram:
    """The program of the images `x` `(B, *input_shape)`, as the network is fed, with their classes.

    Args:
        weight: lambda. radius: of the interval that l and u are taken on.

    Raises:
        UnsupportedOperatorError: an operator without MILP rows, or another activation than Relu.
    """
    model = MilpModel({})
    scores = {name: model.continuous(np.zeros(n), np.ones(n)) for name, n in _scored_layers(network).items()}
    logits = []
    for image in x:
        intervals, ends = _intervals(network, image, radius)
        values = {network.input: LinExpr.constants(np.asarray(image, dtype=np.float64).reshape(-1))}
        near = _intervals(network, image, radius, scored=False)[0]
        encoder = _Image(model, intervals)
        for op in network.ops:
            if "milp" in op.unsupported:
                raise op.missing("milp")
            if isinstance(op, Relu):
                ends_of = intervals[op.output], near[op.output]
                values[op.output] = _scored(model, op, values[op.inputs[0]], scores[op.output], *ends_of)
            else:
                values[op.output] = op.encode(encoder, *[values[n] for n in op.inputs])
        logits.append(model.variables(values[network.output], *ends))
    loss = model.continuous(np.zeros(len(x)), np.full(len(x), 1e6))
    return ScoreProgram(model, scores, tuple(logits), labels, loss, _sparsity(model, scores), weight / len(x))


def _scored(
    model: MilpModel, op: Relu, z: LinExpr, score: LinExpr, ends: tuple[Array, Array], near: tuple[Array, Array]
) -> LinExpr:
    """h of one layer of one image; `ends` hold z for all scores, `near` are the l and u of the rows."""
    lower, upper = near
    per = op.out_size // op.out_shape[0]
    of_unit = score.take(np.repeat(np.arange(op.out_shape[0]), per))
    if z.matrix.nnz == 0:  # z is a number, of the first layer
        return of_unit.scale(np.maximum(z.constant, 0.0))
    u = np.maximum(upper, 0.0)
    zu = model.variables(z, *ends)
    su = of_unit.scale(u)
    h = model.continuous(np.zeros(len(u)), u)
    v = model.binary(len(u))
    model.rows(h - v.scale(u), -np.inf, 0.0)
    model.rows(h - zu - su, -u, np.inf)
    model.rows(h - zu - su - v.scale(lower), -np.inf, -lower - u)
    return h


def _sparsity(model: MilpModel, scores: Mapping[str, LinExpr]) -> LinExpr:
    """The sum of the (L - 1) largest `I_l`, by `sum of the k largest = min k q + sum_l p_l, p_l >= I_l - q, p_l >= 0`."""
    units = sum(len(s) for s in scores.values())
    sums = [s.apply(sp.csr_array(np.ones((1, len(s))))).shift(np.array([-2.0 * len(s)])) for s in scores.values()]
    each = LinExpr.stack(sums)
    k = max(len(sums) - 1, 1)
    if k < len(sums):
        far = 2.0 * units
        q = model.continuous(np.array([-far]), np.array([far]))
        p = model.continuous(np.zeros(len(sums)), np.full(len(sums), 2 * far))
        model.rows(p - each + q.take(np.zeros(len(sums), dtype=np.int64)), 0.0, np.inf)
        total = q.scale(np.array([float(k)])) + p.apply(sp.csr_array(np.ones((1, len(sums)))))
    else:
        total = each.apply(sp.csr_array(np.ones((1, len(sums)))))
    return total.scale(np.array([1.0 / units]))


def _intervals(
    network: Network, image: Array, radius: float, *, scored: bool = True
) -> tuple[dict[str, tuple[Array, Array]], tuple[Array, Array]]:
    """Input interval of every non-linear operator on the interval round `image`, flat, and that of the logits.

    With `scored` they hold for all scores at once: a Relu whose score is not 1 writes something between 0 and its value. The ends
    are moved outward by a hair for rounding.
    """
    x = torch.from_numpy(np.asarray(image, dtype=np.float64).copy())[None]
    boxes = {network.input: (x - radius, x + radius)}
    found: dict[str, tuple[Array, Array]] = {}
    for op in network.ops:
        if isinstance(op, Nonlinear):
            found[op.output] = _flat(boxes[op.inputs[0]])
        boxes[op.output] = _through(op, [boxes[n] for n in op.inputs], scored)
    return found, _flat(boxes[network.output])


def _through(op: Operator, boxes: list[tuple[torch.Tensor, torch.Tensor]], scored: bool) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = op.interval(*boxes)
    if scored and isinstance(op, Relu):
        low = torch.zeros_like(low)
    return low, high


def _flat(box: tuple[torch.Tensor, torch.Tensor]) -> tuple[Array, Array]:
    low, high = (end.reshape(-1).numpy() for end in box)
    room = 1e-9 * (1.0 + np.maximum(np.abs(low), np.abs(high)))
    return low - room, high + room
