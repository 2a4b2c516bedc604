"""Random small networks on which every answer about a property is held against dense samples and against the other answers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto, helper

from onnxsub.metrics.local import LocalOptions, LocalProperty, LocalVerdict, attack_local, decide_local, make_property, sample_local
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from onnxsub.properties import Property
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import VerifyOptions
from tests.random_models import ACTIVATIONS, PIECEWISE, random_model

LIMIT = LocalOptions(timeout=1.5)
_POINTS = 1500


@dataclass
class Tally:
    """What was checked, what failed, what was left undecided.

    Attributes:
        checks: how many answers were held against something.
        wrong: one line per contradiction.
        statuses: by property and status.
    """

    checks: int = 0
    wrong: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def check(self, right: bool, what: str) -> None:
        self.checks += 1
        if not right:
            self.wrong.append(what)


@dataclass(frozen=True)
class Case:
    """One network and anchor, and dense samples of the ball.

    Attributes:
        f0, f: logits at the anchor and at the samples, by onnxruntime.
        size: `|x - x0|_inf` of the samples.
    """

    name: str
    query: Query
    eps: float
    x: Array
    size: Array
    f0: Array
    f: Array

    @property
    def room(self) -> float:
        """What float32 inference may be off by."""
        return 4e-6 * (1.0 + float(np.abs(self.f).max()))


def with_head(proto: ModelProto, head: str) -> ModelProto:
    """The model with an operator behind its output."""
    name = proto.graph.output[0].name
    proto.graph.node.append(helper.make_node(head, [name], ["head"]))
    proto.graph.output[0].name = "head"
    return proto


def make_case(seed: int) -> Case:
    """Networks of every kind, with and without normalisation and head, of 1 to 4 outputs; anchors inside and on the rim."""
    rng = np.random.default_rng(seed)
    classes = int(rng.choice([1, 2, 3, 4]))
    activations = (("Relu",), PIECEWISE, ACTIVATIONS)[int(rng.integers(3))]
    kind = str(rng.choice(["dense"] * 8 + ["conv", "residual"]))
    proto = random_model(seed, activations=activations, kind=kind, classes=classes)
    head = str(rng.choice(["", "", "Sigmoid" if classes == 1 else "Softmax"]))
    model = load_model(with_head(proto, head) if head else proto)
    space = InputSpace(mean=(0.4,), std=(0.3,)) if rng.random() < 0.3 else InputSpace()
    x0 = rng.random(model.input_shape)
    if rng.random() < 0.4:  # the ball leaves the domain
        x0 = np.where(rng.random(x0.shape) < 0.5, np.round(x0), x0)
    query = make_query(model, x0.astype(np.float32), space=space, threads=1)
    eps = float(rng.choice([0.3, 0.1, 0.03, 0.01]) if kind == "dense" else rng.choice([0.03, 0.01]))
    x = samples(query, eps, rng)
    name = f"seed {seed}: {kind}, {classes} outputs, {head or 'no head'}, eps {eps}"
    f0, f = (query.logits(p).astype(np.float64) for p in (query.x0[None], x))
    return Case(name, query, eps, x, query.radius(x), f0, f)


def samples(query: Query, eps: float, rng: np.random.Generator, count: int = _POINTS) -> Array:
    """Uniform points, corners and points of smaller balls, float32, inside the ball."""
    low, high = query.space.ball(query.x0, eps)
    shape = (count, *query.x0.shape)
    x = low + (high - low) * rng.random(shape)
    x[::3] = np.where(rng.random(x[::3].shape) < 0.5, low, high)
    near = x[1::3]
    x[1::3] = query.x0 + (near - query.x0) * rng.random((len(near), *[1] * query.x0.ndim)) ** 3
    found = x.astype(np.float32)
    # rounding must not leave the ball
    found = np.where(found < low, np.nextafter(found, np.float32(np.inf)), found)
    return np.where(found > high, np.nextafter(found, np.float32(-np.inf)), found)


def softmax(f: Array) -> Array:
    e = np.exp(f - f.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def quantities(name: str, norm: str, f0: Array, f: Array, size: Array, label: int) -> Array:
    """The number that a property bounds, written down a second time."""
    if name == "cr":
        return np.asarray(f[:, label] - np.delete(f, label, axis=1).max(axis=1))
    if name == "scr":
        return softmax(f)[:, label]
    if name == "confidence":
        return np.asarray(np.abs(softmax(f) - softmax(f0)).max(axis=1))
    change = np.linalg.norm(f - f0, ord=math.inf if norm == "inf" else int(norm), axis=1)
    return change if name == "sr" else np.divide(change, size, out=np.zeros_like(change), where=size > 0)


def decide(case: Case, prop: LocalProperty, tally: Tally, options: LocalOptions = LIMIT) -> LocalVerdict:
    """A decision, held against the samples; a witness is looked at by hand."""
    verdict = decide_local(case.query, prop, options)
    tally.statuses[f"{prop.name} {verdict.status}"] += 1
    label = f"{case.name}: {prop.parameters()} by {options.verifier} is {verdict.status} ({verdict.reason})"
    norm = getattr(prop, "norm", "inf")
    if verdict.status == "violated":
        assert verdict.witness is not None
        tally.check(_breaks(case, prop, verdict.witness[None], norm)[0] > 0, f"{label}: not by its witness")
    elif verdict.status == "proved":
        # a sample may be beyond the bound by what float32 rounds away
        over = _breaks(case, prop, case.x, norm).max()
        if prop.name in ("sr", "cr"):
            room = case.room * case.f.shape[1]
        elif prop.name == "lr":
            room = 0.0  # the rounding is part of the excess
        else:
            room = case.room
        tally.check(over <= room, f"{label}: a sample is beyond it by {over:.3g}")
    return verdict


def _breaks(case: Case, prop: LocalProperty, x: Array, norm: str) -> Array:
    """By how much points break a property, not positive where they keep it; NaN is never returned for a point outside."""
    query = case.query
    low, high = query.space.ball(query.x0, prop.eps)
    inside = ((x >= low) & (x <= high)).reshape(len(x), -1).all(axis=1)
    f, size = query.logits(x).astype(np.float64), query.radius(x)
    value = quantities(prop.name, norm, case.f0, f, size, query.label)
    if prop.name == "lr":
        room = 1e-5 * (np.abs(f).max(axis=1) + np.abs(case.f0).max())
        return np.where(inside, (value - prop.bound) * size - room, -1.0)
    over = prop.bound - value if prop.smallest else value - prop.bound
    if prop.name == "cr":
        over = np.where(over == 0, np.finfo(np.float64).tiny, over)  # a tie violates it
    return np.where(inside, over, -1.0)


def check_case(seed: int) -> Tally:
    """All properties of one random network."""
    tally = Tally()
    case = make_case(seed)
    rng = np.random.default_rng(10_000 + seed)
    eps, query = case.eps, case.query
    label = query.label
    m = query.classes
    kept = decide(case, make_property("cr", eps), tally)

    def extreme(name: str, norm: str = "inf") -> float:
        values = quantities(name, norm, case.f0, case.f, case.size, label)
        if name == "lr":  # ratios of rounding errors are no ratios
            values = np.where(case.size > 0.05 * eps, values, 0.0)
        return float(values.min() if name == "scr" else values.max())

    # just below and just above what the samples reach, and clearly above
    for norm in ("inf", str(rng.choice(["1", "2"]))):
        worst = extreme("sr", norm)
        asked = []
        for factor in (0.98, 1.001, 1.1, 1.6):
            delta = factor * worst + case.room
            asked.append(decide(case, make_property("sr", eps, delta=delta, norm=norm), tally))
            if norm == "inf":
                _implied_by_norm(case, asked[-1], delta, tally)
        _monotone(case, asked, tally)
    worst, asked = extreme("scr"), []
    for factor in (1.02, 0.999, 0.9, 0.6):
        eta = min(max(factor * worst, 1e-9), 1 - 1e-9)
        asked.append(decide(case, make_property("scr", eps, eta=eta), tally))
        if eta > 0.5 and asked[-1].status != "undecided":
            # a score above 1/2 is the largest; a class that changes has a score of at most 1/2
            right = (asked[-1].status, kept.status) != ("proved", "violated")
            tally.check(right, f"{case.name}: SCR({eta}) is proved, CR is {kept.status} ({kept.reason})")
        if eta >= 0.5 + case.room and kept.status == "violated":
            tally.check(asked[-1].status != "proved", f"{case.name}: CR is violated, SCR({eta}) proved")
    _monotone(case, asked, tally)
    worst = extreme("confidence")
    gammas = [min(max(factor * worst, 1e-9), 1 - 1e-9) for factor in (0.98, 1.001, 1.1, 1.6)]
    _monotone(case, [decide(case, make_property("confidence", eps, gamma=g), tally) for g in gammas], tally)
    worst, asked = extreme("lr"), []
    for factor in (0.9, 1.02, 1.3, 2.5):
        asked.append(decide(case, make_property("lr", eps, lipschitz=factor * worst), tally))
        if asked[-1].status == "proved":
            found = decide(case, make_property("sr", eps, delta=factor * worst * eps + case.room), tally)
            what = f"{case.name}: LR({factor * worst}) is proved, SR is {found.status} ({found.reason})"
            tally.check(found.status != "violated", what)
    _monotone(case, asked, tally)
    _others(case, make_property("sr", eps, delta=1.05 * extreme("sr") + case.room), tally)
    _others(case, make_property("cr", eps), tally)
    # a label that the anchor does not have
    wrong = replace(case.query, label=(label + 1) % m)
    for prop in (make_property("cr", eps), make_property("scr", eps, eta=0.4)):
        tally.check(decide_local(wrong, prop, LIMIT).status == "misclassified", f"{case.name}: {prop.name} of a wrong label")
    return tally


def _monotone(case: Case, asked: list[LocalVerdict], tally: Tally) -> None:
    """Answers from the strictest bound to the loosest: what is proved for one is not violated for a looser one."""
    for i, strict in enumerate(asked):
        for loose in asked[i + 1 :]:
            what = f"{case.name}: {strict.prop.parameters()} is {strict.status}, {loose.prop.parameters()} {loose.status}"
            tally.check((strict.status, loose.status) != ("proved", "violated"), what)


def _implied_by_norm(case: Case, verdict: LocalVerdict, delta: float, tally: Tally) -> None:
    """What SR in norm inf says about the other norms and about scores."""
    if verdict.status != "proved":
        return
    m, eps = case.query.classes, case.eps
    implied = [make_property("sr", eps, delta=delta * size, norm=norm) for norm, size in (("1", m), ("2", math.sqrt(m)))]
    # scores: logits that move by delta each move log odds by 2 delta, hence a score by tanh(delta / 2) at most
    gamma = math.tanh(delta / 2) * (1 + 1e-6)
    implied += [make_property("confidence", eps, gamma=gamma)] if 1e-9 < gamma < 1 else []
    implied.append(make_property("sr", eps / 2, delta=delta))
    for prop in implied:
        found = decide_local(case.query, prop, LIMIT)
        tally.check(found.status != "violated", f"{case.name}: SR({delta}) is proved, {prop.parameters()} violated")


def _others(case: Case, prop: LocalProperty, tally: Tally) -> None:
    """Programs, the VNN-LIB form and the attack do not contradict branch and bound; samples do not contradict a proof."""
    query = case.query
    words = {"bab": decide_local(query, prop, LIMIT).status}
    if all("milp" not in op.unsupported for op in query.network.ops):
        words["milp"] = decide(case, prop, tally, LocalOptions(verifier="milp", timeout=1.5)).status
    if not query.model.stripped:
        text: Property = prop.to_property(query)
        words["text"] = decide_property(query.model, text, VerifyOptions(Limits(timeout=1.5, threads=1))).status
    words["attack"] = attack_local(query, prop, LIMIT).status
    # float32 may see a tie where there is none over the real numbers: both may be right within rounding
    near = _nearest(case, prop) <= 4 * case.room
    tally.check(near or not {"proved", "violated"} <= set(words.values()), f"{case.name}: {prop.parameters()}: {words}")
    good, count = sample_local(query, prop, 200, seed=1)
    tally.check(count == 200 and (good == 200 or words["bab"] != "proved" or near), f"{case.name}: {good} of 200 samples")


def _nearest(case: Case, prop: LocalProperty) -> float:
    """How near the extreme of the samples is to the bound."""
    value = quantities(prop.name, "inf", case.f0, case.f, case.size, case.query.label)
    return abs(float(value.min() if prop.smallest else value.max()) - prop.bound)
