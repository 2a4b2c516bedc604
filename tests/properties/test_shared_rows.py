"""What all cases of a property share is kept once where it can be, and refused in one line where it would fill the memory."""

from __future__ import annotations

import time

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.properties import parse_property

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
