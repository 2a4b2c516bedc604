"""The same problems, with known answers, through every solver."""

from __future__ import annotations

import _thread
import importlib
import itertools
import math
import threading
import time

import numpy as np
import pytest
import scipy.sparse as sp

from onnxsub.errors import InputError, LicenceError, MissingDependencyError, SolverError
from onnxsub.verifiers.options import ExactOptions, Limits
from onnxsub.verifiers.programs.solvers import SOLVERS, Capability, Problem, Solver, SolverOptions, SolverStatus, get_solver
from onnxsub.verifiers.programs.solvers import gurobi as gurobi_module
from onnxsub.verifiers.programs.solvers import highs as highs_module
from onnxsub.verifiers.programs.solvers import scip as scip_module
from onnxsub.verifiers.session import Session
from tests.verifiers.nets import dense, logits, measured

INF = math.inf


@pytest.fixture(params=sorted(SOLVERS))
def solver(request: pytest.FixtureRequest) -> Solver:
    found = SOLVERS[request.param]
    if not found.is_available():
        pytest.skip(f"{found.package} is not installed")
    return found


def problem(c, a, rows, columns, integer=None, offset=0.0) -> Problem:
    c = np.asarray(c, dtype=float)
    a = np.asarray(a, dtype=float).reshape(-1, len(c))
    rows, columns = np.asarray(rows, dtype=float).reshape(-1, 2), np.asarray(columns, dtype=float)
    whole = np.zeros(len(c), dtype=bool) if integer is None else np.asarray(integer, dtype=bool)
    return Problem(c, offset, sp.csc_array(a), rows[:, 0], rows[:, 1], columns[:, 0], columns[:, 1], whole)


LP = problem([-1, -2], [[1, 1], [1, 3]], [[-INF, 4], [-INF, 6]], [[0, 3], [0, INF]], offset=1.0)
EQUALITY = problem([1, 1, 0], [[1, -1, 1]], [[2, 2]], [[0, 5], [0, 5], [-1, 1]])
RANGE = problem([1, 1], [[1, 2]], [[3, 4]], [[0, 10], [0, 10]])
MIP = problem([-5, -4, -3], [[2, 3, 1], [4, 1, 2], [3, 4, 2]], [[-INF, 5], [-INF, 11], [-INF, 8]], [[0, 10]] * 3, [1, 1, 1])
MIXED = problem([-1, -1], [[2, 2]], [[-INF, 5]], [[0, 3], [0, 0.25]], [1, 0])
NEGATIVE = problem([1, 0], [[1, 1]], [[-3.5, INF]], [[-10, 10], [0, 1]], [1, 1])


@pytest.mark.parametrize(
    ("p", "value"),
    [(LP, -4.0), (EQUALITY, 1.0), (RANGE, 1.5), (MIP, -13.0), (MIXED, -2.25), (NEGATIVE, -4.0)],
    ids=["lp", "equality", "range", "mip", "mixed", "negative"],
)
def test_optimum(solver: Solver, p: Problem, value: float) -> None:
    s = solver.solve(p, SolverOptions(threads=1))
    assert s.status is SolverStatus.OPTIMAL
    assert s.objective == pytest.approx(value, abs=1e-6)
    assert s.bound == pytest.approx(value, abs=1e-6)
    assert s.bound <= s.objective
    assert s.x is not None
    assert p.objective(s.x) == pytest.approx(value, abs=1e-6)
    activity = p.A @ s.x
    assert (activity >= p.row_lower - 1e-6).all()
    assert (activity <= p.row_upper + 1e-6).all()


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("power", [-1000, -60, -40, 60])
def test_a_program_does_not_hang_on_the_unit_of_its_costs(power: int, integer: bool) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        A, c, whole = sp.csc_array(rng.normal(size=(6, 8))), rng.normal(size=8), np.zeros(8, dtype=np.bool_)
        whole[:3] = integer
        rows = np.full(6, -0.5), np.full(6, np.inf)
        found = []
        for e in (0, power):
            problem = Problem(np.ldexp(c, e), math.ldexp(1.0, e), A, *rows, np.zeros(8), np.ones(8), whole)
            found.append(Session(ExactOptions(Limits(threads=1))).solve(problem, SolverOptions(abs_gap=math.ldexp(1e-7, e))))
        first, second = found
        assert first.status == second.status == SolverStatus.OPTIMAL
        assert first.objective is not None
        assert second.objective is not None
        assert math.ldexp(second.bound, -power) == pytest.approx(first.bound, rel=1e-6)
        assert math.ldexp(second.objective, -power) == pytest.approx(first.objective, rel=1e-6)


