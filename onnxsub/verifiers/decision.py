"""One decision in the making: boxes, the clauses that are looked for in each, what is refuted, and the point that was found."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from onnxsub.budget import Budget
from onnxsub.instance import Instance
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack.polish import Confirm
from onnxsub.passes.rescale import in_row_units, rescaled
from onnxsub.properties.least import as_least_network
from onnxsub.properties.property import Clause
from onnxsub.properties.rows import RowSet, as_margin_network, row_set, weakest
from onnxsub.verifiers.ascend import AttackPlan, ascend
from onnxsub.verifiers.box.model import Box, Rows
from onnxsub.verifiers.judges import BallJudge
from onnxsub.verifiers.jumps import at_a_jump
from onnxsub.verifiers.proof import Claims
from onnxsub.verifiers.real_rows import output_scales
from onnxsub.verifiers.session import Session
from onnxsub.verifiers.witness import Judge, Witness, points_inside

__all__ = ["Decision", "Spec", "SpecBox", "ball_spec"]

_ROUND = AttackPlan(growth=(0.0,), noise=(0.0,), restarts=8, steps=30)
"""The search round a point that float32 does not confirm."""

_ROUNDING = 0.1  # of a row's size, at the centre of its box or at the point: far more than float32 rounds in an ordinary network
_SMALL_ROW = 1e-3  # of the size of its terms: what a row counts for at least where it is measured


@dataclass(frozen=True, eq=False)
class SpecBox:
    """A box of inputs and the disjunction of clauses that is looked for in it.

    Attributes:
        lower, upper: `(*input_shape)`, float64.
        rows: of the clauses, over the network's output.
        judge: who replays its points.
        confirm: the judge's word on points anywhere: the largest over the clauses of the smallest row, and that clause. None:
        there is no such word, so no attack goes beyond the box.
        anchor: the question about a class that the box was made for, where that is known.
        whole: only whole numbers are inputs.
    """

    lower: Array
    upper: Array
    rows: RowSet
    judge: Judge
    confirm: Confirm | None = None
    anchor: Instance | None = None
    whole: bool = False

    @cached_property
    def box(self) -> Box:
        return Box.whole(self.lower, self.upper)


@dataclass(frozen=True, eq=False)
class Spec:
    """Boxes and clauses over one network: is there a point in a box whose output satisfies one of the box's clauses?"""

    network: Network
    boxes: tuple[SpecBox, ...]


def ball_spec(instance: Instance, eps: float) -> Spec:
    """`B(eps)` and one clause of one row per other class t: `f_t - f_y >= 0`.

    The ends of the box are moved outward to float32 numbers, as those of an exported property are: both are then one question.
    """
    lower, upper = instance.ball(eps)
    lower = np.minimum(lower, lower.astype(np.float32).astype(np.float64))
    upper = np.maximum(upper, upper.astype(np.float32).astype(np.float64))
    clauses = []
    for t in instance.targets:
        row = np.zeros((1, instance.network.classes))
        row[0, instance.label], row[0, t] = 1.0, -1.0
        clauses.append(Clause(row, np.zeros(1), np.zeros(1, dtype=bool)))
    judge, whole = BallJudge(instance, eps), instance.space.whole
    return Spec(instance.network, (SpecBox(lower, upper, row_set(tuple(clauses)), judge, judge.margins, instance, whole),))


