"""One decision about a VNN-LIB property: bounds, then a search for a counterexample, then one MILP per clause that is left."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from onnxsub.lower import lower as lower_model
from onnxsub.model import Model
from onnxsub.ops.base import Array
from onnxsub.properties.fit import check_fits, logit_clause
from onnxsub.properties.property import Property
from onnxsub.properties.rows import row_set
from onnxsub.runtime import Runtime
from onnxsub.verifiers.milp.clause import CaseModel, ClauseModel
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.solvers import Problem, Solution, SolverOptions, SolverStatus, get_solver
from onnxsub.verifiers.property_attack import AttackPlan, Judge, PropertyWitness, ascend
from onnxsub.verifiers.property_result import PropertyResult

__all__ = ["PropertyOptions", "PropertyResult", "decide_property"]

_MOST_UNITS = 1000
"""Cases with more unstable units than this are not tightened: there are several clauses, and each would cost seconds."""


@dataclass(frozen=True)
class PropertyOptions:
    """How the decision is made.

    Attributes:
        milp: options of the verifier, the time limit for everything among them.
        attack: how a counterexample is searched first (only where `milp.attack` says so).
    """

    milp: MilpOptions = field(default_factory=MilpOptions)
    attack: AttackPlan = field(default_factory=AttackPlan)


def decide_property(
    model: Model, question: Property, options: PropertyOptions | None = None, *, tell: Callable[[str], None] | None = None
) -> PropertyResult:
    """`proved` where no input satisfies the property, `violated` with a point that onnxruntime confirmed, else `unknown`.

    Proofs are about the network over the real numbers and the closed clauses (a strict row counts as satisfied at its boundary);
    a witness satisfies the property as it stands, strict rows strictly, with no tolerance. Ctrl-C and the time limit end
    the search with what is known.

    Raises:
        InputError: the property does not fit the model.
        UnsupportedOperatorError: an operator has no bounds or no MILP rows.
        MissingDependencyError, LicenceError, SolverError: of the solver.
    """
    return _Decision(model, question, options or PropertyOptions(), tell).run()


@dataclass(frozen=True, eq=False)
class _Open:
    """A clause that bounds do not refute.

    Attributes:
        number: of its case.
        clause: its number there.
        model: the rows of the case on the network as it is, for the search.
        local: the rows of the clause on the folded network, for the program.
    """

    number: int
    clause: int
    model: CaseModel
    local: ClauseModel


def _past(until: float) -> bool:
    return time.perf_counter() > until


class _Decision:
    """The state of one decision."""

    def __init__(self, model: Model, question: Property, options: PropertyOptions, tell: Callable[[str], None] | None) -> None:
        self.began = time.perf_counter()
        check_fits(question, model)
        self.model = model
        self.question = question
        self.options = options
        self.solver = get_solver(options.milp.solver)
        self.network = lower_model(model)
        self.runtime = Runtime(model, threads=1)
        self.judges = [Judge(self.runtime, case) for case in question.cases]
        self.marks = [["unknown"] * len(case.clauses) for case in question.cases]
        self.witness: PropertyWitness | None = None
        self.rejected: PropertyWitness | None = None
        self.where: int | None = None
        self.stop = threading.Event()
        self.limited = False
        self.nodes = 0
        self.runs = 0
        self.times: dict[str, float] = {}
        self._tell = tell

    @property
    def remaining(self) -> float:
        limit = self.options.milp.timeout
        return math.inf if limit is None else limit - (time.perf_counter() - self.began)

    def running(self) -> bool:
        """Whether the search may go on."""
        return self.witness is None and not self.stop.is_set() and self.remaining > 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start

    def tell(self, text: str) -> None:
        if self._tell is not None:
            self._tell(text)

    def run(self) -> PropertyResult:
        try:
            left = self._by_bounds()
            if self.options.milp.attack:
                for number, model in left:
                    self._attack(number, model)
            self._by_programs([item for number, model in left for item in self._tightened(number, model)])
        except KeyboardInterrupt:
            self.stop.set()
        return self._result()

    def _by_bounds(self) -> list[tuple[int, CaseModel]]:
        """Marks what bounds refute; the cases that are left, reduced to their open clauses."""
        left = []
        for number, case in enumerate(self.question.cases):
            if not self.running():
                break
            self.tell(f"bounds of case {number + 1} of {len(self.question.cases)}")
            with self.stage("bounds"):
                clauses = tuple(logit_clause(c, self.model, self.question.where) for c in case.clauses)
                lower, upper = (end.reshape(self.network.input_shape) for end in (case.lower, case.upper))
                model = CaseModel.over(self.network, row_set(clauses), lower, upper, self.options.milp.bounds_method)
            for clause in range(len(clauses)):
                if clause not in model.open:
                    self.marks[number][clause] = "proved"
            if model.open:
                left.append((number, model))
        # the case that is most likely to hold a counterexample comes first
        return sorted(left, key=lambda item: -max(item[1].promise(c) for c in item[1].open))

    def _attack(self, number: int, model: CaseModel) -> None:
        if not self.running():
            return
        self.tell(f"searching for a counterexample ({len(model.open)} clauses are open)")
        # a third of what is left, so that a proof gets its turn
        until = time.perf_counter() + self.remaining / 3
        with self.stage("attack"):
            clauses = tuple(model.rows.clauses[c] for c in model.open)
            plan = replace(self.options.attack, seed=self.options.milp.seed)
            found = ascend(model.network, clauses, self.judges[number], plan, late=functools.partial(_past, until))
        if found is not None:
            self._accept(number, found)

    def _tightened(self, number: int, model: CaseModel) -> list[_Open]:
        """The open clauses of a case, folded and tightened; those that this refutes are marked."""
        if not self.running():
            return []
        with self.stage("bounds"):
            folded = model.folded(self.options.milp)
        left = []
        clauses = model.open
        for i, clause in enumerate(clauses):
            if not self.running():
                break
            local = None
            if folded.promise(clause) >= 0:
                self.tell(f"clause {clause + 1}: tightening the bounds")
                # half of the time, in equal parts, so that the programs get theirs
                until = time.perf_counter() + self.remaining / (2 * (len(clauses) - i))
                tight = self.options.milp.tighten and folded.unstable <= _MOST_UNITS
                with self.stage("bounds"):
                    local = folded.clause(clause, tight=tight, late=functools.partial(_past, until))
            if local is None:
                self.marks[number][clause] = "proved"
            else:
                left.append(_Open(number, clause, model, local))
        return left

    def _by_programs(self, left: list[_Open]) -> None:
        """One MILP per clause with equal shares of the time, the easy ones first: what they leave over is for the hard ones."""
        left = sorted(left, key=lambda item: item.local.binaries)
        spent: dict[int, float] = {}
        for _ in range(2):
            todo = [item for item in left if self.marks[item.number][item.clause] == "unknown"]
            for i, item in enumerate(todo):
                limit = self.remaining / (len(todo) - i)
                # a run that is not longer than the last one would end where that did
                if self.running() and limit > 1.5 * spent.get(id(item), 0.0):
                    spent[id(item)] = limit
                    self._decide(item, limit)

    def _decide(self, item: _Open, limit: float) -> None:
        local = item.local
        self.tell(f"clause {item.clause + 1}: is it satisfiable? ({local.binaries} binaries)")
        with self.stage("build"):
            problem = local.decision()
        solution = self._solve(local, problem, limit)
        if solution.status.proves_empty:
            self.marks[item.number][item.clause] = "proved"
        elif solution.x is not None:
            self._confirm(item, local.point(solution.x))

    def _solve(self, local: ClauseModel, problem: Problem, limit: float) -> Solution:
        milp = self.options.milp
        options = SolverOptions(
            time_limit=None if math.isinf(limit) else max(limit, 1e-3),
            threads=milp.threads,
            seed=milp.seed,
            abs_gap=1e-6 * local.scale,
            # a point is enough once its rows are beyond what float32 rounds away
            stop_at=-1e-4 * local.scale,
            feasibility=milp.feasibility,
            integrality=milp.integrality,
        )
        with self.stage("solve"):
            solution = self.solver.solve(problem, options, self.stop)
        self.limited |= solution.status is SolverStatus.TIME_LIMIT
        self.nodes += solution.nodes
        self.runs += 1
        return solution

    def _confirm(self, item: _Open, point: Array) -> None:
        """Replays a point of a program; where float32 does not confirm it, searches round it."""
        judge = self.judges[item.number]
        found: PropertyWitness | None = judge.judge(point)
        if found is not None and not found.confirmed:
            self.rejected = found
            plan = AttackPlan(growth=(0.0,), noise=(0.0,), restarts=8, steps=30, seed=self.options.milp.seed)
            rows = (item.model.rows.clauses[item.clause],)
            with self.stage("attack"):
                found = ascend(item.model.network, rows, judge, plan, start=point)
        if found is not None:
            self._accept(item.number, found)

    def _accept(self, number: int, found: PropertyWitness) -> None:
        self.witness, self.where = found, number
        self.marks[number][found.clause] = "violated"

    def _result(self) -> PropertyResult:
        marks = tuple(tuple(m) for m in self.marks)
        open_ = sum(m == "unknown" for case in marks for m in case)
        total = sum(len(case) for case in marks)
        timed_out = self.witness is None and open_ > 0 and (self.limited or self.remaining <= 0)
        if self.witness is not None:
            status, reason = "violated", "a point of the box satisfies the property, confirmed by onnxruntime on the file"
        elif open_ == 0:
            by = "bounds" if self.runs == 0 else "bounds and infeasible programs"
            status, reason = "proved", f"{by} exclude all {total} clauses"
        else:
            status = "unknown"
            why = "the time limit ended it" if timed_out else "the verifier could not decide"
            if self.stop.is_set():
                why = "interrupted"
            elif self.rejected is not None and not timed_out:
                why = f"a point was found that onnxruntime does not confirm (row {self.rejected.margin:.2g})"
            reason = f"{open_} of {total} clauses are undecided: {why}"
        head = {
            "model": {"path": None if self.model.path is None else str(self.model.path), "sha256": self.model.sha256},
            "property": {"path": self.question.where, "version": self.question.version, "clauses": total},
        }
        return PropertyResult(
            status=status,
            reason=reason,
            question=self.question,
            witness=self.witness or self.rejected,
            case=self.where,
            clauses=marks,
            solver=self.solver.name,
            nodes=self.nodes,
            runs=self.runs,
            timed_out=timed_out,
            interrupted=self.stop.is_set(),
            time_s={**self.times, "total": time.perf_counter() - self.began},
            settings=self.options.milp.to_json(),
            head=head,
        )
