"""Inputs built to hurt: a selection of `benchmarks.cases`, in this process. The stored examples need the folder of cases."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from benchmarks.case_judges import Question
from benchmarks.case_numbers import NUMBERS
from benchmarks.case_shapes import SHAPES
from benchmarks.cases import answer, cases_folder, stored

QUICK = {"00": 2, "01": 4, "02": 5, "03": 3, "04": 2, "05": 3, "08": 6, "09": 2, "10": 6}
"""How many variants of a kind the quick tests ask, all together in one test per kind."""


def judged(questions: list[Question]) -> list[str]:
    """What is not right, one line per question."""
    lines = []
    for q in questions:
        grade, why, _ = answer(q, inside=True)
        if grade != "right":
            lines.append(f"{q.variant}: expected {q.expected}; {grade}: {why}")
    return lines


@pytest.mark.parametrize("kind", sorted(QUICK))
def test_variants_are_answered_rightly(kind: str) -> None:
    makers = NUMBERS | SHAPES
    questions = list(itertools.islice(makers[kind](), QUICK[kind]))
    assert len(questions) == QUICK[kind]
    assert judged(questions) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({*NUMBERS, *SHAPES} ))
def test_all_variants_are_answered_rightly(kind: str) -> None:
    assert judged(list((NUMBERS | SHAPES)[kind]())) == []


@pytest.mark.parametrize("kind", ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10"])
def test_stored_examples_are_answered_rightly(kind: str) -> None:
    folder = examples()
    questions = [q for q in stored(folder) if q.kind.startswith(kind)]
    assert questions
    assert judged(questions) == []


def examples() -> Path:
    folder = cases_folder()
    if not folder.is_dir():
        pytest.skip(f"no stored examples in {folder}; set ONNXSUB_DATA to the folder beside them")
    return folder
