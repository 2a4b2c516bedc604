"""Small networks for the tests of the verifiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.instance import Instance, Replay
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator
from onnxsub.ops.dense import Dense
from onnxsub.ops.relu import Relu
from onnxsub.region import InputSpace
from onnxsub.verifiers.box.clause import ROOM
from onnxsub.verifiers.box.model import Box, BoxModel, Building, Rows, margins_of
from onnxsub.verifiers.bracket import Bracket
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.options import BabOptions, ExactOptions, Limits, MilpOptions
from onnxsub.verifiers.result import DistanceResult, Progress, VerifyResult
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.verify import VerifyOptions, decide_ball
from tests.random_models import random_model

UNIT = InputSpace()


def dense(*layers: tuple[object, object]) -> Network:
    """`W, b` per layer, Relu between them."""
    ops: list[Operator] = []
    name = "x"
    first = np.asarray(layers[0][0]).shape[1]
    for i, (w, b) in enumerate(layers):
        weight, bias = np.asarray(w, dtype=np.float64), np.asarray(b, dtype=np.float64)
        m, n = weight.shape
        shapes = {"in_shapes": ((n,),), "out_shape": (m,)}
        ops.append(Dense(op_type="Gemm", node=f"d{i}", inputs=(name,), output=f"z{i}", weight=weight, bias=bias, **shapes))
        name = f"z{i}"
        if i < len(layers) - 1:
            ops.append(Relu(op_type="Relu", node=f"r{i}", inputs=(name,), output=f"h{i}", in_shapes=((m,),), out_shape=(m,)))
            name = f"h{i}"
    return Network("x", (first,), name, tuple(ops))


def random_dense(seed: int, *sizes: int) -> Network:
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(m, n)) / np.sqrt(n), 0.3 * rng.normal(size=m)) for n, m in pairwise(sizes)]
    return balanced(dense(*layers))


def random_network(seed: int, **options: object) -> Network:
    return balanced(lower(load_model(random_model(seed, **options))))  # type: ignore[arg-type]


def balanced(network: Network) -> Network:
    """The network with its logits shifted so that no class wins on average: otherwise most have no boundary in the domain."""
    points = np.random.default_rng(0).random((500, *network.input_shape))
    k = network.classes
    shift = Dense(
        op_type="Gemm", node="shift", inputs=(network.output,), output="balanced", in_shapes=((k,),), out_shape=(k,),
        weight=np.eye(k), bias=-logits(network)(points).mean(axis=0),
    )  # fmt: skip
    return network.then((shift,))


def anchor(network: Network, seed: int) -> tuple[Array, int]:
    """A random float32 point of the unit box and its class."""
    x = np.random.default_rng(seed).random(network.input_shape).astype(np.float32)
    return x, int(logits(network)(x[None])[0].argmax())


def far_anchor(network: Network, seed: int) -> tuple[Array, int]:
    """Of 400 random points of the unit box the one that is farthest from other classes by its logits, and its class."""
    points = np.random.default_rng(seed).random((400, *network.input_shape)).astype(np.float32)
    scores = np.sort(logits(network)(points), axis=1)
    x = points[int((scores[:, -1] - scores[:, -2]).argmax())]
    return x, int(logits(network)(x[None])[0].argmax())


def logits(network: Network) -> Callable[[Array], Array]:
    """The network in float64."""

    def replay(x: Array) -> Array:
        with torch.no_grad():
            return network.forward(torch.as_tensor(np.array(x, dtype=np.float64))).numpy()

    return replay


def worst(network: Network, label: int, x: Array) -> Array:
    f = logits(network)(x)
    own = f[:, label].copy()
    f[:, label] = -np.inf
    return f.max(axis=1) - own


LIMITS = frozenset(f.name for f in dataclasses.fields(Limits))


def exact_options(bab: BabOptions | None = None, **options: object) -> ExactOptions:
    """Options of limits and of programs in one call."""
    limits = {k: v for k, v in options.items() if k in LIMITS}
    milp = {k: v for k, v in options.items() if k not in LIMITS}
    return ExactOptions(Limits(**limits), MilpOptions(**milp), bab or BabOptions())  # type: ignore[arg-type]


def box_model(network: Network, x0: Array, label: int, radius: float, **options: object) -> BoxModel:
    """The margins of a network over `B(radius)` and the little more that a search asks about; `options` as of `exact_options`."""
    x0 = np.asarray(x0, dtype=np.float64)
    box = Box(x0, *UNIT.ball(x0, radius * (1 + ROOM)), radius)
    return BoxModel.over(Rows(margins_of(network, label), label), box, Building.of(exact_options(**options), Budget()))  # type: ignore[arg-type]


def bracket_of(network: Network, x0: Array, label: int, bab: BabOptions | None = None, **options: object) -> Bracket:
    """An anchor's question that the network itself judges in float64."""
    return Bracket(Instance(network, x0, label, UNIT, logits(network)), Session(exact_options(bab, **options)))


def measured(
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace = UNIT,
    *,
    verifier: str = "milp",
    replay: Replay | None = None,
    start: Array | None = None,
    progress: Progress | None = None,
    bab: BabOptions | None = None,
    **options: object,
) -> DistanceResult:
    """The distance of a network; `options` are those of `Limits` and `MilpOptions`."""
    instance = Instance(network, x0, label, space, replay)
    return measure(instance, exact_options(bab, **options), verifier, start=start, progress=progress)


def decided(
    network: Network,
    x0: Array,
    label: int,
    eps: float,
    space: InputSpace = UNIT,
    *,
    verifier: str = "milp",
    replay: Replay | None = None,
    progress: Progress | None = None,
    bab: BabOptions | None = None,
    **options: object,
) -> VerifyResult:
    """One decision about a network; `options` are those of `Limits` and `MilpOptions`."""
    o = exact_options(bab, **options)
    asked = VerifyOptions(o.limits, o.milp, o.bab, verifier=verifier)
    return decide_ball(Instance(network, x0, label, space, replay), eps, asked, progress=progress)