@pytest.mark.parametrize("integer", [False, True])
def test_infeasible(solver: Solver, integer: bool) -> None:
    p = problem([1, 1], [[1, 1], [1, -1]], [[3, INF], [0, 0]], [[0, 1], [0, 1]], [integer] * 2)
    s = solver.solve(p, SolverOptions())
    assert (s.status, s.x, s.objective, s.bound) == (SolverStatus.INFEASIBLE, None, None, INF)
    assert s.status.proves_empty


def test_infeasible_only_for_integers(solver: Solver) -> None:
    p = problem([0, 0], [[2, 2]], [[3, 3]], [[0, 5], [0, 5]], [1, 1])
    assert solver.solve(p, SolverOptions()).status is SolverStatus.INFEASIBLE


def test_crossed_ends_are_infeasible(solver: Solver) -> None:
    p = problem([1], [[1]], [[0, 1]], [[2, 1]])
    assert solver.solve(p, SolverOptions()).status is SolverStatus.INFEASIBLE


@pytest.mark.parametrize("integer", [False, True])
def test_unbounded_proves_nothing(solver: Solver, integer: bool) -> None:
    p = problem([-1, -1], [[1, -1]], [[-2, 2]], [[0, INF], [0, INF]], [integer, False])
    s = solver.solve(p, SolverOptions())
    assert s.status in (SolverStatus.UNBOUNDED, SolverStatus.UNKNOWN)
    assert s.bound == -INF
    assert not s.status.proves_empty


def test_infeasible_or_unbounded_is_told_apart(solver: Solver) -> None:
    p = problem([-1, -1], [[1, -1], [1, -1]], [[-2, 2], [3, INF]], [[0, INF], [0, INF]])
    assert solver.solve(p, SolverOptions()).status is SolverStatus.INFEASIBLE


def test_cutoff(solver: Solver) -> None:
    below = solver.solve(MIP, SolverOptions(cutoff=-13.5))
    assert (below.status, below.bound) == (SolverStatus.CUTOFF, -13.5)
    above = solver.solve(MIP, SolverOptions(cutoff=-12.5))
    assert above.status is SolverStatus.OPTIMAL
    assert above.objective == pytest.approx(-13.0, abs=1e-6)
    one = problem([2, 0], [[1, 1]], [[1, INF]], [[0, 5], [0, 0.25]], offset=1.0)
    assert solver.solve(one, SolverOptions(cutoff=2.4)).status is SolverStatus.CUTOFF
    assert solver.solve(one, SolverOptions(cutoff=2.6)).objective == pytest.approx(2.5, abs=1e-6)


def test_start_point(solver: Solver) -> None:
    assert Capability.START in solver.capabilities
    s = solver.solve(MIP, SolverOptions(start=np.array([1.0, 1.0, 0.0])))
    assert s.objective == pytest.approx(-13.0, abs=1e-6)


def test_thread_counts_may_differ_between_runs(solver: Solver) -> None:
    for threads in (1, 2, None, 1):
        assert solver.solve(MIP, SolverOptions(threads=threads)).objective == pytest.approx(-13.0, abs=1e-6)


def split(n: int = 40, m: int = 4) -> Problem:
    """Market split: small, and out of reach of every solver in a few seconds."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 100, (m, n)).astype(float)
    half = np.floor(a.sum(axis=1) / 2)
    matrix = np.hstack([a, np.eye(m), -np.eye(m)])
    columns = [[0, 1]] * n + [[0, 1e4]] * (2 * m)
    return problem(np.r_[np.zeros(n), np.ones(2 * m)], matrix, np.stack([half, half], 1), columns, [1] * n + [0] * (2 * m))


def test_time_limit_keeps_the_bracket(solver: Solver) -> None:
    s = solver.solve(split(), SolverOptions(time_limit=0.5, threads=1))
    assert s.status is SolverStatus.TIME_LIMIT
    assert -1e-6 <= s.bound <= (INF if s.objective is None else s.objective)


def test_node_limit_keeps_the_bracket(solver: Solver) -> None:
    s = solver.solve(split(), SolverOptions(time_limit=60, nodes=3, threads=1))
    assert s.status is SolverStatus.NODE_LIMIT
    assert -1e-6 <= s.bound <= (INF if s.objective is None else s.objective)


def test_a_node_limit_bounds_the_root_too(solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each: a single pivot, two rounds of cuts at the root, a breath of Gurobi's own clock."""
    monkeypatch.setattr(Problem, "most_iterations", lambda self, nodes: 1)
    monkeypatch.setattr(Problem, "most_rounds", lambda self, nodes: 2)
    monkeypatch.setattr(gurobi_module, "_WORK", 1e-6)
    runs = [solver.solve(split(), SolverOptions(time_limit=60, nodes=50, threads=1)) for _ in range(2)]
    assert runs[0].status is SolverStatus.NODE_LIMIT
    assert runs[0].bound <= (INF if runs[0].objective is None else runs[0].objective)
    assert (runs[0].status, runs[0].bound, runs[0].nodes) == (runs[1].status, runs[1].bound, runs[1].nodes)


