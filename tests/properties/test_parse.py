"""VNN-LIB text of both versions: what it means, and where a bad one is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.properties import load_property, parse_property
from tests.properties.tools import BOX1, BOX2, HEAD1, HEAD2, same


def test_a_box_and_a_disjunction() -> None:
    p = parse_property(HEAD1 + BOX1 + "(assert (or (and (>= Y_0 Y_1)) (and (<= Y_0 -1.5e-1) (>= Y_1 2))))")
    assert (p.inputs, p.outputs, p.version, len(p.cases), p.clauses) == (2, 2, "1.0", 1, 2)
    (case,) = p.cases
    assert case.lower.tolist() == [0.0, -1.0]
    assert case.upper.tolist() == [1.0, 2.0]
    first, second = case.clauses
    assert first.A.tolist() == [[-1.0, 1.0]]
    assert first.b.tolist() == [0.0]
    assert second.A.tolist() == [[1.0, 0.0], [0.0, -1.0]]
    assert second.b.tolist() == [-0.15, -2.0]
    assert not second.strict.any()


def test_separate_assertions_are_a_conjunction() -> None:
    p = parse_property(HEAD1 + BOX1 + "(assert (>= Y_0 Y_1))(assert (<= Y_1 3))(assert (or (<= Y_0 1) (<= Y_0 2)))")
    first, second = p.cases[0].clauses
    assert first.b.tolist() == [0.0, 3.0, 1.0]
    assert second.b.tolist() == [0.0, 3.0, 2.0]


def test_nested_connectives_multiply_out() -> None:
    p = parse_property(HEAD1 + BOX1 + "(assert (and (or (<= Y_0 1) (<= Y_0 2)) (or (<= Y_1 3) (and (<= Y_1 4) (<= Y_1 5)))))")
    assert [c.b.tolist() for c in p.cases[0].clauses] == [[1, 3], [1, 4, 5], [2, 3], [2, 4, 5]]


@pytest.mark.parametrize(
    ("atom", "a", "b", "strict"),
    [
        ("(<= (+ Y_0 (* 2 Y_1)) 3)", [1, 2], 3, False),
        ("(>= (- Y_0 Y_1 1) (* -1 Y_0 0.5))", [-1.5, 1], -1, False),
        ("(<= (- Y_0) 1)", [-1, 0], 1, False),
        ("(< (* (+ Y_0 1) 2) Y_1)", [2, -1], -2, True),
        ("(> Y_0 .5)", [-1, 0], -0.5, True),
        ("(<= (/ Y_0 4) (/ 1 2))", [0.25, 0], 0.5, False),
        ("(<= 2. (* Y_1 1E0))", [0, -1], -2, False),
        ("(<= (+ Y_0 Y_0 Y_1 (- Y_1)) +1)", [2, 0], 1, False),
        # what cancels leaves what was meant: sums are exact
        ("(>= (+ Y_0 1e17) (+ 1e17 5))", [-1, 0], -5, False),
        ("(<= (+ Y_1 0.25 1e300) (- 1e300 0.5))", [0, 1], -0.75, False),
        ("(< (- (+ (* 1e25 Y_0) (* 3 Y_0)) (* 1e25 Y_0)) 1)", [3, 0], 1, True),
        ("(<= (* 1e200 1e-300 1e100 Y_0) 2)", [1e200 * 1e-300 * 1e100, 0], 2, False),
    ],
)
def test_linear_terms(atom: str, a: list[float], b: float, strict: bool) -> None:
    (clause,) = parse_property(f"{HEAD1}{BOX1}(assert {atom})").cases[0].clauses
    assert clause.A.tolist() == [a]
    assert clause.b.tolist() == [b]
    assert clause.strict.tolist() == [strict]


def test_equality_and_chains() -> None:
    (clause,) = parse_property(HEAD1 + BOX1 + "(assert (= Y_0 2))(assert (<= 0 Y_1 1))").cases[0].clauses
    assert clause.A.tolist() == [[1, 0], [-1, 0], [0, -1], [0, 1]]
    assert clause.b.tolist() == [2, -2, 0, 1]
    case = parse_property(HEAD1 + "(assert (= X_0 0.25))(assert (<= -1 X_1 1))(assert (<= Y_0 0))").cases[0]
    assert (case.lower.tolist(), case.upper.tolist()) == ([0.25, -1.0], [0.25, 1.0])


def test_repeated_and_scaled_bounds_intersect() -> None:
    case = parse_property(HEAD1 + BOX1 + "(assert (<= (* -2 X_0) -0.5))(assert (>= 0.75 X_0))(assert (<= Y_0 0))").cases[0]
    assert (case.lower[0], case.upper[0]) == (0.25, 0.75)


def test_several_boxes_are_cases() -> None:
    text = HEAD1 + (
        "(assert (<= X_1 1)) (assert (>= X_1 0))"
        "(assert (or (and (<= X_0 1) (>= X_0 0) (<= Y_0 0)) (and (<= X_0 3) (>= X_0 2) (<= Y_0 1))"
        "(and (<= X_0 1) (>= X_0 0) (<= Y_1 2))))"
    )
    p = parse_property(text)
    assert len(p.cases) == 2
    assert [c.b.tolist() for c in p.cases[0].clauses] == [[0.0], [2.0]]
    assert p.cases[1].lower.tolist() == [2.0, 0.0]


def test_empty_combinations_of_boxes_are_left_out() -> None:
    half = "(assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3))))"
    p = parse_property(HEAD1 + "(assert (<= 0 X_1 1))" + half + half + "(assert (<= Y_0 0))")
    assert [c.lower[0] for c in p.cases] == [0.0, 2.0]


def test_comments_lines_and_declare_fun() -> None:
    text = "; a comment with (parentheses)\r\n(declare-fun X_0 () Real);x\n(declare-const\n Y_0\tReal)(assert\n(<= X_0 1);)\n)"
    p = parse_property(text + "(assert (>= X_0 0))(assert (<= Y_0 0)) ; the end")
    assert (p.inputs, p.outputs) == (1, 1)


def test_version_2_says_the_same_as_version_1() -> None:
    a = parse_property(HEAD1 + BOX1 + "(assert (or (and (>= Y_0 Y_1) (< Y_1 0.5)) (== Y_0 1.0)))".replace("==", "="))
    b = parse_property(HEAD2 + BOX2 + "(assert (or (and (>= Y[0,0] Y[0,1]) (< Y [ 0, 1 ] 0.5)) (== Y[0,0] 1.0)))")
    assert same(a, b)
    assert (b.version, b.input_shape, b.output_shape) == ("2.0", (1, 2), (1, 2))


def test_version_2_is_row_major_and_takes_onnx_names() -> None:
    head = '(vnnlib-version <2.0>)(declare-network f (declare-input img real [2,3] "data") (declare-output Y real [] "out"))'
    box = "".join(f"(assert (<= 0 img[{i},{j}] {3 * i + j}))" for i in range(2) for j in range(3))
    p = parse_property(head + box + "(assert (<= Y[] 1))(assert (>= Y 0))")
    assert p.cases[0].upper.tolist() == [0, 1, 2, 3, 4, 5]
    assert (p.outputs, p.input_name) == (1, "img")
    assert p.cases[0].clauses[0].b.tolist() == [1, 0]


OUT = "(assert (<= Y_0 0))"
BAD1 = [
    ("", "1:1: there is no command"),
    ("; only a comment\n", "1:17: there is no command"),
    (HEAD1 + "(assert (<= X_0 1)", "5:1: this '(' is never closed"),
    (HEAD1 + "(assert (<= X_0 1)))", "5:20: ')' closes nothing"),
    (HEAD1 + BOX1 + "Y_0", "9:1: 'Y_0' stands outside"),
    (HEAD1 + BOX1 + "(assert (<= Y_0 Y_2))", "9:17: 'Y_2' is neither a number nor declared; known are X_0 to X_1 and Y_0 to Y_1"),
    (HEAD1 + BOX1 + "(assert (<= Y_0 1,5))", "9:17: '1,5' is neither"),
    (HEAD1 + BOX1 + "(assert (<= Y_0 nan))", "9:17: 'nan' is neither"),
    (HEAD1 + BOX1 + "(assert (<= Y_0 1e999))", "9:17: 1e999 is too large"),
    (HEAD1 + BOX1 + "(assert (<= (* Y_0 Y_1) 1))", "9:14: a product of variables is not linear"),
    (HEAD1 + BOX1 + "(assert (<= (/ 1 Y_1) 1))", "9:14: '/' is not supported here; only a division"),
    (HEAD1 + BOX1 + "(assert (<= (max Y_0 Y_1) 1))", "9:14: 'max' is not supported here"),
    (HEAD1 + BOX1 + "(assert (<= Y_0 X_0))", "9:10: this comparison mixes inputs and outputs"),
    (HEAD1 + BOX1 + "(assert (<= X_1 X_0))", "9:10: this comparison relates inputs"),
    (HEAD1 + BOX1 + "(assert (< X_1 0.5))", "9:10: '<' on an input: boxes are closed; write <= instead"),
    (HEAD1 + BOX1 + "(assert (<= 1 2))", "9:10: this comparison has no variable"),
    (HEAD1 + BOX1 + "(assert (<= (* 1e-200 1e-200 Y_0) 2))", "9:10: a factor of this comparison is too small"),
    (HEAD1 + BOX1 + "(assert (<= (* 1e200 1e200 Y_0) 2))", "9:10: a number of this comparison is too large"),
    (HEAD1 + BOX1 + f"(assert (<= (* {'1e-300 ' * 40}Y_0) 2))", "9:14: the numbers of this term are too long"),
    (HEAD1 + BOX1 + "(assert (<= Y_0))", "9:10: '<=' compares at least two terms, found 1"),
    (HEAD1 + BOX1 + "(assert (not (<= Y_0 1)))", "9:10: 'not' is not supported in an assertion; write the negated"),
    (HEAD1 + BOX1 + "(assert (or))", "9:9: (or) is empty"),
    (HEAD1 + BOX1 + "(assert Y_0)", "9:9: expected a comparison"),
    (HEAD1 + BOX1 + "(assert ())", "9:9: expected a comparison"),
    (HEAD1 + BOX1 + "(assert (<= [0] Y_0))", "9:13: '[' is not expected here"),
    (HEAD1 + BOX1 + "(check-sat)", "9:1: command 'check-sat' is not supported like this"),
    (HEAD1 + BOX1 + "(assert (<= Y_0 1) (<= Y_1 1))", "9:1: command 'assert' is not supported like this; assert takes one"),
    (HEAD1 + BOX1, "1:1: no assertion constrains an output"),
    (HEAD1 + BOX1.replace("(assert (<= X_1 2.0))", "") + OUT, "1:1: X_1 has no upper bound; add (assert (<= X_1 ...))"),
    (HEAD1 + OUT, "1:1: X_0 (and 1 more) has no lower bound"),
    (HEAD1 + BOX1 + "(assert (>= X_0 1.5))" + OUT, "9:10: the box is empty: X_0 would have to lie in [1.5, 1.0]"),
    (HEAD1 + "(declare-const X_3 Real)", "5:1: X_3 is declared, but X_2 is not"),
    (HEAD1 + "(declare-const X_0 Real)", "5:1: X_0 is declared twice"),
    (HEAD1 + "(declare-const Z Real)", "5:1: 'Z' is neither an input X_i nor an output Y_j"),
    (HEAD1 + "(declare-const X_2 Int)", "5:1: X_2 is declared Int; only Real"),
    (HEAD1 + "(declare-const X_2)", "5:1: a declaration reads (declare-const X_0 Real)"),
    ("(declare-const Y_0 Real)" + OUT, "1:1: no input is declared"),
    ("(declare-const X_0 Real)", "1:1: no output is declared"),
    ("(" * 300 + ")" * 300, "1:200: nested deeper than 200 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD1, ids=[m.split(": ", 1)[1][:40] for _, m in BAD1])
def test_bad_text_names_line_and_column(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_property(text, "p.vnnlib")
    assert str(caught.value).startswith(f"p.vnnlib:{message}")
    assert "\n" not in str(caught.value)


OUT2 = "(assert (<= Y[0,0] 0.0))"
NETWORK2 = HEAD2.split("\n", 1)[1]
BAD2 = [
    (NETWORK2 + BOX2 + OUT2, "1:1: declare-network needs VNN-LIB 2.0"),
    (HEAD2.replace("2.0", "3.0") + BOX2 + OUT2, "1:17: version <3.0> is not supported"),
    ("(vnnlib-version <2.0>)" + OUT2, "1:1: 0 networks are declared"),
    (HEAD2 + NETWORK2 + BOX2 + OUT2, "6:1: 2 networks are declared"),
    (HEAD2 + BOX2 + "(assert (<= Y[0,2] 0.0))", "10:13: Y[0,2] is no element of Y, whose shape is [1,2]"),
    (HEAD2 + BOX2 + "(assert (<= Y[1] 0.0))", "10:13: Y[1] is no element of Y"),
    (HEAD2 + BOX2 + "(assert (<= Z[0,0] 0.0))", "10:13: 'Z[0,0]' is neither a number nor declared"),
    (HEAD2 + BOX2 + "(assert (!= Y[0,0] 0.0))", "10:10: '!=' is not supported"),
    (HEAD2 + OUT2, "3:2: X[0,0] (and 1 more) has no lower bound"),
    (HEAD2.replace("declare-output", "declare-hidden"), "4:2: 'declare-hidden' is not supported"),
    (HEAD2.replace("(declare-output", "(equal-to M) (declare-output"), "4:2: 'equal-to' is not supported"),
    (HEAD2.replace("(declare-output", "(declare-input Z real [1]) (declare-output"), "4:2: the network has 2 declare-input"),
    (HEAD2.replace("X float32", "X int8"), "3:2: element type int8 is not supported"),
    (HEAD2.replace("X float32 [1, 2]", "X float32 [1, a]"), "3:2: a tensor is declared like"),
    (HEAD2.replace("X float32 [1, 2]", "X float32 [1, 0]"), "3:2: X has an axis of length 0"),
    (HEAD2.replace("declare-output Y", "declare-output X"), "4:2: input and output are both called X"),
    (HEAD2 + "(declare-const X_0 Real)", "6:1: command 'declare-const' is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD2, ids=[m.split(": ", 1)[1][:40] for _, m in BAD2])
def test_bad_text_of_version_2(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_property(text, "p.vnnlib")
    assert str(caught.value).startswith(f"p.vnnlib:{message}")


def test_too_many_cases_are_refused() -> None:
    many = "".join(f"(assert (or (<= Y_0 {i}) (<= Y_1 {i})))" for i in range(20))
    with pytest.raises(InputError, match="more than 100000 cases"):
        parse_property(HEAD1 + BOX1 + many)


def test_files_plain_and_gzipped(tmp_path: Path) -> None:
    text = HEAD1 + BOX1 + OUT
    (tmp_path / "a.vnnlib").write_text(text)
    (tmp_path / "b.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    a, b = load_property(tmp_path / "a.vnnlib"), load_property(tmp_path / "b.vnnlib.gz")
    assert same(a, b)
    (tmp_path / "cut.vnnlib.gz").write_bytes(gzip.compress(text.encode())[:-20])
    (tmp_path / "binary.vnnlib").write_bytes(b"\xff\xfe\x00")
    bad = {"cut.vnnlib.gz": "cannot read", "binary.vnnlib": "is not text", "none.vnnlib": "No such file", ".": "cannot read"}
    for name, message in bad.items():
        with pytest.raises(InputError, match=message):
            load_property(tmp_path / name)


def test_satisfied_by_is_exact() -> None:
    p = parse_property(HEAD1 + BOX1 + "(assert (or (>= Y_0 Y_1) (< Y_1 -5)))")
    x = np.array([0.5, 0.0])
    assert p.satisfied_by(x, np.array([1.0, 1.0]))
    assert not p.satisfied_by(x, np.array([1.0, np.nextafter(1.0, 2)]))
    assert not p.satisfied_by(x, np.array([-9.0, -5.0]))
    assert p.satisfied_by(x, np.array([-9.0, np.nextafter(-5.0, -6)]))
    assert p.satisfied_by(x.reshape(1, 2, 1), np.array([[1.0, 1.0]], dtype=np.float32))
    assert not p.satisfied_by(np.array([np.nextafter(1.0, 2), 0.0]), np.array([1.0, 1.0]))
    assert not p.satisfied_by(x, np.array([np.nan, 1.0]))
    assert not p.satisfied_by(np.array([np.nan, 0.0]), np.array([1.0, 1.0]))
