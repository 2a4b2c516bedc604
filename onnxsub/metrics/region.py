r"""The distance to the decision boundary within the linear region of the anchor (Bastani et al. 2016, section 3 and 4).

    d_C = min over t != y of  min { |x - x0|_inf : x in C, x in domain, f_t(x) >= f_y(x) },

C the closed region round `x0` on which every unit keeps its affine piece (`region_cell.py`). There f is affine, so each inner
minimum is a linear program. C lies in the domain of f, hence `d_bnd <= d_C`: an upper bound that costs milliseconds, infinite
where no other class is reached before a unit changes its piece, and no proof of anything beyond that.

Facets are added as they are found to be violated, the first ones on the way from the anchor first (section 4.2 there: "iterative
constraint solving"); a program over all of them has the same solution.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.instance import Instance
from onnxsub.metrics.pointwise import Rho
from onnxsub.metrics.region_cell import Cell
from onnxsub.metrics.region_program import Nearest
from onnxsub.ops.base import Array
from onnxsub.query import Query
from onnxsub.results import VERSION, jsonable
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.witness import Witness

__all__ = ["RegionOptions", "RegionResult", "RegionTarget", "region_distance"]

_SAME = 1e-9  # relative growth of a radius that counts as none


@dataclass(frozen=True)
class RegionOptions:
    """How the region is searched.

    Attributes:
        batch: facets added between two programs, at most.
        nearest_only: stop with a class as soon as it is proved to be farther than another one.
        limit: stop with a class as soon as it is proved to be farther than this, in un-normalised input units.
        tol: a strict witness is preferred to a tie at this cost of distance, in un-normalised input units.
        timeout: seconds for everything; None for none.
    """

    batch: int = 100
    nearest_only: bool = False
    limit: float = math.inf
    tol: float = 1e-6
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"region: batch is {self.batch}; give at least 1")
        if not (math.isfinite(self.tol) and self.tol > 0):
            raise InputError(f"region: tol {self.tol} must be a positive number")
        if not self.limit > 0:
            raise InputError(f"region: the largest radius is {self.limit}; give a positive number")
        if self.timeout is not None and not self.timeout > 0:
            raise InputError(f"region: timeout is {self.timeout}; give a positive number of seconds")


@dataclass(frozen=True)
class RegionTarget:
    """One other class t.

    Attributes:
        distance: of the nearest point of the region with `f_t >= f_y`, over the real numbers; infinite where there is none or
            none is known.
        lower: no such point of the region is nearer.
        status: `reached`, `none` (no such point in region and domain), `cutoff` (farther than another class or
            the limit), `bracket` (the time limit ended it, or the solver found no optimum).
        facets: rows of its last program.
        rounds: programs solved.
    """

    distance: float
    lower: float
    status: str
    facets: int
    rounds: int


@dataclass(frozen=True, eq=False)
class RegionResult:
    """An upper bound of `d_bnd`.

    Attributes:
        status: `reached` (`witness` is confirmed), `none` (no class is reached within the region, or within the limit), `bracket`
            (the time limit came before a class was reached), `rejected` (points were found, and no replay confirmed one),
            `misclassified` (distance 0).
        distance: of `witness`, `d_bnd <= distance`; infinite where no point was confirmed.
        witness: the nearest point that a replay by onnxruntime confirms; a rejected one where none was.
        targets: per other class.
        time_s: `total`, `cell`.
        settings, head: the options, and the keys `model` and `anchor` of the contract.
    """

    status: str
    distance: float
    witness: Witness | None
    targets: Mapping[int, RegionTarget]
    time_s: Mapping[str, float]
    settings: Mapping[str, Any]
    head: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def rounds(self) -> int:
        """Programs solved, all classes together."""
        return sum(t.rounds for t in self.targets.values())

    @property
    def rho(self) -> Rho:
        """What it says of the distance: nothing from below."""
        return Rho(0.0, self.distance, misclassified=self.status == "misclassified")

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.region/1`; infinite distances are null."""
        document: dict[str, Any] = jsonable(
            {
                "schema": "onnxsub.region/1",
                "version": VERSION,
                **self.head,
                "status": self.status,
                "distance": self.distance,
                "adversarial_label": self.witness.label if self.witness is not None and self.witness.confirmed else None,
                "witness": None if self.witness is None else self.witness.to_json(),
                "targets": {str(t): asdict(r) for t, r in sorted(self.targets.items())},
                "rounds": self.rounds,
                "settings": dict(self.settings),
                "time_s": dict(self.time_s),
            }
        )
        return document


