r"""Every non-linear operator as Relus and affine operators: the same function, exactly.

| operator | with `r(z) = max(0, z)` |
|---|---|
| LeakyRelu, PRelu, Abs (slope n below 0) | `n z + (1 - n) r(z)` |
| Clip to [lo, hi] | `lo + r(z - lo) - r(z - hi)`, one term where the other end is infinite: `lo + r(z - lo)`, `hi - r(hi - z)` |
| MaxPool, ReduceMax, Max (`unpool.py`) | `max(a, b) = b + r(a - b)`, as a tree over the elements of each window |

Units that a substitute has replaced by lines stay lines.
"""

from __future__ import annotations

import math

import numpy as np

from onnxsub.errors import UnsupportedOperatorError
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array, Nonlinear, Operator
from onnxsub.ops.clip import Clip
from onnxsub.ops.combine import Sum
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.leaky import Leaky
from onnxsub.ops.relu import Relu
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.passes.pieces import Pieces
from onnxsub.passes.substitute import original_activation
from onnxsub.passes.unpool import unpooled

__all__ = ["check_relu_forms", "with_relus_only"]


def check_relu_forms(network: Network) -> None:
    """Raises UnsupportedOperatorError where `with_relus_only` would."""
    for op in network.nonlinear:
        _check(op)


def with_relus_only(network: Network) -> Network:
    """The network whose only non-linear operators are Relus, some units of which may be lines.

    Raises:
        UnsupportedOperatorError: a kept unit is smooth (Sigmoid, Tanh).
    """
    names = {network.input} | {op.output for op in network.ops}
    ops: list[Operator] = []
    for op in network.ops:
        ops += _rewritten(op, names) if isinstance(op, Nonlinear) else [op]
    return Network(network.input, network.input_shape, network.output, tuple(ops))


def _rewritten(op: Nonlinear, names: set[str]) -> list[Operator]:
    _check(op)
    if isinstance(op, Windows | SubstitutedMax):
        return unpooled(op, names)
    assert isinstance(op, Activation)  # checked
    base, kept = original_activation(op), _kept(op)
    pieces = _Pieces(op, names)
    if not kept.any():
        return pieces.lines(op)
    match base:
        case Relu():
            return [op]
        case Leaky():
            return pieces.leaky(op, base, kept)
        case Clip():
            return pieces.clipped(op, base, kept)
        case _:
            raise AssertionError(f"{op.op_type} has passed the check")


def _check(op: Nonlinear) -> None:
    """Raises UnsupportedOperatorError where an operator has no form with Relus."""
    if isinstance(op, Windows | SubstitutedMax):
        return
    if not isinstance(op, Activation) or (op.inner and not original_activation(op).piecewise_linear):
        raise UnsupportedOperatorError(
            f"{op.op_type} (node {op.node!r}) has no form with Relus only; use --layout compact or --layout inplace"
        )
    kept = _kept(op)
    if kept.any() and not isinstance(original_activation(op), Relu | Leaky | Clip):
        raise UnsupportedOperatorError(
            f"{op.op_type} (node {op.node!r}) keeps {int(kept.sum())} units, which no Relu can stand for; "
            "use --layout compact, or prune all of them (--gamma 1)"
        )


def _kept(op: Activation) -> Array:
    return op.kept if isinstance(op, Substituted) else np.ones(op.out_shape, dtype=np.bool_)


class _Pieces(Pieces):
    """The pieces of one activation."""

    def lines(self, op: Activation) -> list[Operator]:
        """All units are lines."""
        assert isinstance(op, Substituted)  # only a substitute has units that are not kept
        self._scale(op.inputs[0], op.slope, op.offset, op.output)
        return self.ops

    def leaky(self, op: Activation, base: Leaky, kept: Array) -> list[Operator]:
        n = np.broadcast_to(base.slope, op.out_shape).astype(np.float64)
        bent = self.relu(op.inputs[0], kept & (n != 1))
        self._sum(self._line(op, np.where(kept, n, 0.0), 0.0), self._scale(bent, np.where(kept, 1 - n, 0.0)), output=op.output)
        return self.ops

    def clipped(self, op: Activation, base: Clip, kept: Array) -> list[Operator]:
        z, lo, hi = op.inputs[0], float(base.lo), float(base.hi)
        switch = kept.astype(np.float64)
        total = self._line(op, np.zeros(op.out_shape), lo if math.isfinite(lo) else hi)
        terms = []
        if math.isfinite(lo):
            terms.append((self._scale(z, None, np.array(-lo)), switch))
            if math.isfinite(hi):
                terms.append((self._scale(z, None, np.array(-hi)), -switch))
        else:
            terms.append((self._scale(z, np.array(-1.0), np.array(hi)), -switch))
        for i, (source, sign) in enumerate(terms):
            bent = self._scale(self.relu(source, kept), sign)
            total = self._sum(total, bent, output=op.output if i == len(terms) - 1 else None)
        return self.ops

    def _line(self, op: Activation, slope: Array, offset: float) -> str:
        """`slope z + offset` for kept units, their own lines for the others."""
        shift = np.full(op.out_shape, offset)
        if isinstance(op, Substituted):
            slope, shift = np.where(op.kept, slope, op.slope), np.where(op.kept, shift, op.offset)
        return self._scale(op.inputs[0], slope, shift)

    def _scale(self, source: str, scale: Array | None, shift: Array | None = None, output: str | None = None) -> str:
        return self.add(Scale, (source,), output, self.shape(source), op_type="Mul", scale=scale, shift=shift)

    def _sum(self, *sources: str, signs: tuple[int, ...] | None = None, output: str | None = None) -> str:
        return self.add(Sum, sources, output, self.shape(sources[0]), op_type="Add", signs=signs or (1,) * len(sources))
