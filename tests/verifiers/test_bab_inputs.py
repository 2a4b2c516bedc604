"""Splits of the box of inputs: lines hold, no point of interest is lost, and answers are those of samples and programs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxsub.budget import Budget, OutOfTime
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.properties import Case, Clause, Property
from onnxsub.properties.rows import row_set
from onnxsub.verifiers.bab.inputs import search
from onnxsub.verifiers.bab.inputs.lines import row_lines
from onnxsub.verifiers.bab.inputs.search import InputSearch
from onnxsub.verifiers.decision import Decision, Spec, SpecBox
from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions
from onnxsub.verifiers.property import decide_property, property_spec
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.verify import VerifyOptions
from onnxsub.verifiers.witness import Judge, Witness
from tests.random_models import random_model
from tests.verifiers.nets import dense, exact_options, logits, random_network

RELU = ("Relu",)
KINDS = [("dense", RELU), ("dense", ("Sigmoid", "Relu")), ("conv", ("LeakyRelu",)), ("residual", RELU), ("pool", RELU)]


class _Exact(Judge):
    """The network itself in float64, with its own numbers."""

    def __init__(self, network: Network, box: tuple[Array, Array], clauses: tuple[Clause, ...]) -> None:
        self.lower, self.upper = (e.astype(np.float32) for e in box)
        self._value, self._clauses = logits(network), clauses

    def judge(self, point: Array) -> Witness:
        y = self._value(np.asarray(point)[None])[0]
        least = [float((c.b - c.A @ y).min()) for c in self._clauses]
        k = int(np.argmax(least))
        return Witness(np.asarray(point), np.nan, -1, least[k], "strict" if least[k] > 0 else "rejected", case=0, clause=k)

    def best(self, points: Array) -> Witness:
        return self.judge(points[0])


def boxes(network: Network, seed: int, count: int = 6) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.2, 0.8, (count, network.input_size))
    half = rng.choice([0.0, 0.01, 0.1, 0.3], (count, network.input_size))
    return torch.as_tensor(centre - half), torch.as_tensor(centre + half)


@pytest.mark.parametrize(("kind", "activations"), KINDS)
@pytest.mark.parametrize("power", [0, 40, -300])
def test_lines_hold_and_cuts_lose_no_point(kind: str, activations: tuple[str, ...], power: int) -> None:
    network = random_network(3, kind=kind, activations=activations, classes=4)
    scale = 2.0**power
    lower, upper = boxes(network, 1)
    rows = torch.tensor([0, 2, 3])
    shift = network.forward(((lower + upper) / 2).reshape(-1, *network.input_shape)).mean(0)
    moved = network.then((_shifted(network, -shift.numpy(), scale),))
    lines = row_lines(moved, rows, lower, upper)
    which = torch.tensor([[0, 1]]).repeat(len(lower), 1)
    low, high = lines.cut(which, lower, upper)
    rng, kept = np.random.default_rng(0), 0
    for _ in range(20):
        share = torch.as_tensor(rng.choice([0.0, 1.0, rng.random()], lower.shape))
        x = lower + share * (upper - lower)
        y = moved.forward(x.reshape(-1, *network.input_shape))[:, rows]
        corner = torch.where(lines.c > 0, upper[:, None], lower[:, None])
        value = lines.end + (lines.c * (x[:, None] - corner)).sum(2)
        assert bool((y <= lines.top).all())
        assert bool((y <= value + 1e-9 * y.abs()).all())
        inside = (y[:, :2] >= 0).all(1)
        assert bool((x >= low)[inside].all())
        assert bool((x <= high)[inside].all())
        kept += int(inside.sum())
    assert kept > 0


def _shifted(network: Network, by: Array, scale: float) -> object:
    from onnxsub.ops.dense import Dense

    k = network.classes
    return Dense(
        op_type="Gemm", node="moved", inputs=(network.output,), output="moved", in_shapes=((k,),), out_shape=(k,),
        weight=scale * np.eye(k), bias=scale * by,
    )  # fmt: skip


def test_lines_that_overflow_cut_and_prove_nothing() -> None:
    network = dense((1e200 * np.eye(2), np.zeros(2)), (1e200 * np.eye(2), np.array([-1.0, -1.0])))
    lower, upper = torch.full((1, 2), -1.0, dtype=torch.float64), torch.ones((1, 2), dtype=torch.float64)
    lines = row_lines(network, torch.arange(2), lower, upper)
    assert bool((lines.top >= 1).all())
    low, high = lines.cut(torch.tensor([[0, 1]]), lower, upper)
    assert bool((low <= 0).all())
    assert bool((high == 1).all())


def decision_of(network: Network, box: tuple[Array, Array], clauses: tuple[Clause, ...], **options: object) -> Decision:
    judge = _Exact(network, box, clauses)
    spec = Spec(network, (SpecBox(*box, row_set(clauses), judge),))
    return Decision(spec, Session(exact_options(BabOptions(**options), timeout=60, threads=1)))  # type: ignore[arg-type]


def clause(*rows: tuple[list[float], float]) -> Clause:
    return Clause(np.array([a for a, _ in rows]), np.array([b for _, b in rows]), np.zeros(len(rows), dtype=bool))


def searched(decision: Decision) -> InputSearch:
    clauses = decision.open(0)
    assert InputSearch.fits(decision, 0, clauses)
    return InputSearch(decision, 0, clauses)


@pytest.mark.parametrize("power", [0, -80, 80])
@pytest.mark.parametrize("seed", range(4))
def test_it_decides_by_itself(seed: int, power: int) -> None:
    """Two clauses, one of two rows that hold apart and not together; proofs and witnesses on both sides of what samples reach."""
    rng = np.random.default_rng(seed)
    scale = 2.0**power
    layers = [(rng.normal(size=(m, n)), rng.normal(size=m)) for n, m in ((2, 16), (16, 12), (12, 3))]
    layers = [(layers[0][0] * scale, layers[0][1] * scale), (layers[1][0] / scale, layers[1][1]), layers[2]]
    network = dense(*layers)
    box = np.array([-1.0, -1.0]), np.array([1.0, 1.0])
    y = logits(network)(np.stack(np.meshgrid(*[np.linspace(-1, 1, 400)] * 2), -1).reshape(-1, 2))
    both, one = np.minimum(y[:, 0] - y[:, 1], y[:, 2] - y[:, 1]), y[:, 0] - y[:, 2]
    for shift, proved in ((0.02, True), (-0.02, False)):
        ends = both.max() + shift * np.ptp(both), one.max() + shift * np.ptp(one)
        clauses = clause(([-1, 1, 0], -ends[0]), ([0, 1, -1], -ends[0])), clause(([-1, 0, 1], -ends[1]))
        decision = decision_of(network, box, clauses)
        found = searched(decision)
        found.run(decision.budget)
        assert found.finished or not proved
        assert decision.proved is proved
        assert (decision.witness is None) is proved
        if not proved:
            assert decision.witness is not None
            assert decision.witness.confirmed


def test_no_region_is_lost_on_the_way() -> None:
    """Whenever it stops, also in the middle of a step, every point that satisfies a clause lies in a region of that clause."""
    network = random_network(5, kind="dense", activations=("Relu",), classes=3)
    n = network.input_size
    box = np.full(network.input_shape, 0.2), np.full(network.input_shape, 0.8)
    x = np.random.default_rng(0).uniform(0.2, 0.8, (4000, n))
    y = logits(network)(x.reshape(-1, *network.input_shape))
    clauses = tuple(clause(([-1, 1, 0], -q)) for q in np.quantile(y[:, 0] - y[:, 1], [0.9, 0.99]))
    decision = decision_of(network, box, clauses)
    found = searched(decision)
    decision.replay = lambda number, point: False  # type: ignore[method-assign] # it must go on
    found._try = lambda *a: None  # type: ignore[method-assign]
    found._affine = lambda pre, count: torch.zeros(count, dtype=torch.bool)  # type: ignore[method-assign]
    for turn in range(6):
        try:
            found.run(decision.budget.with_nodes(40) if turn != 3 else _Short(3))
        except OutOfTime:
            assert turn == 3
        for i, k in enumerate(found._clauses):
            inside = np.zeros(len(x), dtype=bool)
            for r in found._waiting:
                mine = r.clause == i
                for l, u in zip(r.lower[mine].numpy(), r.upper[mine].numpy(), strict=True):
                    inside |= ((x >= l) & (x <= u)).all(1)
            least = (clauses[k].b - y @ clauses[k].A.T).min(1)
            assert inside[least >= 0].all()
    assert found.visited > 100
    assert not decision.proved


def test_where_a_row_is_affine_no_half_is_tried() -> None:
    """`max(0, x_0) - max(0, x_0) >= 0` holds everywhere and no float32 point may be replayed: given up at once, and not proved."""
    network = dense((np.array([[1.0, 0.0]]), np.zeros(1)), (np.array([[1.0], [1.0]]), np.zeros(2)))
    decision = decision_of(network, (np.array([0.1, 0.1]), np.array([1.0, 1.0])), (clause(([-1, 1], 0.0)),))
    found = searched(decision)
    decision.replay = lambda number, point: False  # type: ignore[method-assign]
    found.run(decision.budget)
    assert found.finished
    assert found.visited == 1
    assert not decision.proved


def test_without_a_time_limit_halving_ends() -> None:
    """The same over both pieces of a Relu, where the regions about its kink are never affine."""
    network = dense((np.array([[1.0, 0.3], [-0.4, 1.0]]), np.zeros(2)), (np.array([[1.0, 0.0], [1.0, 0.0]]), np.zeros(2)))
    decision = decision_of(network, (np.array([-1.0, -1.0]), np.array([1.0, 1.0])), (clause(([-1, 1], 0.0)),))
    found = searched(decision)
    decision.replay = lambda number, point: False  # type: ignore[method-assign]
    found._affine = lambda pre, count: torch.zeros(count, dtype=torch.bool)  # type: ignore[method-assign]
    found.run(decision.budget)
    assert found.finished
    assert not decision.proved


class _Short(Budget):
    """Over at the third look of a computation."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def check(self) -> None:
        self._looks -= 1
        if self._looks < 0:
            raise OutOfTime


