r"""Estimated intervals of all pre-activations: a ranking for networks on which bounds of every unit cost too much. No proof.

On a box with half-widths r, a linear function J x has the half-widths `|J_i| r`. For a direction `v = r c` with independent
standard Cauchy entries c, `J_i v` is Cauchy with the scale `|J_i| r`. So K such directions, pushed forward through the network
once, give the widths of all units at the same time, with an error of about `1.6 / sqrt(K)` of each.

Operators are taken in order. The units of an activation are estimated from the directions that reach it, and replaced by their
relaxation on these estimates: directions are multiplied by its slope (`u / (u - l)` for an unstable Relu), and the height of the
band between its two lines enters as one more independent Cauchy source. The sum of all sources is what `fastlin` adds up row by
row, so the estimate is of its intervals. It is cut to plain intervals, taken on the estimates of the layers before, as in
`fastlin-ibp`.

The scale of n Cauchy numbers is estimated by `exp(mean log |v|)`: `E log |c| = 0`, with the median's error to the first order and
without its sort. Pooling passes on the direction of the element with the largest upper end. Cost: K + 3 forward passes in float32;
memory: the tensors that are alive at a time, K times.

Whoever prunes in rounds hands over what stood before the first unit that was kept (`Start`): layers of lines alone are not pushed
through again.

Source: stable projections of L1 norms, Indyk 2006; the geometric mean: Li, Hastie, Church 2007; the relaxation: Weng et al. 2018.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Affine, Array, Box, Nonlinear, Operator
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.passes.rough import curved, rough_chord, rough_error
from onnxsub.propagate.backward import flattened, terms

__all__ = ["DIRECTIONS", "MEMORY", "Estimate", "Start", "estimate_widths", "most_directions"]

DIRECTIONS = 128
"""How many directions there are where nobody says otherwise: an error of 14 % per width."""

MEMORY = 4 * 2**30
"""Bytes that the directions of all tensors that are alive at a time may take together."""

_FEWEST = 16
_PIECE = 2**24  # values of the directions that one call of an operator reads and writes: 64 MB beside what is stored
_WORK = 4e9  # multiplications of one call: a tenth of a second of one core, so that the clock is seen


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated intervals over one box. They prove nothing, and are no `Bounds`: only a ranking may read them.

    Attributes:
        pre: of the input of every non-linear operator, by the name of the tensor it writes: `(1, *in_shape)` each, float32.
        directions: how many there were.
        start: where the next round of the same directions may begin.
    """

    pre: Mapping[str, Box]
    directions: int
    start: Start


@dataclass(frozen=True, eq=False)
class _Flow:
    """A tensor on the way: the centre of its interval, the directions round it, and its interval by plain arithmetic."""

    centre: Tensor  # (1, *shape)
    spread: Tensor  # (K, *shape)
    box: Box  # (1, *shape) each


@dataclass(frozen=True, eq=False)
class Start:
    """What stands before the first operator with units that are kept: rounds that keep fewer change nothing before it.

    Attributes:
        number: of that operator.
        directions: how many there are.
        flows: the tensors that it or a later operator reads.
        pre: of the operators before it, as in `Estimate`.
        drawn: the generator's state there.
    """

    number: int
    directions: int
    flows: Mapping[str, _Flow]
    pre: Mapping[str, Box]
    drawn: Tensor


