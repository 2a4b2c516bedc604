"""The method in the plane: a small classifier of two inputs, its substitutes at one anchor, and what they look like."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxsub.budget import check_whole
from onnxsub.errors import InputError, OptionError
from onnxsub.files import make_folder, write_atomic
from onnxsub.model import save_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import METHODS
from onnxsub.pruning.prune import Adversarial, PruneOptions, build_substitute
from onnxsub.pruning.result import check_lists
from onnxsub.query import Query, make_query
from onnxsub.report.picture import check_matplotlib
from onnxsub.results import VERSION
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.result import DistanceResult

__all__ = ["CLASSES", "Demo2dOptions", "Demo2dResult", "Plane", "demo2d", "spirals", "train"]

CLASSES = 3
_WIDTH = 20
_POINTS = 120  # per class
_STEPS = 500
_TRIED = 24  # points that are tried as anchors
_MARGIN = 0.2  # an anchor is so far from the edge of the domain, which would cut its ball off
_RADIUS = 0.11  # how far from the boundary the anchor should be: near enough for a local picture, far enough to see

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class Demo2dOptions:
    """What is drawn.

    Attributes:
        output: folder. methods, gammas: of the substitutes. seed: of data, training and attack.
    """

    output: str = "demo2d"
    methods: tuple[str, ...] = METHODS
    gammas: tuple[float, ...] = (0.5, 0.75, 0.95)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.methods or not self.gammas:
            raise OptionError("nothing is to be drawn; give at least one of --methods and of --gammas")
        if self.seed < 0:
            raise OptionError(f"--seed {self.seed} is negative; give 0 or more")
        check_lists(self.methods, self.gammas, SelectOptions.rank)


@dataclass(frozen=True, eq=False)
class Plane:
    """A function of the plane and its nearest boundary point to the anchor.

    Attributes:
        method, gamma: of the substitute; None for the network itself.
        network: of two inputs in [0, 1].
        upper: its distance, infinite where there is no boundary. witness: the point there, None likewise.
        kept: units that are left.
    """

    method: str | None
    gamma: float | None
    network: Network = field(repr=False)
    upper: float
    witness: Array | None
    kept: int


@dataclass(frozen=True, eq=False)
class Demo2dResult:
    """What was drawn.

    Attributes:
        planes: the network first. accuracy: of the network on its own points.
    """

    options: Demo2dOptions
    files: tuple[str, ...]
    anchor: tuple[float, float]
    d_adv: float
    accuracy: float
    planes: tuple[Plane, ...]

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.demo2d/1`."""
        first, *rest = self.planes
        return {
            "schema": "onnxsub.demo2d/1",
            "version": VERSION,
            "output": self.options.output,
            "files": list(self.files),
            "anchor": list(self.anchor),
            "accuracy": self.accuracy,
            "d_adv": self.d_adv,
            "d_bnd": first.upper,
            "units_total": first.kept,
            "substitutes": [{"method": p.method, "gamma": p.gamma, "d_hat": p.upper, "kept": p.kept} for p in rest],
        }


def spirals(seed: int = 0) -> tuple[Array, Array]:
    """Three arms in [0, 1]^2: points `(N, 2)` float32 and classes `(N,)` int64."""
    rng = np.random.default_rng(seed)
    t = np.tile(np.linspace(0.12, 1.0, _POINTS), CLASSES)
    y = np.repeat(np.arange(CLASSES), _POINTS)
    angle = 2 * math.pi * y / CLASSES + 3.2 * t + 0.13 * rng.normal(size=len(t))
    x = 0.5 + 0.45 * t[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.clip(x, 0, 1).astype(np.float32), y


def train(seed: int = 0) -> ModelProto:
    """A classifier 2-20-20-3 of the spirals."""
    x, y = (torch.from_numpy(a) for a in spirals(seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(2, _WIDTH), torch.nn.Linear(_WIDTH, _WIDTH), torch.nn.Linear(_WIDTH, CLASSES)]
        net = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
        optimiser = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=1e-4)
        for _ in range(_STEPS):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(4 * x - 2), y).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    nodes, weights, previous = [], [], "x"
    for i, layer in enumerate(layers):
        w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        if i == 0:  # trained on [-2, 2], used on [0, 1]
            w, b = 4 * w, b - 2 * w.sum(axis=1)
        weights += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(b, f"b{i}")]
        nodes.append(helper.make_node("Gemm", [previous, f"w{i}", f"b{i}"], [f"z{i}"], name=f"dense{i}", transB=1))
        previous = f"z{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [previous], [f"h{i}"], name=f"relu{i}"))
            previous = f"h{i}"
    graph = helper.make_graph(
        nodes, "spirals", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info(previous, TensorProto.FLOAT, ["N", CLASSES])], weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="onnxsub demo2d")