def test_what_it_is_not_for() -> None:
    network = random_network(5, kind="dense", activations=("Relu",), classes=3)
    some = (clause(([-1, 1, 0], -9.0)),)
    low, high = np.full(network.input_shape, 0.2), np.full(network.input_shape, 0.8)
    point, endless = (low, low), (low, np.where(np.arange(low.size).reshape(low.shape) == 0, np.inf, high))
    for box, options, fits in (
        ((low, high), {}, True),
        ((low, high), {"inputs": 0}, False),
        ((low, high), {"inputs": low.size - 1}, False),
        (point, {}, False),
        (endless, {}, False),
    ):
        with np.errstate(invalid="ignore"):
            decision = Decision.__new__(Decision)
            decision.spec = Spec(network, (SpecBox(*box, row_set(some), _Exact(network, (low, high), some)),))
            decision.session = Session(exact_options(BabOptions(**options)))  # type: ignore[arg-type]
            assert InputSearch.fits(decision, 0, [0]) is fits
    assert not InputSearch.fits(decision_of(network, (low, high), some), 0, [])
    assert not InputSearch.fits(decision_of(network, (low, high), some), 0, [0] * 65)


def test_regions_too_small_to_be_halved_leave_their_clause_open() -> None:
    """Two rows that touch in one point exactly: no box round it is ever refuted, and float64 may not say that it is reached."""
    network = dense((np.eye(2), np.zeros(2)), (np.eye(2), np.zeros(2)))
    box = np.array([0.1, 0.1]), np.array([0.9, 0.9])
    touching = (clause(([1, 1], 0.7), ([-1, -1], -0.7)),)
    decision = decision_of(network, box, touching)
    found = searched(decision)
    found._try = lambda *a: None  # type: ignore[method-assign]
    found.run(decision.budget.with_nodes(3000))
    assert not decision.proved


