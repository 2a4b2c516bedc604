"""Answers about properties of random networks against dense samples and against each other; the benchmark asks many more."""

from __future__ import annotations

import pytest

from tests.metrics.local_checks import check_case


@pytest.mark.parametrize("seed", [0, 6, 10])
def test_no_answer_contradicts_samples_or_another_answer(seed: int) -> None:
    tally = check_case(seed)
    assert tally.checks > 40
    assert tally.wrong == []
    assert sum(n for key, n in tally.statuses.items() if not key.endswith("undecided")) > 15