def test_rounds_of_cuts_at_the_root_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    solver = get_solver("highs")
    free = solver.solve(split(), SolverOptions(nodes=50, threads=1))
    monkeypatch.setattr(Problem, "most_rounds", lambda self, nodes: 2)
    cut = solver.solve(split(), SolverOptions(nodes=50, threads=1))
    assert free.nodes >= 50
    assert (cut.status, cut.nodes) == (SolverStatus.NODE_LIMIT, 0)


def test_event_stops_a_run(solver: Solver) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    s = solver.solve(split(), SolverOptions(time_limit=60, threads=1), stop)
    timer.join()
    assert s.status is SolverStatus.INTERRUPTED
    assert s.bound >= -1e-6
    assert solver.solve(MIP, SolverOptions(), stop).status is SolverStatus.INTERRUPTED


def test_ctrl_c_stops_a_run_and_is_told_by_the_event(solver: Solver) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, _thread.interrupt_main)
    timer.start()
    s = solver.solve(split(), SolverOptions(time_limit=60, threads=1), stop)
    timer.join()
    assert s.status is SolverStatus.INTERRUPTED
    assert stop.is_set()


def test_stop_at(solver: Solver) -> None:
    s = solver.solve(split(), SolverOptions(time_limit=30, threads=1, stop_at=60.0))
    assert s.status is SolverStatus.TARGET
    assert s.objective is not None
    assert s.objective <= 60.0 + 1e-6
    assert s.bound <= s.objective


def test_every_status_of_highs_is_mapped() -> None:
    highspy = importlib.import_module("highspy")
    assert set(highs_module.STATUS) == {n for n in dir(highspy.HighsModelStatus) if n.startswith("k")}


def test_every_status_of_gurobi_is_mapped() -> None:
    gp = pytest.importorskip("gurobipy")
    assert set(gurobi_module.STATUS) == {n for n in dir(gp.GRB.Status) if n.isupper()}


def test_every_status_of_scip_is_mapped() -> None:
    scip = pytest.importorskip("pyscipopt")
    names = {n.lower() for n in dir(scip.scip.PY_SCIP_STATUS) if n.isupper()}
    assert names <= set(scip_module.STATUS)


def test_only_proofs_prove() -> None:
    assert {s for s in SolverStatus if s.proves_empty} == {SolverStatus.INFEASIBLE, SolverStatus.CUTOFF}
    assert all(len(s.value) > 20 for s in SolverStatus)


def test_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("onnxsub.verifiers.programs.solvers.base.importlib.import_module", refuse)
    for name, extra in (("scip", "onnxsub[scip]"), ("gurobi", "onnxsub[gurobi]"), ("highs", "highspy")):
        with pytest.raises(MissingDependencyError, match="pip install") as e:
            get_solver(name)
        assert extra in str(e.value)
        assert "\n" not in str(e.value)


def test_unknown_solver() -> None:
    with pytest.raises(InputError, match="highs, gurobi, scip"):
        get_solver("cplex")


def test_license_status_is_one_line(solver: Solver) -> None:
    assert "licence" in solver.license_status()
    assert "\n" not in solver.license_status()