def region_distance(query: Query, options: RegionOptions | None = None, *, budget: Budget | None = None) -> RegionResult:
    """The smallest L-inf distance at which another class is reached within the linear region of the anchor, replayed.

    Args:
        budget: of what it belongs to; `options.timeout` is a part of it.

    Raises:
        UnsupportedOperatorError: the network is not piecewise linear.
    """
    options = options or RegionOptions()
    start = time.perf_counter()
    budget = (budget or Budget()).part(math.inf if options.timeout is None else options.timeout)
    if query.misclassified:
        margin, label = query.margins(query.x0[None])
        witness = Witness(query.x0, 0.0, int(label[0]), float(margin[0]), "strict" if margin[0] > 0 else "tie")
        return RegionResult("misclassified", 0.0, witness, {}, {"total": 0.0}, asdict(options), query.json_head())
    x0 = query.x0.astype(np.float64)
    cell = Cell(query.network, x0)
    built = time.perf_counter() - start
    referee = Referee(Instance.of(query))
    low, high = (end.reshape(-1) - x0.reshape(-1) for end in query.space.ends(x0.shape))
    searches = {t: _Search(cell, Nearest(*cell.margin(query.label, t), low, high), options) for t in query.targets}
    targets: dict[int, RegionTarget] = {}
    best: Witness | None = None
    # the classes that look nearest first, so that a near witness cuts off the others
    for t, search in sorted(searches.items(), key=lambda item: item[1].program.radius):
        cutoff = best.radius if options.nearest_only and best is not None and best.confirmed else math.inf
        targets[t], offset = search.run(min(cutoff, options.limit), budget)
        if offset is None:
            continue
        found = referee.settle(x0 + offset.reshape(x0.shape), tol=options.tol)
        if best is None or (found.confirmed, -found.radius) > (best.confirmed, -best.radius):
            best = found
    times = {"total": time.perf_counter() - start, "cell": built}
    confirmed = best is not None and best.confirmed
    distance = best.radius if best is not None and confirmed else math.inf
    return RegionResult(
        _status(targets, best), distance, best, targets, times, asdict(options), query.json_head()
    )  # fmt: skip


def _status(targets: Mapping[int, RegionTarget], best: Witness | None) -> str:
    if best is not None and best.confirmed:
        return "reached"
    if any(t.status == "bracket" for t in targets.values()):
        return "bracket"
    return "none" if best is None else "rejected"


class _Search:
    """One class: programs and facets in turn, until the program's point lies in the region."""

    def __init__(self, cell: Cell, program: Nearest, options: RegionOptions) -> None:
        self.program = program
        self._cell = cell
        self._batch = options.batch

    def run(self, cutoff: float, budget: Budget) -> tuple[RegionTarget, Array | None]:
        """What is known of the class, and the nearest point as an offset from the anchor where it is reached."""
        program, cell = self.program, self._cell
        known = cell.none_known()
        offset, settled = program.plain(), True
        while math.isfinite(program.radius):
            if program.radius >= cutoff:
                return self._target(math.inf, "cutoff"), None
            if budget.over:
                return self._target(math.inf, "bracket"), None
            fresh = cell.crossed(offset, self._batch, known)
            if settled and not fresh:
                return self._target(float(np.abs(offset).max()), "reached"), offset
            if fresh:
                program.add(*cell.rows(fresh))
            before = program.radius
            point = program.solve(budget.remaining)
            if point is None:
                return self._target(math.inf, "bracket"), None
            # at a smaller radius than the final one the point is short of the half-space
            offset, settled = point, program.radius <= before * (1 + _SAME)
        return self._target(math.inf, "none"), None

    def _target(self, distance: float, status: str) -> RegionTarget:
        p = self.program
        return RegionTarget(distance, p.radius, status, p.rows, p.runs)
