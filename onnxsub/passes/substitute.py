r"""The three substitutes of a unit with activation s: `con`, `lin`, `act`. Those of a window are in `windows.py`.

| method | function of the pre-activation z | exact at |
|---|---|---|
| `con` | `s(z0)` | the anchor |
| `lin` | the line through `(z0, s(z0))` and `(za, s(za))` | the anchor and the adversarial point |
| `act` | the tangent piece at z0 (ReLU: identity when z0 > 0, zero otherwise) | where no pruned unit leaves its piece |

`z0` and `za` are pre-activations of the original network f at the anchor and at the adversarial point. So a substitute g has
`g(x0) = f(x0)` always, `g(x_adv) = f(x_adv)` for `lin`, by induction over the layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.errors import InputError, OptionError
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array, Operator
from onnxsub.ops.picked import Picked
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.passes.windows import original_windows, window_line

__all__ = ["METHODS", "Lines", "check_method", "lines", "original_activation", "substitute"]

METHODS = ("con", "lin", "act")

_COINCIDE = 1e-9
"""Pre-activations nearer than this, relative to their size, have no line of their own: float64 rounding would choose its slope."""

_ROUNDED = 2.0**-19
"""What float32 as a rule rounds a pre-activation by, relative to the largest one of its layer: 32 of its roundings. The room of a
function that jumps has all that *may* happen before it, jumps further up included, and may be as wide as the layer."""


@dataclass(frozen=True, eq=False)
class Lines:
    """The line `slope z + offset` of every unit of every activation, by the name of the tensor that the activation writes.

    Arrays are float64 in the activation's per-sample shape.

    Attributes:
        windows: the line of every window in its elements, by the name of the tensor that MaxPool and the like write.
    """

    method: str
    slope: Mapping[str, Array]
    offset: Mapping[str, Array]
    windows: Mapping[str, Picked] = field(default_factory=dict)


def lines(
    network: Network, method: str, x0: Array, x_adv: Array | None = None, *, budget: Budget | None = None
) -> Lines:
    """The substitute line of every unit of f.

    Args:
        method: `con`, `lin` or `act`.
        x0, x_adv: per-sample shape; `x_adv` is needed for `lin`.

    Raises:
        InputError: `act` on an activation that is not piecewise linear, `lin` without `x_adv`, unknown method.
        OutOfTime: the budget ended; it is looked at before every operator.
    """
    budget = budget or Budget()
    check_method(network, method)
    if method == "lin" and x_adv is None:
        raise InputError("--method lin needs an adversarial point and none was found; use con or act with --eps, or attack longer")
    points = [x0] if method != "lin" or x_adv is None else [x0, x_adv]
    with torch.no_grad():
        x = torch.as_tensor(np.stack(points), dtype=torch.float64)
        jumps = any("slopes" in op.unsupported for op in network.activations)
        made = _through(network, method, x, budget) if jumps else _plain(network, method, x, budget)
    units = {n: line for n, line in made.items() if not isinstance(line, Picked)}
    windows = {n: line for n, line in made.items() if isinstance(line, Picked)}
    return Lines(method, {n: s.numpy() for n, (s, _) in units.items()}, {n: o.numpy() for n, (_, o) in units.items()}, windows)


_Made = dict[str, tuple[torch.Tensor, torch.Tensor] | Picked]
"""Slope and offset of units, or the line of windows, by the tensor that the operator writes."""


def _plain(network: Network, method: str, x: torch.Tensor, budget: Budget) -> _Made:
    values = network.values(x, tuple(op.inputs[0] for op in network.prunable), budget=budget)
    found: _Made = {}
    for op in network.prunable:
        budget.check()
        at = values[op.inputs[0]]
        found[op.output] = _line(op, method, at) if isinstance(op, Activation) else _window_line(op, method, at)
    return found


def _window_line(op: Windows | SubstitutedMax, method: str, at: torch.Tensor) -> Picked:
    return window_line(original_windows(op), method, at.numpy())


def _through(network: Network, method: str, x: torch.Tensor, budget: Budget) -> _Made:
    """The lines of a network whose units jump: their values are those of float32, in which the file runs.

    Where float64 sees a pre-activation on the other side of a jump, the line leads from what it sees to what the file has there.
    Where both pre-activations are the same but for rounding and the values are not, the line is the constant between these, and
    the next layer's lines begin at what that makes of its pre-activations.
    """
    names = tuple(op.output for op in network.prunable)
    executed = network.values(x.float(), names, budget=budget)
    values = {network.input: x}
    found: _Made = {}
    for op in network.ops:
        budget.check()
        read = [values[n] for n in op.inputs]
        if isinstance(op, Activation) and not op.inner:
            slope, offset = _between(op, method, read[0], executed[op.output].double())
            found[op.output] = slope, offset
            values[op.output] = slope * read[0] + offset
            continue
        if isinstance(op, Windows | SubstitutedMax):
            found[op.output] = _window_line(op, method, read[0])
        values[op.output] = op.forward(*read)
    return found


def _between(op: Activation, method: str, z: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and offset of the line through pre-activations and values at anchor and adversarial point; `act`: at the anchor."""
    if method == "con":
        return torch.zeros_like(z[0]), s[0]
    if method == "act":
        slope, _ = op.tangent(z[0])
        return slope, s[0] - slope * z[0]
    step = z[1] - z[0]
    size = z.abs().amax(0)
    apart = step.abs() > torch.maximum(_COINCIDE * size, torch.minimum(op.grain(z[0]), _ROUNDED * size.amax()))
    slope = torch.where(apart, (s[1] - s[0]) / torch.where(apart, step, torch.ones_like(step)), torch.zeros_like(step))
    return slope, torch.where(apart, s[0] - slope * z[0], (s[0] + s[1]) / 2)


