"""What all cases of a property share is kept once where it can be, and refused in one line where it would fill the memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxsub.budget import Budget, OutOfTime
from onnxsub.errors import InputError
from onnxsub.model import load_model
from onnxsub.properties import Case, parse_property, row_set
from onnxsub.properties.property import Picked, Table
from onnxsub.runtime import Runtime
from onnxsub.verifiers.judges import CaseJudge
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.verify import VerifyOptions
from tests.random_models import random_model

HEAD = "".join(f"(declare-const {n} Real)\n" for n in ("X_0", "Y_0", "Y_1", "Y_2")) + "(assert (>= X_0 0))(assert (<= X_0 1))\n"


def _either(count: int) -> str:
    return "(or " + " ".join(f"(and (<= Y_1 {i}) (>= Y_2 Y_0))" for i in range(count)) + ")"


@pytest.mark.parametrize("nested", [False, True])
def test_of_shared_rows_with_one_left_side_the_tightest_is_kept(nested: bool) -> None:
    shared = [f"(< Y_0 {7 + (i * 37) % 3000})" for i in range(3000)] + ["(<= Y_0 7)", "(>= Y_2 -1)"]
    parts = " ".join([_either(3000), *shared])
    text = f"(assert (and (and {parts}) (<= Y_1 99999)))" if nested else "".join(f"(assert {p})" for p in [_either(3000), *shared])
    begun = time.process_time()
    (case,) = parse_property(HEAD + text).cases
    assert time.process_time() - begun < 10
    assert len(case.clauses) == 3000
    clause = case.clauses[5]
    assert len(clause.b) == (5 if nested else 4)
    assert clause.holds(np.array([6.9, 5.0, 6.9]))
    assert not clause.holds(np.array([7.0, 5.0, 7.0])), "the strict one of two with the same end counts"
    assert not clause.holds(np.array([6.9, 5.1, 7.0]))
    assert not clause.holds(np.array([-2.0, 5.0, -1.5]))


@pytest.mark.parametrize("deep", [False, True])
def test_rows_that_would_fill_the_memory_are_refused(deep: bool) -> None:
    shared = " ".join(f"(<= (+ Y_0 (* {i} Y_1)) 1)" for i in range(3000))
    both = f"(and {_either(3000)} {shared})"
    with pytest.raises(InputError, match=r"^property:\d+:\d+: the cases of the property have .*rows, more than 4000000; split it"):
        parse_property(HEAD + f"(assert {f'(or {both} (<= Y_0 -5))' if deep else both})")


def test_rows_with_different_left_sides_are_stored_once() -> None:
    shared = "".join(f"(assert (<= (+ Y_0 (* {i} Y_1)) 1))" for i in range(50))
    (case,) = parse_property(HEAD + shared + f"(assert {_either(2000)})").cases
    (table,) = {id(c.table): c.table for c in case.clauses if isinstance(c, Picked)}.values()
    assert len(table.b) == 50 + 2 * 2000
    assert all(len(c.b) == 52 and (c.A[:50] == case.clauses[0].A[:50]).all() for c in case.clauses)
    rows = row_set(case.clauses)
    assert rows.A.shape == (50 + 2000 + 1, 3)  # Y_2 >= Y_0 is said again in every clause
    for clause, members in zip(case.clauses, rows.clauses, strict=True):
        assert (rows.A[list(members)] == clause.A).all()
        assert (rows.b[list(members)] == clause.b).all()


@pytest.mark.parametrize("seed", range(6))
def test_points_are_judged_by_the_rows_of_each_clause(seed: int, tmp_path: Path) -> None:
    """Tables with rows in all, in some and twice in one clause, against each clause by itself."""
    rng = np.random.default_rng(seed)
    table = Table(rng.integers(-2, 3, (6, 3)).astype(float), rng.integers(-2, 3, 6).astype(float), rng.random(6) < 0.5)
    clauses = [Picked(table, rng.integers(0, 6, rng.integers(1, 7))) for _ in range(5)]
    clauses += [Picked(table, np.array([0, *rng.integers(0, 6, 2)])) for _ in range(seed % 2)]
    if seed > 2:
        clauses = [Picked(table, np.append(c.members, 3)) for c in clauses]
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        ), opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.save(proto, tmp_path / "relu.onnx")
    judge = CaseJudge(Runtime(load_model(tmp_path / "relu.onnx")), Case(np.zeros(3), np.full(3, 4.0), tuple(clauses)))
    for x in rng.integers(0, 5, (40, 3)).astype(np.float32):
        found = judge.judge(x)
        holds = [c.holds(x) for c in clauses]
        assert found.confirmed == any(holds)
        assert found.margin == max(c.margins(x).min() for c, h in zip(clauses, holds, strict=True) if h or not any(holds))


def test_reading_looks_at_the_clock(tmp_path: Path) -> None:
    """A file of a million tokens, and one whose cases multiply: both end in time, and say so."""
    long = f"(assert (<= (+ {' '.join(f'(* 1e-5 Y_{k % 3})' for k in range(100_000))}) -50))"
    many = "".join(f"(assert (or (>= Y_0 {30 + i}) (>= Y_1 {40 + i})))" for i in range(16))
    onnx.save(random_model(3, kind="dense", classes=3), tmp_path / "net.onnx")
    model = load_model(tmp_path / "net.onnx")
    for text in (long, many):
        budget = Budget(nodes=1)
        budget.count(1)
        with pytest.raises(OutOfTime):
            parse_property(HEAD + text, budget=budget)
        (tmp_path / "p.vnnlib").write_text(HEAD + text)
        found = decide_property(model, tmp_path / "p.vnnlib", VerifyOptions(Limits(timeout=1e-3)))
        assert (found.status, found.vnncomp, found.vnncomp_text()) == ("unknown", "timeout", "timeout\n")
        assert found.reason.startswith("the property was not read: the time limit ended it in the stage 'read'")
        assert found.to_json()["property"] == {"path": str(tmp_path / "p.vnnlib"), "version": None, "clauses": None}