class Decision:
    """One decision.

    Attributes:
        claims: keys are (box, clause).
        witness: a confirmed point that satisfies a clause; None: none yet.
        limited: a program of a clause ended at its time limit.
        grown: a tree was begun.
        replayed: points of the boxes that were replayed after the proof.
    """

    def __init__(self, spec: Spec, session: Session) -> None:
        self.spec = spec
        self.session = session
        self.budget = session.budget
        keys = ((n, k) for n, box in enumerate(spec.boxes) for k in range(len(box.rows.clauses)))
        self.claims: Claims[tuple[int, int]] = Claims(keys, self._over_reals, lambda _: 0.0)
        self.limited = self.grown = False
        self.replayed = 0
        self._scaled: dict[int, RowSet] = {}
        self._networks: dict[int, Network] = {}
        # a clause that implies another one is refuted with it, so only those that imply no other are worked on
        self._implying: list[dict[int, list[int]]] = []
        for box in spec.boxes:
            implying: dict[int, list[int]] = {}
            for k, implied in enumerate(weakest(box.rows)):
                implying.setdefault(implied, []).append(k)
            self._implying.append(implying)
        self._left = [dict.fromkeys(sorted(implying)) for implying in self._implying]

    @property
    def witness(self) -> Witness | None:
        return self.claims.best

    @property
    def running(self) -> bool:
        return self.witness is None and self.budget.running

    @property
    def proved(self) -> bool:
        """Whether every clause is refuted, and no replay says otherwise."""
        return self.witness is None and not any(self._left)

    def open(self, number: int) -> list[int]:
        """The clauses of a box that are not refuted and imply no other one."""
        return list(self._left[number])

    def is_open(self, number: int, clause: int) -> bool:
        """Whether a clause is not refuted."""
        return clause in self._left[number]

    def prove(self, number: int, clause: int) -> None:
        """Notes that no point of a box satisfies a clause, nor any that implies it."""
        self._left[number].pop(clause, None)
        for k in self._implying[number][clause]:
            self.claims.prove((number, k), math.inf)

    def marks(self) -> tuple[tuple[str, ...], ...]:
        """Per box and clause `proved`, `violated` or `unknown`."""
        found = []
        for n, box in enumerate(self.spec.boxes):
            words = ["proved" if math.isinf(self.claims.lowers[n, k]) else "unknown" for k in range(len(box.rows.clauses))]
            w = self.witness
            if w is not None and w.case == n and w.clause is not None:
                words[w.clause] = "violated"
            found.append(tuple(words))
        return tuple(found)

    def take(self, number: int, witness: Witness) -> bool:
        """Takes a point that was judged; whether it is confirmed."""
        assert witness.clause is not None
        self.claims.reach((number, witness.clause), replace(witness, case=number), 0.0)
        return witness.confirmed

    def replay(self, number: int, point: Array) -> bool:
        """Whether the judge confirms a point, which is then the witness."""
        return self.take(number, self.spec.boxes[number].judge.judge(point))

    def confirm(self, number: int, members: tuple[int, ...], point: Array) -> bool:
        """Replays a point; where float32 does not confirm it, searches round it. Whether that gave a witness.

        Args:
            members: the rows of the clause that the point was found for.
        """
        return self.replay(number, point) or self.search_round(number, members, point, _ROUND)

    def search_round(self, number: int, members: tuple[int, ...], point: Array, plan: AttackPlan) -> bool:
        """Whether a search round a point gives a witness; arguments as of `confirm`."""
        plan = replace(plan, seed=self.session.limits.seed)
        return self.search(number, (members,), plan, start=point)

    def search(
        self,
        number: int,
        clauses: tuple[tuple[int, ...], ...],
        plan: AttackPlan,
        start: Array | None = None,
        budget: Budget | None = None,
    ) -> bool:
        """Gradient ascent over a box, or round a point; whether it gave a witness."""
        with self.budget.stage("attack"):
            network, judge = self.margins(number), self.spec.boxes[number].judge
            found = ascend(network, clauses, judge, plan, start=start, budget=budget or self.budget)
        return found is not None and self.take(number, found)

    def rows(self, number: int) -> RowSet:
        """The rows of a box, of ordinary size at its centre, by powers of two."""
        if number not in self._scaled:
            box = self.spec.boxes[number]
            with torch.no_grad():
                y = self.spec.network.forward(torch.as_tensor(box.box.x0).unsqueeze(0))[0].double().numpy()
            self._scaled[number] = in_row_units(box.rows, y, _SMALL_ROW)
        return self._scaled[number]

    def margins(self, number: int) -> Network:
        """The rows of a box and the constant 0 as outputs, hidden layers on one scale."""
        if number not in self._networks:
            box = self.spec.boxes[number].box
            self._networks[number] = rescaled(as_margin_network(self.spec.network, self.rows(number)), box.x0)
        return self._networks[number]

    def row_model(self, number: int, clauses: list[int]) -> Rows:
        """Some clauses of a box, each of its rows an output."""
        members = {k: self.rows(number).clauses[k] for k in clauses}
        return Rows(self.margins(number), len(self.rows(number).b), members)

    def least_model(self, number: int, clauses: list[int]) -> Rows:
        """Some clauses of a box, the smallest row of each an output."""
        rows, box = self.rows(number), self.spec.boxes[number].box
        used = tuple(rows.clauses[k] for k in clauses)
        if all(len(members) == 1 for members in used):
            some = RowSet(rows.A[[m[0] for m in used]], rows.b[[m[0] for m in used]], tuple((i,) for i in range(len(used))))
            network = as_margin_network(self.spec.network, some)
        else:
            network = as_least_network(self.spec.network, replace(rows, clauses=used))
        return Rows(rescaled(network, box.x0), len(used), {k: (i,) for i, k in enumerate(clauses)})

    def replay_inside(self) -> None:
        """Replays points of the boxes after a proof: float32 execution may differ from the network over the real numbers.

        The first box is replayed also where the proof used up the time or the nodes: no proof is told without a replay.
        """
        if not self.proved:
            return
        with self.budget.stage("replay"):
            for number, box in enumerate(self.spec.boxes):
                if self.witness is not None or (number and self.budget.over):
                    return
                points = points_inside(self.spec.network, box.lower, box.upper, self.session.limits.seed)
                self.take(number, box.judge.best(points))
                self.replayed += len(points)

    def float32_only(self, witness: Witness) -> bool:
        """Whether a witness is one by float32 execution alone, by more than rounding of the rows or a jump explains."""
        return self._over_reals(witness) < -_ROUNDING and not at_a_jump(self.spec.network, np.asarray(witness.x))

    def _over_reals(self, witness: Witness) -> float:
        """The smallest row of a witness's clause by float64 evaluation, in units of the rows' sizes at the centre of the box or of
        their terms at the witness, whichever are smaller."""
        assert witness.case is not None
        assert witness.clause is not None
        box, rows = self.spec.boxes[witness.case], self.rows(witness.case)
        point = np.asarray(witness.x, dtype=np.float64).reshape(box.lower.shape)
        with torch.no_grad():
            y = self.spec.network.forward(torch.as_tensor(point).unsqueeze(0))[0].double().numpy()
        members = list(rows.clauses[witness.clause])
        A, b = rows.A[members], rows.b[members]
        terms = np.abs(b) + np.abs(A) @ output_scales(self.spec.network, point)
        return float(np.min((b - A @ y) / np.clip(terms, 1e-300, 1.0)))