def check_method(network: Network, method: str) -> None:
    """Raises InputError where the method is unknown or does not exist for an activation of the network."""
    if method not in METHODS:
        raise OptionError(f"--method {method!r} is unknown; choose one of {', '.join(METHODS)}")
    for op in network.prunable:
        if method == "act" and isinstance(op, Activation) and not op.piecewise_linear:
            raise InputError(
                f"--method act needs piecewise-linear units; {op.op_type} (node {op.node!r}) is not: use lin or con"
            )


def _line(op: Activation, method: str, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slope and offset for pre-activations `z`: `(1, *shape)`, or `(2, *shape)` at anchor and adversarial point."""
    z0 = z[0]
    if method == "act":
        if not op.piecewise_linear:
            raise InputError(
                f"--method act needs piecewise-linear units; {op.op_type} (node {op.node!r}) is not: use lin or con"
            )
        return op.tangent(z0)
    s = op.forward(z)
    if method == "con":
        return torch.zeros_like(z0), s[0]
    step = z[1] - z0
    apart = step.abs() > _COINCIDE * torch.maximum(z0.abs(), z[1].abs())
    slope = torch.where(apart, (s[1] - s[0]) / torch.where(apart, step, torch.ones_like(step)), torch.zeros_like(step))
    return slope, s[0] - slope * z0


def substitute(network: Network, chosen: Lines, kept: Mapping[str, Array]) -> Network:
    """The network g in which every unit and window that is not kept is its line.

    Args:
        kept: boolean per unit, in the activation's shape, by the name of the tensor that the activation writes; activations
            that are not named stay whole. Windows likewise.
    """
    new: dict[str, Operator] = {}
    for op in network.prunable:
        mask = kept.get(op.output)
        if mask is None or bool(mask.all()):
            continue
        if isinstance(op, Windows | SubstitutedMax):
            new[op.output] = SubstitutedMax.of(original_windows(op), mask.copy(), chosen.windows[op.output])
            continue
        slope, offset = np.where(mask, 0.0, chosen.slope[op.output]), np.where(mask, 0.0, chosen.offset[op.output])
        new[op.output] = Substituted.of(original_activation(op), mask.copy(), slope, offset)
    return network.replace(new)


def original_activation(op: Activation) -> Activation:
    """The activation of the file behind an activation that may be partly substituted."""
    return op.base if isinstance(op, Substituted) else op