@pytest.mark.parametrize("timeout", [None, 30.0])
def test_both_kinds_of_trees_take_turns(timeout: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit neither kind keeps the other from its turn, and the answer is that of the programs."""
    model = load_model(random_model(4, kind="dense", activations=("Relu",), classes=3))
    n = int(np.prod(model.input_shape))
    centre = np.full(n, 0.5)
    wide = Property((Case(centre - 0.3, centre + 0.3, (clause(([-1, 1, 0], -1.0)),)),), (n,), (model.outputs,))
    spec = property_spec(model, wide)
    y = logits(spec.network)(np.random.default_rng(0).uniform(0.2, 0.8, (4000, *spec.network.input_shape)))
    margin = y[:, 0] - y[:, 1]
    for shift in (0.3, -0.1):
        row = clause(([-1, 1, 0], -(margin.max() + shift * np.ptp(margin))))
        asked = replace(wide, cases=(replace(wide.cases[0], clauses=(row,)),))
        words = set()
        for bab in (BabOptions(), BabOptions(inputs=0), BabOptions(dive=0, leaf=0)):
            options = VerifyOptions(Limits(timeout=timeout, threads=1), MilpOptions(attack=False), bab)
            words.add(decide_property(model, asked, options).status)
        assert words == {"proved" if shift > 0 else "violated"}
    monkeypatch.setattr(search, "_AT_ONCE", 1)
    options = VerifyOptions(Limits(timeout=timeout, threads=1), MilpOptions(attack=False))
    assert decide_property(model, asked, options).status == "violated"
    assert math.isfinite(margin.max())
