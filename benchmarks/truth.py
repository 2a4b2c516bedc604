"""What is true of a small network, found without the library: float64 arithmetic, and programs over patterns of activations.

A network whose only non-linear operators act element by element is cut at these: every pre-activation and the logits are affine in
the input and in the activations before, `p_k = A_k [x; a_1; ..; a_{k-1}] + c_k`. The matrices are read off the ONNX graph by its
reference implementation in float64, row by row of the identity. `distance` then walks the patterns that are feasible, one linear
program (HiGHS by scipy) per branch. Nothing here shares code with what it checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from scipy.optimize import linprog
from scipy.special import erf

from benchmarks.sampling import Anchor

__all__ = ["Pieces", "TooLarge", "distance", "pieces_of"]

Array = np.ndarray[Any, np.dtype[Any]]

_SMOOTH: dict[str, Callable[[Array], Array]] = {
    "Sigmoid": lambda p: 0.5 * (1 + np.tanh(p / 2)),
    "Tanh": np.tanh,
    "Softplus": lambda p: np.logaddexp(p, 0),
    "Softsign": lambda p: p / (1 + np.abs(p)),
    "Erf": erf,
    "Elu": lambda p: np.where(p > 0, p, np.expm1(np.minimum(p, 0))),
    "Selu": lambda p: 1.0507009873554805 * np.where(p > 0, p, 1.6732632423543772 * np.expm1(np.minimum(p, 0))),
    "Celu": lambda p: np.where(p > 0, p, np.expm1(np.minimum(p, 0))),
    "HardSwish": lambda p: p * np.clip(p / 6 + 0.5, 0, 1),
}
_ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Clip", "Abs", *_SMOOTH)


class TooLarge(Exception):  # noqa: N818 - no fault: another method has to say what is true
    """The network is not one that can be enumerated here."""


@dataclass(frozen=True, eq=False)
class Stage:
    """One activation: `a = s(A [x; before] + c)`. `breaks` `(units, B)`, `slopes` and `offsets` `(units, B + 1)`, or a function."""

    A: Array
    c: Array
    breaks: Array
    slopes: Array
    offsets: Array
    smooth: Callable[[Array], Array] | None = None

    def value(self, p: Array) -> Array:
        if self.smooth is not None:
            return self.smooth(p)
        piece = (p[..., None] >= self.breaks).sum(-1)
        unit = np.arange(p.shape[-1])
        return self.slopes[unit, piece] * p + self.offsets[unit, piece]


@dataclass(frozen=True, eq=False)
class Pieces:
    """A network in float64: stages, then logits `A [x; activations] + c`."""

    stages: tuple[Stage, ...]
    A: Array
    c: Array

    @property
    def units(self) -> int:
        return sum(len(s.c) for s in self.stages)

    @property
    def smooth(self) -> bool:
        return any(s.smooth is not None for s in self.stages)

    def __call__(self, x: Array) -> Array:
        """Logits of fed rows `(N, inputs)`."""
        known = np.asarray(x, dtype=np.float64)
        for s in self.stages:
            known = np.concatenate([known, s.value(known @ s.A.T + s.c)], axis=1)
        return known @ self.A.T + self.c


def pieces_of(proto: ModelProto, *, most: int = 120) -> Pieces:
    """The network cut at its activations.

    Raises:
        TooLarge: another non-linear operator, or more than `most` inputs and units together.
    """
    if any(node.op_type in ("MaxPool", "GlobalMaxPool", "Softmax") for node in proto.graph.node):
        raise TooLarge("it has an operator that is no activation")
    kinds = [n for n in proto.graph.node if n.op_type in _ACTIVATIONS]
    weights = {w.name: numpy_helper.to_array(w) for w in proto.graph.initializer}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in _shapes(proto)}
    source, result = proto.graph.input[0].name, proto.graph.output[0].name
    sizes = [math.prod(shapes[source]), *(math.prod(shapes[n.output[0]]) for n in kinds)]
    if sum(sizes) > most:
        raise TooLarge(f"{sum(sizes)} inputs and units")
    wanted = [*(n.input[0] for n in kinds), result]
    rows = _affine(proto, kinds, wanted, [source, *(n.output[0] for n in kinds)], sizes, shapes)
    stages = []
    for i, (node, row) in enumerate(zip(kinds, rows, strict=False)):
        before = sum(sizes[: i + 1])
        stages.append(Stage(row[1 : 1 + before].T - row[0][:, None], row[0], *_lines(node, weights, shapes[node.output[0]])))
    last = rows[-1]
    return Pieces(tuple(stages), last[1:].T - last[0][:, None], last[0])


def _shapes(proto: ModelProto) -> list[onnx.ValueInfoProto]:
    graph = onnx.shape_inference.infer_shapes(proto).graph
    return [*graph.input, *graph.output, *graph.value_info]


def _affine(
    proto: ModelProto, cut: list[NodeProto], wanted: list[str], sources: list[str], sizes: list[int], shapes: dict[str, list[int]]
) -> list[Array]:
    """Values of `wanted` at zero and at every unit vector of `sources`: `(1 + sum(sizes), units)` each."""
    wide = ModelProto()
    wide.CopyFrom(proto)
    # the reference implementation of BatchNormalization trains on the batch before opset 14; nothing else differs up to 15
    wide.opset_import[0].version = max(wide.opset_import[0].version, 15)
    graph = wide.graph
    gone = {n.output[0] for n in cut}
    kept = [n for n in graph.node if n.output[0] not in gone]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(kept)
    for w in graph.initializer:
        values = numpy_helper.to_array(w)
        if values.dtype == np.float32:
            w.CopyFrom(numpy_helper.from_array(values.astype(np.float64), w.name))
    double = onnx.TensorProto.DOUBLE
    graph.input.extend(onnx.helper.make_tensor_value_info(s, double, ["N", *shapes[s]]) for s in sources)
    unique = list(dict.fromkeys(w for w in wanted if w not in sources))
    graph.output.extend(onnx.helper.make_tensor_value_info(w, double, None) for w in unique)
    steps = np.vstack([np.zeros(sum(sizes)), np.eye(sum(sizes))])
    parts = np.split(steps, np.cumsum(sizes)[:-1], axis=1)
    feed = {s: part.reshape(len(steps), *shapes[s]) for s, part in zip(sources, parts, strict=True)}
    machine = ReferenceEvaluator(wide)
    try:
        values = machine.run(None, feed)
    except ValueError:  # constants of one row are joined to the rest
        single = [machine.run(None, {s: rows[i : i + 1] for s, rows in feed.items()}) for i in range(len(steps))]
        values = [np.concatenate(parts) for parts in zip(*single, strict=True)]
    found = dict(zip(unique, values, strict=True)) | feed
    # what does not depend on the input has one row
    return [np.broadcast_to(found[w], (len(steps), *found[w].shape[1:])).reshape(len(steps), -1) for w in wanted]


def _lines(node: NodeProto, weights: dict[str, Array], shape: list[int]) -> tuple[Any, ...]:
    units, kind = math.prod(shape), node.op_type
    if kind in _SMOOTH:
        return np.zeros((units, 0)), np.zeros((units, 1)), np.zeros((units, 1)), _SMOOTH[kind]
    if kind == "Clip":
        low, high = (float(weights[n]) for n in node.input[1:])
        return np.tile([low, high], (units, 1)), np.tile([0.0, 1.0, 0.0], (units, 1)), np.tile([low, 0.0, high], (units, 1))
    left = np.zeros(units)
    if kind == "LeakyRelu":
        left = np.full(units, next((float(a.f) for a in node.attribute if a.name == "alpha"), 0.01))
    elif kind == "PRelu":
        left = np.broadcast_to(weights[node.input[1]].astype(np.float64), shape).reshape(-1)
    elif kind == "Abs":
        left = np.full(units, -1.0)
    return np.zeros((units, 1)), np.stack([left, np.ones(units)], axis=1), np.zeros((units, 2))


def distance(pieces: Pieces, at: Anchor, *, best: float = math.inf, programs: int = 1500) -> float:
    """The exact L-infinity distance to `f_t >= f_y` in the domain, infinite where no point reaches it.

    Args:
        best: a radius at which a point is known.

    Raises:
        TooLarge: smooth activations, or more than `programs` linear programs.
    """
    if pieces.smooth:
        raise TooLarge("smooth activations")
    walk = _Walk(pieces, at, min(best / at.width, 1.0) * (1 + 1e-9), programs)
    n = len(at.x0)
    walk.stage(0, np.eye(n) * at.width / at.std, at.fed(at.x0), [], [])
    return walk.best * at.width if walk.found or best < math.inf else math.inf


class _Walk:
    """Patterns in depth, in coordinates `z = (x - x0) / width` and their radius r."""

    def __init__(self, pieces: Pieces, at: Anchor, best: float, programs: int) -> None:
        self.pieces, self.at, self.best, self.left, self.found = pieces, at, best, programs, False
        self.low, self.high = (at.lower - at.x0) / at.width, (at.upper - at.x0) / at.width

    def stage(self, k: int, E: Array, e: Array, rows: list[Array], ends: list[float]) -> None:
        """Known values are `E z + e`; the pattern so far holds where `rows z <= ends`."""
        if k == len(self.pieces.stages):
            F, f = self.pieces.A @ E, self.pieces.A @ e + self.pieces.c
            for t in range(len(f)):
                if t != self.at.label:
                    size = max(np.abs(F).max(), 1e-300)
                    r = self.radius([*rows, (F[self.at.label] - F[t]) / size], [*ends, float(f[t] - f[self.at.label]) / size])
                    if r < self.best:
                        self.best, self.found = r, True
            return
        s = self.pieces.stages[k]
        self.unit(k, 0, s.A @ E, s.A @ e + s.c, (E, e), [], rows, ends)

    def unit(
        self,
        k: int,
        u: int,
        P: Array,
        p: Array,
        known: tuple[Array, Array],
        chosen: list[int],
        rows: list[Array],
        ends: list[float],
    ) -> None:
        s = self.pieces.stages[k]
        if u == len(p):
            unit = np.arange(u)
            slope, offset = s.slopes[unit, chosen], s.offsets[unit, chosen]
            E, e = known
            self.stage(k + 1, np.vstack([E, slope[:, None] * P]), np.concatenate([e, slope * p + offset]), rows, ends)
            return
        low, high = np.maximum(self.low, -self.best), np.minimum(self.high, self.best)
        g = P[u]
        least, most = p[u] + np.minimum(g * low, g * high).sum(), p[u] + np.maximum(g * low, g * high).sum()
        edges = [-math.inf, *s.breaks[u], math.inf]
        around = [j for j in range(len(edges) - 1) if edges[j] <= most and least <= edges[j + 1]]
        size = max(float(np.abs(g).max()), 1e-300)
        for j in around:
            more, limits = list(rows), list(ends)
            if len(around) > 1:
                if edges[j] > -math.inf:
                    more.append(-g / size)
                    limits.append(float(p[u] - edges[j]) / size)
                if edges[j + 1] < math.inf:
                    more.append(g / size)
                    limits.append(float(edges[j + 1] - p[u]) / size)
                if self.radius(more, limits) >= self.best:
                    continue
            self.unit(k, u + 1, P, p, known, [*chosen, j], more, limits)

    def radius(self, rows: list[Array], ends: list[float]) -> float:
        """The smallest `|z|_inf` with `rows z <= ends`; infinite where there is none."""
        self.left -= 1
        if self.left < 0:
            raise TooLarge("too many patterns")
        n = len(self.low)
        eye, ones = np.eye(n), np.ones((n, 1))
        pattern = np.hstack([np.array(rows).reshape(-1, n), np.zeros((len(rows), 1))])
        A = np.vstack([np.hstack([eye, -ones]), np.hstack([-eye, -ones]), pattern])
        b = np.concatenate([np.zeros(2 * n), ends])
        box = [*zip(self.low, self.high, strict=True), (0.0, 1.0)]
        tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        answer = linprog(np.eye(n + 1)[n], A_ub=A, b_ub=b, bounds=box, method="highs", options=tight)
        return float(answer.fun) if answer.status == 0 else math.inf