def demo2d(options: Demo2dOptions | None = None, *, progress: Report | None = None) -> Demo2dResult:
    """Trains, prunes, measures, draws; writes pictures, the classifier and the anchor.

    Raises:
        MissingDependencyError: matplotlib is not installed. OutputError: the folder cannot be written.
    """
    options = options or Demo2dOptions()
    check_matplotlib()
    folder = Path(options.output)
    make_folder(folder, "choose another -o")
    _tell(progress, 0.0, "training the classifier")
    proto = train(options.seed)
    x, y = spirals(options.seed)
    query, found = _anchor(proto, x, y, options.seed)
    planes = [_plane(query, found, None)]
    wanted = [(m, g) for m in options.methods for g in options.gammas]
    for i, (method, gamma) in enumerate(wanted):
        _tell(progress, 0.2 + 0.5 * i / len(wanted), f"{method}, gamma {gamma:g}")
        via = PruneOptions(method=method, select=SelectOptions(gamma=gamma), attack=_attack(options.seed))
        planes.append(_plane(query, found, via))
    _tell(progress, 0.75, "drawing")
    from onnxsub.report.planes import plane_pictures, unit_picture

    pictures = [*plane_pictures(query, found, tuple(planes), (x, y), options), unit_picture(query, found)]
    accuracy = float((query.logits(x).argmax(axis=1) == y).mean())
    save_model(proto, folder / "classifier.onnx")
    np.save(folder / "anchor.npy", query.x0[None])
    files = ["classifier.onnx", "anchor.npy"]
    for picture in pictures:
        for ending, data in (("svg", picture.svg), ("png", picture.png)):
            write_atomic(folder / f"{picture.name}.{ending}", data)
            files.append(f"{picture.name}.{ending}")
    anchor = (float(query.x0[0]), float(query.x0[1]))
    return Demo2dResult(options, tuple(files), anchor, found.d_adv, accuracy, tuple(planes))


def _attack(seed: int) -> AttackOptions:
    return AttackOptions(seed=seed, threads=1)


def _anchor(proto: ModelProto, x: Array, y: Array, seed: int) -> tuple[Query, AttackResult]:
    """Of a few points, the one whose attack's radius is nearest to what can be seen well; and that attack."""
    candidates: list[tuple[float, Query]] = []
    query = make_query(proto, x[0], threads=1)
    rng = np.random.default_rng(seed)
    for i in rng.permutation(len(x)):
        if len(candidates) == _TRIED:
            break
        inner = x[i].min() >= _MARGIN and x[i].max() <= 1 - _MARGIN
        if not inner or int(query.logits(x[i : i + 1]).argmax()) != y[i]:
            continue
        own = replace(query, x0=x[i], label=int(y[i]), predicted=int(y[i]))
        found = attack(own, replace(_attack(seed), steps=20, restarts=8, rounds=1))
        if found.found:
            candidates.append((abs(found.d_adv - _RADIUS), own))
    if not candidates:
        raise InputError(f"--seed {seed} gives a classifier without an adversarial point; choose another seed")
    own = min(candidates, key=lambda c: c[0])[1]
    return own, attack(own, _attack(seed))


def _plane(query: Query, found: AttackResult, via: PruneOptions | None) -> Plane:
    result: DistanceResult = distance(query, DistanceOptions(limits=Limits(threads=1), via=via, attack=_attack(0)), found=found)
    check_whole(result.interrupted)
    witness = None if result.witness is None or not result.witness.confirmed else result.witness.x
    if via is None:
        return Plane(None, None, query.network, result.upper, witness, query.network.units_and_windows)
    g = build_substitute(query, via, Adversarial.of(found))
    return Plane(via.method, via.select.gamma, g.network, result.upper, witness, sum(g.selection.kept_per_layer))


def _tell(progress: Report | None, share: float, text: str) -> None:
    if progress is not None:
        progress(share, text)