@pytest.mark.parametrize(("number", "words"), [(10009, "GRB_LICENSE_FILE"), (10010, "2000 columns")])
def test_licence_errors_are_explained(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    gp = pytest.importorskip("gurobipy")

    def refuse(*_: object) -> None:
        raise gp.GurobiError(number, "refused")

    monkeypatch.setattr(gurobi_module.Gurobi, "_build", refuse)
    with pytest.raises(LicenceError, match=words) as e:
        SOLVERS["gurobi"].solve(LP, SolverOptions())
    assert "\n" not in str(e.value)


def test_size_limit_of_the_pip_licence_is_explained() -> None:
    if not SOLVERS["gurobi"].is_available():
        pytest.skip("gurobipy is not installed")
    n = 2500
    ones = np.ones(n)
    big = Problem(ones, 0.0, sp.csc_array(sp.eye_array(n)), ones, INF * ones, 0 * ones, 2 * ones, ones.astype(bool))
    error = None
    try:
        objective = SOLVERS["gurobi"].solve(big, SolverOptions()).objective
    except LicenceError as e:  # the licence of this machine decides which of the two it is
        error = str(e)
    assert f"{n} columns" in error if error is not None else objective == pytest.approx(n)


def test_an_error_status_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(highs_module.STATUS, "kOptimal", None)
    with pytest.raises(SolverError, match="highs failed"):
        SOLVERS["highs"].solve(LP, SolverOptions())


def test_problems_are_checked() -> None:
    with pytest.raises(ValueError, match="col_lower"):
        Problem(np.zeros(2), 0.0, sp.csc_array((0, 2)), np.zeros(0), np.zeros(0), np.zeros(1), np.zeros(2), np.zeros(2, dtype=bool))


@pytest.mark.parametrize(
    "p",
    [
        problem([0], [[1]], [[0, 1]], [[math.nan, 1]]),
        problem([0], [[1]], [[math.nan, 1]], [[0, 1]]),
        problem([0], [[math.nan]], [[0, 1]], [[0, 1]]),
        problem([0], [[INF]], [[0, 1]], [[0, 1]]),
        problem([math.nan], [[1]], [[0, 1]], [[0, 1]]),
        problem([0], [[1]], [[0, 1]], [[0, INF]]),
        problem([0], [[1]], [[0, 1]], [[-1e300, 1]]),
        problem([0], [[1]], [[1e300, INF]], [[0, 1]]),
        # no point has a row of at least infinity, but such an end comes from an overflow
        problem([0], [[1]], [[INF, INF]], [[0, 1]]),
        problem([0], [[1]], [[-INF, -INF]], [[0, 1]]),
    ],
    ids=["column", "row", "coefficient", "infinite", "cost", "open column", "huge column", "huge row", "above all", "below all"],
)
def test_numbers_that_no_solver_can_work_with_prove_nothing(p: Problem) -> None:
    assert not p.ordinary
    session = Session(ExactOptions())
    found = session.solve(p, SolverOptions())
    assert (found.status, found.x, found.bound, session.runs) == (SolverStatus.UNKNOWN, None, -INF, 0)
    assert "too large or infinite" in session.trouble
    assert MIP.ordinary
    assert session.solve(MIP, SolverOptions()).status is SolverStatus.OPTIMAL
    assert session.runs == 1


def test_a_solver_that_fails_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(highs_module.STATUS, "kOptimal", None)
    session = Session(ExactOptions())
    found = session.solve(MIP, SolverOptions())
    assert (found.status, found.x, found.bound) == (SolverStatus.UNKNOWN, None, -INF)
    assert "highs failed" in session.trouble


def test_limits_of_a_session_reach_the_solver() -> None:
    session = Session(ExactOptions(Limits(nodes=3, threads=1)))
    found = session.solve(split(), SolverOptions(), seconds=60.0)
    assert found.status is SolverStatus.NODE_LIMIT
    assert -1e-6 <= found.bound <= (INF if found.objective is None else found.objective)
    timed = Session(ExactOptions(Limits(timeout=60.0, threads=1)))
    began = time.perf_counter()
    assert timed.solve(split(), SolverOptions(), seconds=0.3).status is SolverStatus.TIME_LIMIT
    assert time.perf_counter() - began < 5.0
    assert timed.budget.times["solve"] > 0


def test_no_point_is_lost_to_the_tolerance_of_integers() -> None:
    """A network of 54 inputs and 12 open units whose program HiGHS called infeasible with a tolerance of 1e-9 for integers."""
    rng = np.random.default_rng(101)
    sizes = (54, 9, 9, 3)
    draws = np.random.default_rng(101 + 10**6)
    assert (int(draws.integers(20, 60)), int(draws.integers(4, 10))) == sizes[:2]
    layers = [
        (rng.standard_normal((m, n)) / math.sqrt(n), 0.1 * rng.standard_normal(m)) for n, m in itertools.pairwise(sizes)
    ]
    network = dense(*layers)
    x0 = np.random.default_rng(101).uniform(0, 1, network.input_shape)
    label = int(np.asarray(logits(network)(x0[None])).argmax())
    found = {v: measured(network, x0, label, verifier=v, timeout=60.0) for v in ("bab", "milp")}
    assert {r.status for r in found.values()} == {"exact"}
    assert found["milp"].upper == pytest.approx(found["bab"].upper, abs=2e-6)
    assert found["milp"].lower <= found["bab"].upper + 1e-9
