"""The columns that `benchmarks.table1` adds to those of the run: the error whatever undecided radii are, and reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.table1 import least_error, place, reason
from onnxsub.evaluate.summary import summarise
from tests.report_tools import ROW_LIKE

ROW = replace(ROW_LIKE, model="mnist-c-clean", method="lin", gamma=0.99, timed_bnd=3, timed_hat=2, time_prune=1.0)


@pytest.mark.parametrize(
    ("bnd", "adv", "hat", "least"),
    [
        (0.1, 0.2, 0.15, 0.0),  # it may be the truth
        (0.1, 0.2, 0.3, 0.5),  # beyond every point that is known to be adversarial
        (0.1, 0.2, 0.05, 0.5),  # below what is verified
        (0.1, 0.1, 0.2, 1.0),  # the network's distance is certain
        (0.1, None, 0.2, 1.0),
        (0.2, 0.1, 0.3, 0.5),  # the attack's point is no bound where the search went beyond it
    ],
)
def test_the_least_error(bnd: float, adv: float | None, hat: float, least: float) -> None:
    row = replace(ROW, protocol_bnd=bnd, protocol_adv=adv, protocol_hat=hat)
    assert least_error([row]) == pytest.approx(least)
    sure = abs(hat / bnd - 1)
    assert least <= sure + 1e-12  # of which the column beside it is the mean
    assert least_error([row, replace(row, protocol_hat=None)]) == pytest.approx(least)


def test_nothing_known_has_no_error() -> None:
    assert least_error([]) is None
    assert least_error([replace(ROW, protocol_bnd=None, protocol_hat=None)]) is None


def test_a_row_says_why_it_rests_on_fewer_than_five() -> None:
    rows = [replace(ROW, index=i) for i in range(6)]
    (line,) = summarise(rows)
    assert reason(line, rows) == ""
    wrong = replace(ROW, index=3, status="misclassified", timed_bnd=None, timed_hat=None)
    few = [*rows[:2], replace(ROW, index=2, timed_hat=0), wrong]
    (line,) = summarise(few)
    assert reason(line, few) == "4 images run, 1 misclassified, no run with on 1"
    assert place(line) < place(replace(line, method="act")) < place(replace(line, model="cifar10-c-clean", method="con"))
