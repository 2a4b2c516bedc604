"""Pairs of windows: their cuts cut off nothing true, and the search with them agrees with the MILP where every window is tied."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.verifiers.bab.lp.cutting import Cutting
from onnxsub.verifiers.bab.lp.depth_first import DepthFirst
from onnxsub.verifiers.bab.lp.hull_pairs import join
from onnxsub.verifiers.bab.lp.hull_windows import OpenWindow, windows_of
from onnxsub.verifiers.bab.lp.relaxation import Relaxation
from onnxsub.verifiers.box.clause import ClauseModel
from tests.verifiers.bab_tools import Sample, frame_of, target_models
from tests.verifiers.nets import bracket_of, decided, logits, measured
from tests.verifiers.test_windows import program_of
from tests.verifiers.windowed import tied_windows

TOL = 1e-6


@pytest.mark.parametrize("seed", range(20))
def test_cuts_of_pairs_hold_at_every_point(seed: int) -> None:
    problem, *_, columns = program_of(seed)
    windows = windows_of(problem)
    rng = np.random.default_rng(seed)
    start = np.zeros(problem.columns)
    for one in windows:
        start[one.z] = 1 / len(one.z)
    # any multipliers give weights, and any weights are valid
    joined = join(problem, windows, start, -rng.random(problem.rows))
    if joined is None:
        assert len(windows) < 2
        return
    wide = np.pad(problem.col_lower, (0, joined.columns)), np.pad(problem.col_upper, (0, joined.columns), constant_values=1.0)
    program = replace(
        problem, col_lower=wide[0], col_upper=wide[1], c=np.pad(problem.c, (0, joined.columns)),
        integer=np.pad(problem.integer, (0, joined.columns)), A=_padded(problem.A, joined.columns),
    )  # fmt: skip
    points = rng.uniform(np.maximum(wide[0], -9), np.minimum(wide[1], 9), (40, program.columns))
    cuts = []
    for v in points:
        for p in joined.pairs:
            v[p.z], v[p.y] = rng.dirichlet(np.full(len(p.z), 0.3)), wide[1][p.y]
        cuts += [c for p in joined.pairs if (c := p.violated(program, v, 1e-6)) is not None]
    assert cuts
    assert {len(p.y) for p in joined.pairs} == {2}
    for x in (*rng.uniform(-1, 1, (40, len(columns))), *rng.choice([-1.0, 1.0], (40, len(columns)))):
        v = _true(program.columns, columns, x, windows)
        v = _joined(v, joined.rows, problem.columns)
        assert np.abs(joined.rows @ v).max() == 0
        assert max(c.over(v) for c in cuts) <= 1e-9


def _padded(A: Array, columns: int) -> Array:
    return sp.csc_array(sp.hstack([A, sp.csc_array((A.shape[0], columns))]))


def _true(count: int, columns: Array, x: Array, windows: list[OpenWindow]) -> Array:
    """The columns of a program of windows at a point, without switches of pairs."""
    v = np.zeros(count)
    v[columns] = x
    for one in windows:
        own = one.w @ v[one.inputs] + one.b
        v[one.y] = own.max()
        v[one.z[own.argmax()]] = 1.0
    return v


def _joined(v: Array, rows: Array, first: int) -> Array:
    """The same with the only switches of pairs that the rows leave."""
    table = rows.toarray()
    v = v.copy()
    chosen = (table @ v) < 0  # rows whose own switch is on
    for column in range(first, table.shape[1]):
        v[column] = float(chosen[table[:, column] > 0].all())
    return v


def _models(network: Network, x0: Array, label: int, radius: float) -> list[ClauseModel]:
    return target_models(network, x0, label, radius, tight=False)


def test_lines_behind_cuts_of_pairs_are_above_the_margin() -> None:
    seen = paired = 0
    for seed in range(4):
        network, x0, label = tied_windows(seed)
        true = measured(network, x0, label, threads=1, tol=TOL, replay=logits(network), verifier="milp")
        radius = min(1.3 * true.upper, 0.9)
        frame = frame_of(network, x0, label, radius, tight=False)
        if frame is None or not math.isfinite(radius):
            continue
        sample = Sample.of(frame, seed)
        for model in _models(network, x0, label, radius):
            linear = Relaxation(model, Budget())
            own = linear.problem.columns
            before = linear.value(linear.solve({}, radius), radius)
            Cutting(linear, Budget()).root(radius)
            solved = linear.solve({}, radius)
            assert linear.value(solved, radius) <= before + 1e-9
            paired += linear.problem.columns > own
            rows = torch.nonzero(sample.margins[:, model.row] >= 0)[:, 0]
            moving = np.flatnonzero(np.asarray(model.upper).reshape(-1) > np.asarray(model.lower).reshape(-1))
            offsets = sample.offsets[rows].numpy()[:, moving] / linear.units
            above = offsets @ solved.slope + solved.constant - sample.margins[rows, model.row].numpy()
            assert above.min(initial=math.inf) >= 0
            seen += len(rows)
    assert seen > 100
    assert paired > 3


@pytest.mark.parametrize("seed", range(8))
def test_distances_and_balls_of_tied_windows_are_those_of_the_milp(seed: int) -> None:
    network, x0, label = tied_windows(seed)
    settings = {"threads": 1, "replay": logits(network)}
    true = measured(network, x0, label, verifier="milp", tol=TOL, **settings)
    found = measured(network, x0, label, verifier="bab", tol=TOL, **settings)
    assert true.status == found.status
    if true.status == "none":
        return
    assert true.status == "exact"
    assert found.upper == pytest.approx(true.upper, abs=4 * TOL)
    for share, said in ((0.98, "proved"), (1.02, "violated")):
        assert decided(network, x0, label, share * true.upper, verifier="bab", **settings).status == said


def test_what_cuts_of_the_root_prove_counts_when_the_time_is_over() -> None:
    proved = 0
    for seed in range(4):
        network, x0, label = tied_windows(seed)
        true = measured(network, x0, label, verifier="milp", tol=TOL, threads=1, replay=logits(network))
        if true.status != "exact":
            continue
        radius, over = 0.97 * true.upper, Budget(timeout=1e-6)
        bracket = bracket_of(network, x0, label)
        for model in _models(network, x0, label, radius):
            search = DepthFirst.of(bracket, model, radius)
            assert search is not None
            if search.run(over):
                proved += 1
                assert bracket.claims.lowers[model.key] == pytest.approx(radius, rel=1e-12)
            else:
                assert bracket.claims.lowers[model.key] == 0.0
    assert proved > 1
