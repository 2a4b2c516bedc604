"""Importance scores: the program is solved, tangents of the loss are added where it was too cheap, until bound and value meet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp, softmax

from onnxsub.budget import Budget
from onnxsub.compress.options import ImportanceOptions, LayerScores, Round
from onnxsub.compress.program import ScoreProgram, build_program, size_of
from onnxsub.errors import InputError, SolverError
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.ops.encoding import LinExpr
from onnxsub.verifiers.programs.solvers import Problem, SolverOptions, SolverStatus, get_solver

__all__ = ["Solved", "check_size", "importance_scores"]

Report = Callable[[float, str], None]

_COEFFICIENTS = 100
"""Non-zero coefficients that weigh as much as one binary where none is one."""


@dataclass(frozen=True, eq=False)
class Solved:
    """Scores per layer, and how they were found; the attributes are those of `ImportanceResult`."""

    layers: tuple[LayerScores, ...]
    status: str
    value: float
    bound: float
    rounds: tuple[Round, ...]
    size: dict[str, int]


def check_size(network: Network, images: int, options: ImportanceOptions) -> None:
    """Raises InputError for a program that the solver is not likely to end: its size, and what to do."""
    size = size_of(network, images)
    exact = options.binaries == "exact"
    load = size.binaries if exact else size.coefficients // _COEFFICIENTS
    if load <= options.limit:
        return
    remedy = "--binaries relaxed, or fewer" if exact else "fewer"
    fit = max(1, images * options.limit // load)
    raise InputError(
        f"the program of {images} images has {size.binaries:,} binaries and about {size.coefficients:,} coefficients, too many for "
        f"{options.solver}; give {remedy} --images (about {fit}), or a higher --most (now {options.limit:,})"
    )


def importance_scores(
    network: Network, x: Array, labels: Array, options: ImportanceOptions, *,
    budget: Budget | None = None, progress: Report | None = None,
) -> Solved:
    """Scores of all units for the images `x` `(B, *input_shape)` (as the network is fed) with classes `labels`.

    Raises:
        InputError: the program is too large. SolverError: the solver failed, or found nothing within the limit.
        UnsupportedOperatorError: see `build_program`. MissingDependencyError: the solver is not installed.
    """
    budget = budget or Budget()
    check_size(network, len(x), options)
    get_solver(options.solver)
    program = build_program(network, x, labels, options.weight, options.radius)
    cuts = _Tangents(program)
    cuts.add(np.zeros((len(x), network.classes)))
    rounds: list[Round] = []
    best: tuple[float, Array] | None = None
    bound, status = -math.inf, "rounds"
    size: dict[str, int] = {}
    # the relaxation costs little and finds most of the tangents that the exact program wants
    stages = ("relaxed",) if options.binaries == "relaxed" else ("relaxed", "exact")
    for stage in stages:
        final = stage == stages[-1]
        if final:
            best, bound = None, -math.inf
        for _ in range(options.rounds):
            began = time.perf_counter()
            problem = cuts.problem(exact=stage == "exact")
            size = {
                "columns": problem.columns, "rows": problem.rows, "binaries": problem.binaries, "coefficients": int(problem.A.nnz),
            }  # fmt: skip
            found = _solve(problem, options, budget, best)
            if found is None:
                status = "timeout"
                break
            columns, proved, ended, nodes = found
            logits, value = cuts.value(columns)
            if final and ended:
                bound = max(bound, proved)
            if best is None or value < best[0]:
                best = value, columns
            rounds.append(Round(proved, value, cuts.count, nodes, time.perf_counter() - began))
            if progress is not None:
                said = f"{stage}: round {len(rounds)}, objective {value:.5g}, bound {proved:.5g}"
                progress(stages.index(stage) / len(stages), said)
            if not ended:
                status = "timeout"
                bound = max(bound, proved) if final else bound
                break
            if best[0] - proved <= options.gap * max(1.0, abs(best[0])):
                status = "optimal"
                break
            cuts.add(logits)
        if status == "timeout":
            break
    if best is None:
        raise SolverError(f"{options.solver} found no scores within the time; give a longer --timeout, or --binaries relaxed")
    value, columns = best
    layers = tuple(_layer(name, s, columns, network) for name, s in program.scores.items())
    return Solved(layers, status, value, bound, tuple(rounds), size)


def _layer(name: str, columns: LinExpr, x: Array, network: Network) -> LayerScores:
    kind = "channel" if len(network.shapes[name]) > 1 else "unit"
    return LayerScores(name, kind, np.clip(x[columns.matrix.indices], 0.0, 1.0))


class _Tangents:
    """The program with the tangents so far: `t_k >= lse(f0) + softmax(f0) (f - f0) - f_y` at every point f0 that was added."""

    def __init__(self, program: ScoreProgram) -> None:
        self._program = program
        self._rows: list[LinExpr] = []
        self.count = 0

    def add(self, at: Array) -> None:
        """One tangent per image at the logits `at` `(B, classes)`."""
        for k, (f0, f, label) in enumerate(zip(at, self._program.logits, self._program.labels, strict=True)):
            slope = softmax(f0)
            constant = float(logsumexp(f0) - slope @ f0)
            slope[int(label)] -= 1.0
            row = self._program.loss.take(np.array([k])) - f.apply(sp.csr_array(slope[None]))
            self._rows.append(row.shift(np.array([-constant])))
            self.count += 1

    def problem(self, *, exact: bool) -> Problem:
        """The program as it stands."""
        stacked = LinExpr.stack(self._rows)
        p = self._program.model.problem(self._program.objective, (stacked, 0.0, np.inf))
        return p if exact else replace(p, integer=np.zeros(p.columns, dtype=bool))

    def value(self, columns: Array) -> tuple[Array, float]:
        """The logits of a solution, `(B, classes)`, and its objective with the true loss."""
        program = self._program
        logits = np.stack([_at(f, columns) for f in program.logits])
        own = logits[np.arange(len(logits)), program.labels.astype(np.int64)]
        loss = float((logsumexp(logits, axis=1) - own).sum())
        return logits, program.weight * loss + float(_at(program.sparsity, columns)[0])


def _at(expression: LinExpr, columns: Array) -> Array:
    value: Array = expression.widened(len(columns)).matrix @ columns + expression.constant
    return value


def _solve(
    problem: Problem, options: ImportanceOptions, budget: Budget, best: tuple[float, Array] | None
) -> tuple[Array, float, bool, int] | None:
    """Columns, proved bound, whether the solver ended by itself, nodes; None where nothing was found in time."""
    remaining = budget.remaining
    if not budget.running or remaining <= 0:
        return None
    limit = None if math.isinf(remaining) else remaining
    start = None if best is None or not problem.binaries else best[1]
    settings = SolverOptions(
        time_limit=limit, threads=options.threads, seed=options.seed, rel_gap=options.gap / 4, abs_gap=options.gap / 4, start=start,
        feasibility=1e-7, integrality=1e-6,
    )  # fmt: skip
    solution = get_solver(options.solver).solve(problem, settings, budget.stop)
    if solution.status in (SolverStatus.INFEASIBLE, SolverStatus.UNBOUNDED, SolverStatus.UNKNOWN):
        word = solution.status.name.lower()
        raise SolverError(f"{options.solver} says {word} of a program that has a solution; try another --solver")
    if solution.x is None:
        return None
    return solution.x, solution.bound, solution.status is SolverStatus.OPTIMAL, solution.nodes
