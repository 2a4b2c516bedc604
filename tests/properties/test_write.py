"""Properties and witnesses as text: exact on the way back, and never smaller than the box they stand for."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxsub.errors import InputError
from onnxsub.model import load_model
from onnxsub.properties import (
    Case,
    Clause,
    Property,
    check_fits,
    parse_property,
    read_witness,
    robustness_property,
    shaped_like,
    vnncomp_word,
    witness_text,
    write_property,
)
from onnxsub.properties.write import number
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from tests.properties.tools import BOX1, HEAD1, same
from tests.random_models import random_model

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(FINITE)
def test_a_number_reads_back_and_lies_on_its_side(value: float) -> None:
    down, up, near = number(value, "ROUND_FLOOR"), number(value, "ROUND_CEILING"), number(value)
    assert float(down) == float(up) == float(near) == value
    assert Fraction(down) <= Fraction(value) <= Fraction(up)
    for text in (down, up, near):
        assert "e" not in text.lower()
        assert "." in text
        assert not text.startswith("-0.0") or value < 0


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_box_of_float32_holds_for_every_reader(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    down, up = number(low, "ROUND_FLOOR"), number(high, "ROUND_CEILING")
    assert Decimal(down) <= Decimal(low)
    assert np.float32(down) <= np.float32(low)
    assert np.float32(high) <= np.float32(up)


def random_property(seed: int, cases: int) -> Property:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(cases):
        lower = rng.normal(size=6) * 10.0 ** rng.integers(-9, 4)
        clauses = []
        for _ in range(int(rng.integers(1, 4))):
            m = int(rng.integers(1, 4))
            matrix = np.where(rng.random((m, 4)) < 0.5, 0.0, rng.normal(size=(m, 4)))
            matrix[~matrix.any(axis=1)] = np.eye(4)[0]
            kind = rng.integers(0, 3)
            bound = rng.normal(size=m)
            if kind == 0:
                matrix, bound = np.array([[0.0, 1.0, 0.0, -1.0]]), np.zeros(1)
            elif kind == 1:
                matrix = -np.eye(4)[:m]
            clauses.append(Clause(matrix, bound, rng.random(len(bound)) < 0.3))
        made.append(Case(lower, lower + rng.random(6), tuple(clauses)))
    return Property(tuple(made), (1, 2, 3), (1, 4))


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("cases", [1, 3])
def test_round_trip_is_exact(version: str, cases: int) -> None:
    for seed in range(20):
        p = random_property(seed, cases)
        q = parse_property(write_property(p, version, comment="one\ntwo"))
        assert same(p, q)
        assert q.version == version
        assert q.input_shape == ((6,) if version == "1.0" else (1, 2, 3))


def test_what_cannot_be_written_is_refused() -> None:
    p = random_property(0, 1)
    with pytest.raises(InputError, match=r"'3\.0' is unknown; choose 1\.0 or 2\.0"):
        write_property(p, "3.0")
    case = p.cases[0]
    endless = Property((Case(case.lower, case.upper + np.inf, case.clauses),), (6,), (4,))
    with pytest.raises(InputError, match="not finite"):
        write_property(endless)
    empty = Property((Case(case.lower, case.upper, (Clause(np.zeros((1, 4)), np.ones(1), np.zeros(1, bool)),)),), (6,), (4,))
    with pytest.raises(InputError, match="no coefficient"):
        write_property(empty)


def test_the_reference_reader_of_version_2_agrees() -> None:
    vnnlib = pytest.importorskip("vnnlib", reason="the package vnnlib (reader of VNN-LIB 2.0) is not installed")
    compat = pytest.importorskip("vnnlib.compat")
    p = parse_property(HEAD1 + BOX1 + "(assert (or (and (>= Y_0 Y_1) (<= Y_0 1e-7)) (<= (+ (* 2.5 Y_0) Y_1) -1e-30)))")
    query = vnnlib.parse_query_string(write_property(p, "2.0"))
    (found,) = compat.transform(query)
    (case,) = p.cases
    assert [list(side) for side in found.input_box] == [[a, b] for a, b in zip(case.lower, case.upper, strict=True)]
    assert len(found.output_constraints) == len(case.clauses)
    for theirs, ours in zip(found.output_constraints, case.clauses, strict=True):
        assert np.array_equal(np.array(theirs.coeff_matrix), ours.A)
        assert np.array_equal(np.array(theirs.rhs), ours.b)


@pytest.mark.parametrize("space", [InputSpace(), InputSpace(mean=(0.13, 0.2, 0.4), std=(0.3, 0.7, 0.2)), InputSpace(-1.0, 2.0)])
def test_a_robustness_property_contains_the_ball(space: InputSpace) -> None:
    model = load_model(random_model(3, kind="dense", classes=4))
    rng = np.random.default_rng(0)
    if space.mean is not None:
        space = InputSpace(mean=(0.13,), std=(0.3,))
    x0 = rng.random(model.input_shape).astype(np.float32)
    query = make_query(model, x0, space=space)
    eps = 0.3
    for version in ("1.0", "2.0"):
        p = parse_property(write_property(robustness_property(query, eps), version))
        check_fits(p, model)
        case = p.cases[0]
        low, high = space.ball(query.x0, eps)
        points = np.concatenate([rng.uniform(low, high, (200, *x0.shape)), np.where(rng.random((200, *x0.shape)) < 0.5, low, high)])
        fed = space.normalise(points).reshape(len(points), -1).astype(np.float64)
        assert (case.lower <= fed).all()
        assert (fed <= case.upper).all()
        inner = space.normalise(np.stack([low, high])).reshape(2, -1).astype(np.float64)
        assert np.abs(case.lower - inner[0]).max() <= 1e-6
        assert np.abs(case.upper - inner[1]).max() <= 1e-6
        logits = query.logits(points)
        for x, y in zip(fed, logits, strict=True):
            assert p.satisfied_by(x, y) == bool((np.delete(y, query.label) >= y[query.label]).any())


def test_a_robustness_property_of_a_single_score() -> None:
    model = load_model(random_model(5, kind="dense", classes=1))
    x0 = np.full(model.input_shape, 0.5, dtype=np.float32)
    for label, at_zero, above in ((0, True, True), (1, True, False)):
        p = robustness_property(make_query(model, x0, label), 0.1)
        assert p.satisfied_by(x0, np.zeros(1)) is at_zero
        assert p.satisfied_by(x0, np.full(1, 0.01)) is above


def test_a_radius_is_checked() -> None:
    model = load_model(random_model(3, kind="dense"))
    query = make_query(model, np.zeros(model.input_shape, dtype=np.float32))
    for eps in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="is not a radius"):
            robustness_property(query, eps)


def test_sizes_and_shapes_are_checked() -> None:
    model = load_model(random_model(4, kind="conv", classes=3))
    n = int(np.prod(model.input_shape))
    clause = Clause(np.array([[1.0, -1.0, 0.0]]), np.zeros(1), np.zeros(1, bool))
    case = Case(np.zeros(n), np.ones(n), (clause,))
    flat = Property((case,), (n,), (3,))
    check_fits(flat, model)
    assert shaped_like(flat, model).input_shape == (1, *model.input_shape)
    with pytest.raises(InputError, match=rf"5 inputs are declared, .* has {n}"):
        check_fits(Property((case,), (5,), (3,)), model)
    with pytest.raises(InputError, match=r"4 outputs are declared, .* has 3"):
        check_fits(Property((case,), (n,), (4,)), model)
    with pytest.raises(InputError, match="does not fit"):
        check_fits(Property((case,), (1, 6, n // 6), (3,)), model)


def test_words() -> None:
    assert [vnncomp_word(s) for s in ("proved", "violated", "unknown")] == ["unsat", "sat", "unknown"]
    assert vnncomp_word("unknown", timed_out=True) == "timeout"
    assert vnncomp_word("proved", timed_out=True) == "unsat"


def test_witness_texts() -> None:
    p = parse_property(HEAD1 + BOX1 + "(assert (>= Y_0 Y_1))")
    x, y = np.array([0.1, 1e-9]), np.array([2.0, -3.5])
    assert witness_text(p, x, y) == "((X_0 0.1)\n(X_1 0.000000001)\n(Y_0 2.0)\n(Y_1 -3.5))\n"
    q = Property(p.cases, (1, 2), (2,), "2.0")
    assert witness_text(q, x, y) == "X real [1, 2]\n0.1\n0.000000001\nY real [2]\n2.0\n-3.5\n"
    for found in (p, q):
        for head in ("", "sat\n", "sat\n\n"):
            again, outputs = read_witness(head + witness_text(found, x, y), found)
            assert outputs is not None
            assert again.tolist() == x.tolist()
            assert outputs.tolist() == y.tolist()
    inputs, outputs = read_witness("sat\n((X_0 0.1) (X_1 2e-1))", p)
    assert (inputs.tolist(), outputs) == ([0.1, 0.2], None)


@pytest.mark.parametrize(
    "text",
    ["", "sat", "((X_0 1))", "((X_1 1) (X_0 1))", "((X_0 1) (X_1 b))", "((X_0 1) (X_1 nan))", "hello", "((X_0 1) (X_1 1) (Y_0 1))"],
)
def test_bad_witnesses(text: str) -> None:
    p = parse_property(HEAD1 + BOX1 + "(assert (>= Y_0 Y_1))")
    with pytest.raises(InputError, match="witness of property"):
        read_witness(text, p)
