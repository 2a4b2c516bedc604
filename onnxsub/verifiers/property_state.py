"""The state of one decision about a property: what is proved of each clause, the best point, the clock, and the solver."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

from onnxsub.lower import lower as lower_model
from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.properties.fit import check_fits, logit_clause
from onnxsub.properties.property import Property
from onnxsub.properties.rows import RowSet, row_set
from onnxsub.runtime import Runtime
from onnxsub.verifiers.milp.options import MilpOptions
from onnxsub.verifiers.milp.solvers import Problem, Solution, SolverOptions, get_solver
from onnxsub.verifiers.property_attack import AttackPlan, Judge, Judging, PropertyWitness, ascend

__all__ = ["PropertyState"]

_ROUND = AttackPlan(growth=(0.0,), noise=(0.0,), restarts=8, steps=30)
"""The search round a point that float32 does not confirm."""


class PropertyState:
    """One decision in the making.

    Args:
        network: what the clauses of `question` speak of, where that is not the file's own network: a network over the same input
            shape with other units or outputs. Then nothing is checked against the file.
        judges: with `network`: who replays the points of each case.

    Attributes:
        rows: per case the rows of its clauses over the network's output.
        judges: per case who replays its points.
        marks: per case and clause `proved`, `violated` or `unknown`.
        witness: a confirmed point; its case is `where`.
        rejected: the latest point that onnxruntime did not confirm.
        stop: set by Ctrl-C.
        limited: the last program of a clause ended at its time limit.
        nodes, runs: of the exact verifier, and how many programs were solved.
    """

    def __init__(
        self,
        model: Model,
        question: Property,
        options: MilpOptions,
        tell: Callable[[str], None] | None,
        *,
        network: Network | None = None,
        judges: Sequence[Judging] | None = None,
    ) -> None:
        self.began = time.perf_counter()
        self.model = model
        self.question = question
        self.options = options
        self.solver = get_solver(options.solver)
        self.judges: Sequence[Judging]
        self.rows: list[RowSet]
        if network is None:
            check_fits(question, model)
            runtime = Runtime(model, threads=1)
            self.judges = [Judge(runtime, case) for case in question.cases]
            self.rows = [row_set(tuple(logit_clause(c, model, question.where) for c in case.clauses)) for case in question.cases]
        else:
            assert judges is not None
            self.network = network
            self.judges = judges
            self.rows = [row_set(case.clauses) for case in question.cases]
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

    @cached_property
    def network(self) -> Network:
        """The network of the file.

        Raises:
            UnsupportedOperatorError: an operator is not in the table.
        """
        return lower_model(self.model)

    @property
    def remaining(self) -> float:
        """Seconds left."""
        limit = self.options.timeout
        return math.inf if limit is None else limit - (time.perf_counter() - self.began)

    def running(self) -> bool:
        """Whether the search may go on."""
        return self.witness is None and not self.stop.is_set() and self.remaining > 0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Books the seconds of a block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start

    def tell(self, text: str) -> None:
        """Progress."""
        if self._tell is not None:
            self._tell(text)

    def box(self, number: int) -> tuple[Array, Array]:
        """The box of a case, `(*input_shape)`."""
        case = self.question.cases[number]
        return case.lower.reshape(self.model.input_shape), case.upper.reshape(self.model.input_shape)

    def prove(self, number: int, clause: int) -> None:
        """Notes that no input of a case satisfies a clause."""
        self.marks[number][clause] = "proved"

    def unknown(self, number: int) -> list[int]:
        """The clauses of a case that are open."""
        return [k for k, mark in enumerate(self.marks[number]) if mark == "unknown"]

    def accept(self, number: int, found: PropertyWitness) -> None:
        """Takes a confirmed point."""
        self.witness, self.where = found, number
        self.marks[number][found.clause] = "violated"

    def replay(self, number: int, point: Array) -> bool:
        """Whether onnxruntime confirms a point, which is then the witness."""
        found = self.judges[number].judge(point)
        if found.confirmed:
            self.accept(number, found)
        else:
            self.rejected = found
        return found.confirmed

    def confirm(self, number: int, network: Network, members: tuple[int, ...], point: Array) -> bool:
        """Replays a point; where float32 does not confirm it, searches round it. Whether that gave a witness.

        Args:
            network: the rows of the case on the network as it is.
            members: the rows of the clause that the point was found for.
        """
        return self.replay(number, point) or self.search_round(number, network, members, point, _ROUND)

    def search_round(self, number: int, network: Network, members: tuple[int, ...], point: Array, plan: AttackPlan) -> bool:
        """Whether a search round a point gives a witness; arguments as of `confirm`."""
        with self.stage("attack"):
            found = ascend(network, (members,), self.judges[number], replace(plan, seed=self.options.seed), start=point)
        if found is not None:
            self.accept(number, found)
        return found is not None

    def solve(self, problem: Problem, scale: float, limit: float) -> Solution:
        """One run about `max row`, for at most `limit` seconds.

        Args:
            scale: size of the rows, at least 1.
        """
        o = self.options
        options = SolverOptions(
            time_limit=None if math.isinf(limit) else max(limit, 1e-3),
            threads=o.threads,
            seed=o.seed,
            abs_gap=1e-6 * scale,
            # a point is enough once its rows are beyond what float32 rounds away
            stop_at=-1e-4 * scale,
            feasibility=o.feasibility,
            integrality=o.integrality,
        )
        with self.stage("solve"):
            solution = self.solver.solve(problem, options, self.stop)
        self.nodes += solution.nodes
        self.runs += 1
        return solution
