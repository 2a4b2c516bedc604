"""The pass `bounds`: the interval of every pre-activation over the ball round an anchor."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxsub.budget import Budget
from onnxsub.errors import OptionError
from onnxsub.ops.base import Array
from onnxsub.ops.relaxation import inside
from onnxsub.propagate import METHODS, compute_bounds
from onnxsub.propagate.chunks import MEMORY
from onnxsub.query import Query
from onnxsub.results import VERSION
from onnxsub.shown import Shown, number

__all__ = ["BoundsOptions", "BoundsResult", "LayerBounds", "bounds"]


@dataclass(frozen=True)
class BoundsOptions:
    """What to compute.

    Attributes:
        eps: radius of the ball in un-normalised input units.
        method: `ibp`, `fastlin`, `fastlin-ibp`, `crown` or `alpha-crown`.
        memory: bytes for the coefficients of one chunk of rows.
        steps: gradient steps per layer of `alpha-crown`.
    """

    eps: float
    method: str = "crown"
    memory: int = MEMORY
    steps: int = 20

    def __post_init__(self) -> None:
        check_eps(self.eps)
        if self.method not in METHODS:
            raise OptionError(f"--method {self.method!r} is unknown; choose one of {', '.join(METHODS)}")


def check_eps(eps: float) -> None:
    """Raises InputError unless `eps` is a radius."""
    if not (np.isfinite(eps) and eps >= 0):
        raise OptionError(f"--eps {eps} is not a radius; give a finite number that is not negative")


@dataclass(frozen=True, eq=False)
class LayerBounds:
    """Pre-activation interval of one activation, float64, in its per-sample shape.

    Attributes:
        name: the tensor that the activation writes.
        op_type: ONNX operator type.
        stable_on, stable_off: units that are one affine piece on their interval, of positive slope at the upper end or not.
    """

    name: str
    op_type: str
    lower: Array
    upper: Array
    stable_on: int
    stable_off: int

    @property
    def units(self) -> int:
        return int(self.lower.size)

    @property
    def unstable(self) -> int:
        return self.units - self.stable_on - self.stable_off

    def to_json(self) -> dict[str, Any]:
        """The keys of one layer in the contract."""
        width = self.upper - self.lower
        return {
            "name": self.name,
            "op_type": self.op_type,
            "units": self.units,
            "stable_on": self.stable_on,
            "stable_off": self.stable_off,
            "unstable": self.unstable,
            "width_min": float(width.min()),
            "width_mean": float(width.mean()),
            "width_max": float(width.max()),
        }


@dataclass(frozen=True, eq=False, repr=False)
class BoundsResult(Shown):
    """Intervals of all pre-activations and of the logits over `B(eps)`.

    Attributes:
        layers: one per activation, in topological order.
        output: interval of the logits, `(classes,)` each.
        head: the keys `model` and `anchor` of the contract.
    """

    options: BoundsOptions
    layers: tuple[LayerBounds, ...]
    output: tuple[Array, Array]
    head: Mapping[str, Any]
    time_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def line(self) -> str:
        units, unstable = sum(x.units for x in self.layers), sum(x.unstable for x in self.layers)
        return f"{self.options.method} at eps {number(self.options.eps)}: {unstable:,} of {units:,} units unstable"

    def arrays(self) -> dict[str, Array]:
        """All arrays by name, as they are stored beside an annotated file.

        `pre/<layer>/lower` and `pre/<layer>/upper` for every activation, `logits/lower`, `logits/upper`, and the scalars `eps`,
        `method`, `model_sha256` and `anchor_sha256` (and `scale_sha256` where the radius counts units of a scale) that say what
        they are bounds of.
        """
        found = {
            "eps": np.asarray(self.options.eps),
            "method": np.asarray(self.options.method),
            "model_sha256": np.asarray(str(self.head["model"]["sha256"])),
            "anchor_sha256": np.asarray(str(self.head["anchor"]["sha256"])),
        }
        scale = self.head["input"]["scale"]
        if scale is not None:
            found["scale_sha256"] = np.asarray(scale["sha256"])
        for layer in self.layers:  # a prefix of their own: a layer may be called "logits" too
            found[f"pre/{layer.name}/lower"], found[f"pre/{layer.name}/upper"] = layer.lower, layer.upper
        found["logits/lower"], found["logits/upper"] = self.output
        return found

    def to_json(self) -> dict[str, Any]:
        """The contract `onnxsub.bounds/1`."""
        return {
            "schema": "onnxsub.bounds/1",
            "version": VERSION,
            **self.head,
            "settings": {"eps": self.options.eps, "method": self.options.method},
            "eps": self.options.eps,
            "method": self.options.method,
            "layers": [layer.to_json() for layer in self.layers],
            "output": {"lower": self.output[0].tolist(), "upper": self.output[1].tolist()},
            "time_s": dict(self.time_s),
        }


def bounds(query: Query, options: BoundsOptions, *, budget: Budget | None = None) -> BoundsResult:
    """Bounds every pre-activation of the query's network over `B(eps)`, clipped to the domain, in float64.

    Raises:
        OutOfTime: the budget ended; bounds are all or nothing.
    """
    budget = budget or Budget()
    budget.check()
    start = time.perf_counter()
    low, high = query.space.ball(query.x0, options.eps)
    found = compute_bounds(query.network, low, high, options.method, memory=options.memory, steps=options.steps, budget=budget)
    layers = []
    for op in query.network.activations:
        budget.check()
        l, u = found.pre[op.output]
        stable = op.affine_on(l, u)
        slope, _ = op.tangent(inside(l, u))
        on = int((stable & (slope > 0)).sum())
        layers.append(LayerBounds(op.output, op.op_type, l[0].numpy(), u[0].numpy(), on, int(stable.sum()) - on))
    output = (found.output[0][0].numpy(), found.output[1][0].numpy())
    return BoundsResult(options, tuple(layers), output, query.json_head(), {"total": time.perf_counter() - start})