def most_directions(network: Network, memory: int = MEMORY) -> int:
    """How many directions fit `memory`: at least 16, whatever that takes."""
    last = _last_readers(network)
    alive: dict[str, int] = {network.input: network.input_size}
    most = 0
    for i, op in enumerate(network.ops):
        alive[op.output] = op.out_size
        most = max(most, sum(alive.values()))
        for name in _read_for_the_last_time(op, i, last):
            del alive[name]
    return max(_FEWEST, memory // (4 * most))


def estimate_widths(
    network: Network,
    lower: Array,
    upper: Array,
    *,
    units: Mapping[str, Tensor] | None = None,
    directions: int = DIRECTIONS,
    memory: int = MEMORY,
    seed: int = 0,
    start: Start | None = None,
    budget: Budget | None = None,
) -> Estimate:
    """Estimated intervals of all pre-activations over the box `[lower, upper]`, per-sample shape.

    Args:
        units: flat positions that are estimated, by the name of the tensor that the activation writes; the others keep plain
            intervals. Default: all.
        directions: fewer where `memory` does not hold so many.
        memory: bytes for the directions of the tensors that are alive at a time.
        seed: of the directions; one seed gives one estimate.
        start: of an earlier estimate with this seed, on this box, of a network that kept these units and others; it is not used
            where it has another number of directions.
        budget: looked at before every call of an operator, which takes about a tenth of a second.

    Raises:
        OutOfTime: the budget ended.
    """
    count = min(directions, most_directions(network, memory))
    pushed = _Pushed(network, count, units or {}, seed, budget or Budget())
    with torch.no_grad():
        if start is None or start.directions != count:
            start = pushed.begin(torch.as_tensor(lower), torch.as_tensor(upper))
        return pushed.run(start)


class _Pushed:
    """One pass through the network."""

    def __init__(self, network: Network, count: int, units: Mapping[str, Tensor], seed: int, budget: Budget) -> None:
        self._network, self._count, self._units, self._budget = network, count, units, budget
        self._generator = torch.Generator().manual_seed(seed)

    def begin(self, lower: Tensor, upper: Tensor) -> Start:
        """At the network's input."""
        low, high = lower.unsqueeze(0).double(), upper.unsqueeze(0).double()
        centre, radius = ((low + high) / 2).float(), ((high - low) / 2).float()
        spread = self._cauchy(self._network.input_size).reshape(-1, *self._network.input_shape).mul_(radius)
        flows = {self._network.input: _Flow(centre, spread, (low.float(), high.float()))}
        return Start(0, self._count, flows, {}, self._generator.get_state())

    def run(self, start: Start) -> Estimate:
        """To the end, and where the next round may begin."""
        ops = self._network.ops
        turn = next((i for i, op in enumerate(ops) if _is_open(op)), len(ops))
        if turn < start.number:
            raise ValueError("the start belongs to a network that keeps fewer units")
        self._generator.set_state(start.drawn)
        flows, pre, stop = dict(start.flows), dict(start.pre), start
        last = _last_readers(self._network)
        first = start.number
        del start
        for i, op in enumerate(ops):
            if i < first:
                continue
            if i == turn:
                stop = Start(i, self._count, dict(flows), dict(pre), self._generator.get_state())
            read = [flows[name] for name in op.inputs]
            if isinstance(op, Affine):
                flows[op.output] = self._affine(op, read)
            elif isinstance(op, Nonlinear):
                box = self._estimated(op, read[0])
                pre[op.output] = box
                if isinstance(op, Activation):
                    flows[op.output] = self._activation(op, read[0], box)
                else:
                    flows[op.output] = self._other(op, read[0], box)
            else:
                raise op.missing("linear bounds")
            del read
            for name in _read_for_the_last_time(op, i, last):
                del flows[name]
        return Estimate(pre, self._count, stop)

    def _affine(self, op: Affine, read: list[_Flow]) -> _Flow:
        spread = self._written(op)
        for part in self._parts(op):
            spread[part] = op.linear(*[f.spread[part] for f in read])
        return _Flow(op.forward(*[f.centre for f in read]), spread, op.interval(*[f.box for f in read]))

    def _estimated(self, op: Nonlinear, z: _Flow) -> Box:
        """The interval of what the operator reads."""
        size = z.centre.numel()
        wanted = self._units.get(op.output)
        everything = wanted is None or len(wanted) == size
        flat = flattened(z.spread, 1)
        total = torch.zeros(size if everything or wanted is None else len(wanted))
        tiny = torch.finfo(torch.float32).tiny
        for part in self._parts(op):
            rows = flat[part] if everything else flat[part][:, wanted]
            total += rows.abs().clamp_(min=tiny).log_().sum(0)
        radius = total.div_(self._count).exp_()
        # what overflowed float32 is no number, and no interval
        l = torch.nan_to_num(z.box[0].flatten(), nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        u = torch.nan_to_num(z.box[1].flatten(), nan=math.inf, posinf=math.inf, neginf=-math.inf)
        index = slice(None) if everything else wanted
        middle, low, high = z.centre.flatten()[index], l[index], u[index]
        below, above = (middle - radius).clamp(low, high), (middle + radius).clamp(low, high)
        known = ~(below.isnan() | above.isnan())
        l[index], u[index] = torch.where(known, below, low), torch.where(known, above, high)
        shape = z.centre.shape
        return l.reshape(shape), u.reshape(shape)

    def _activation(self, op: Activation, z: _Flow, box: Box) -> _Flow:
        l, u = box
        if curved(op):
            slope, low, high = rough_chord(op, l, u)
            zero = torch.zeros_like(slope)
            return self._through(op, z, slope, (low + high) / 2, high - low, rough_error(op, l, u, zero, zero))
        r = op.relax(l, u, "fastlin")
        slope = r.lower_slope if r.parallel else (r.lower_slope + r.upper_slope) / 2
        offset = (r.lower_offset + r.upper_offset) / 2
        band = r.upper_offset - r.lower_offset
        if not r.parallel:
            tilt = r.upper_slope - r.lower_slope
            band = torch.maximum(band + tilt * l, band + tilt * u)
        return self._through(op, z, slope, offset, band, op.interval(box))

    def _through(self, op: Activation, z: _Flow, slope: Tensor, offset: Tensor, band: Tensor, box: Box) -> _Flow:
        """Behind a line of that slope, in the middle of a band; `box`: the interval of what the activation writes."""
        value = op.forward(z.centre)
        centre = torch.where(torch.isfinite(offset), slope * z.centre + offset, value)
        half = torch.nan_to_num(band / 2, nan=0.0, posinf=0.0, neginf=0.0).flatten()
        sources = torch.nonzero(half > 0).flatten()
        spread = self._written(op)
        for part in self._parts(op):
            torch.mul(z.spread[part], slope, out=spread[part])
            if len(sources):
                rows = flattened(spread[part], 1)
                rows[:, sources] += self._cauchy(len(sources), len(rows)).mul_(half[sources])
        return _Flow(centre, spread, box)

    def _other(self, op: Nonlinear, z: _Flow, box: Box) -> _Flow:
        """Any other operator by its derivative: a pooling where its inputs are largest, others at the centre."""
        at = box[1] if isinstance(op, Windows | SubstitutedMax) else z.centre
        spread = self._written(op)
        for part in self._parts(op):
            moved = z.spread[part]
            with torch.enable_grad():
                # J v as the gradient of u . (J v), which is linear in u, by way of J^T u
                x = at.expand_as(moved).contiguous().requires_grad_()
                y = op.forward(x)
                u = torch.zeros_like(y, requires_grad=True)
                (pulled,) = torch.autograd.grad(y, x, u, create_graph=True)
                (spread[part],) = torch.autograd.grad(pulled, u, moved)
        return _Flow(op.forward(z.centre), spread, op.interval(box))

    def _cauchy(self, size: int, rows: int | None = None) -> Tensor:
        angle = torch.empty((self._count if rows is None else rows, size))
        # a sixth of the time of `cauchy_`
        return angle.uniform_(-math.pi / 2, math.pi / 2, generator=self._generator).tan_()

    def _written(self, op: Operator) -> Tensor:
        return torch.empty((self._count, *op.out_shape))

    def _parts(self, op: Operator) -> Iterator[slice]:
        """The directions of one call, piece by piece."""
        values = op.out_size + sum(math.prod(s) for s in op.in_shapes)
        work = op.out_size * (terms(op) if isinstance(op, Affine) else 1)
        step = max(1, min(_PIECE // max(values, 1), int(_WORK // max(work, 1))))
        for start in range(0, self._count, step):
            self._budget.check()
            yield slice(start, min(start + step, self._count))


def _is_open(op: Operator) -> bool:
    """Whether something of an operator is kept that a later round may replace by lines."""
    if isinstance(op, Substituted | SubstitutedMax):
        return bool(op.kept.any())
    return isinstance(op, Windows) or (isinstance(op, Activation) and not op.inner)


def _last_readers(network: Network) -> dict[str, int]:
    return {name: i for i, op in enumerate(network.ops) for name in op.inputs}


def _read_for_the_last_time(op: Operator, number: int, last: Mapping[str, int]) -> set[str]:
    """Tensors that nobody reads behind this operator; its own output, where nobody reads that at all."""
    return {name for name in op.inputs if last[name] == number} | ({op.output} if op.output not in last else set())
