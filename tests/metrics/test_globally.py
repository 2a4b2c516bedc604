"""Global robustness: what counts how, what is guaranteed, and the table of repeated estimates."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import numpy as np
import pytest

from onnxsub.errors import InputError
from onnxsub.metrics.convergence import convergence
from onnxsub.metrics.globally import estimate_sequential, estimate_share, estimate_values, shuffled
from onnxsub.metrics.intervals import clopper_pearson, hoeffding_error, hoeffding_samples
from onnxsub.metrics.sequential import run_sequential
from onnxsub.results import dumps

STATUSES = ["proved"] * 70 + ["violated"] * 20 + ["undecided"] * 6 + ["misclassified"] * 4


def test_undecided_counts_both_ways() -> None:
    found = estimate_share(STATUSES, 0.95, error=0.2)
    assert (found.lower, found.upper, found.samples) == (0.7, 0.76, 100)
    assert found.estimate is None
    wide, exact = found.intervals
    assert exact.lower == clopper_pearson(70, 100, 0.95).lower
    assert exact.upper == clopper_pearson(76, 100, 0.95).upper
    assert wide.lower == pytest.approx(0.7 - hoeffding_error(100, 0.95))
    assert wide.upper == pytest.approx(0.76 + hoeffding_error(100, 0.95))
    assert found.interval == exact
    assert found.reached
    assert not estimate_share(STATUSES, 0.95, error=0.05).reached
    assert "6 undecided samples count as violated in the first number" in found.guarantee
    assert "95 %" in found.guarantee


def test_misclassified_samples_may_be_left_out() -> None:
    found = estimate_share(STATUSES, 0.95, misclassified="excluded")
    assert found.samples == 96
    assert found.lower == pytest.approx(70 / 96)
    assert found.counts["misclassified"] == 4
    assert "correctly classified" in found.guarantee
    assert found.reached  # nothing was asked for


def test_all_decided_is_a_number() -> None:
    found = estimate_share(["proved", "proved", "violated", "proved"], 0.9)
    assert found.estimate == 0.75
    assert "undecided" not in found.guarantee


def test_an_attack_gives_an_upper_bound_only() -> None:
    found = estimate_share(["undecided"] * 60 + ["violated"] * 40, 0.95, what="the class does not change within 0.1")
    assert (found.lower, found.upper) == (0.0, 0.6)
    assert found.interval.lower == 0.0
    assert found.interval.upper == clopper_pearson(60, 100, 0.95).upper
    assert "the class does not change within 0.1 for at most 70" in found.guarantee.replace("69.", "70.")
    assert "no lower bound" in found.guarantee


def test_all_violated_says_so() -> None:
    found = estimate_share(["violated"] * 100, 0.95)
    assert found.interval.lower == 0.0
    assert "0.00 % to 3.63 %" in found.guarantee  # 3.6217 %, rounded outward


def test_a_guarantee_is_never_rounded_up() -> None:
    found = estimate_share(["proved"] * 200_000, 0.95)
    assert 0.99998 < found.interval.lower < 1.0
    assert "99.99 % to 100.00 %" in found.guarantee


def test_brackets_of_values() -> None:
    values: list[float | tuple[float, float]] = [0.1, (0.2, 0.4), (0.3, math.inf), 5.0]
    found = estimate_values(values, 0.9, (0.0, 1.0), what="the distance")
    assert found.lower == pytest.approx((0.1 + 0.2 + 0.3 + 1.0) / 4)
    assert found.upper == pytest.approx((0.1 + 0.4 + 1.0 + 1.0) / 4)
    assert found.interval.lower == 0.0
    assert found.counts == {}
    assert "the mean of the distance, cut off at 0 and 1" in found.guarantee


def test_coverage_with_undecided_samples() -> None:
    """The interval contains R whatever the undecided ones are: at least as often as it says, here for the worst of both."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(400):
        robust = rng.random(80) < 0.8
        undecided = rng.random(80) < 0.1
        statuses = ["undecided" if u else "proved" if r else "violated" for r, u in zip(robust, undecided, strict=True)]
        interval = estimate_share(statuses, 0.9).interval
        missed += 0.8 not in interval
    assert missed <= 40 + 4 * 6


def test_sequential_takes_no_more_than_it_needs() -> None:
    taken: list[int] = []

    def outcomes() -> Iterator[str]:
        for i in shuffled(5000, 3):
            taken.append(i)
            yield "misclassified" if i % 50 == 0 else "undecided" if i % 100 == 1 else "proved"

    found = estimate_sequential(outcomes(), 0.03, 0.95)
    assert found.reached
    assert found.samples == len(taken) < hoeffding_samples(0.03, 0.95)
    assert found.interval.width <= 0.06
    assert found.interval.method == "sequential"
    assert found.counts["misclassified"] == sum(i % 50 == 0 for i in taken)
    assert found.lower <= 0.97 <= found.interval.upper
    assert "narrow enough" in found.guarantee
    taken.clear()
    without = estimate_sequential(outcomes(), 0.03, 0.95, misclassified="excluded")
    assert without.samples < len(taken)
    assert without.interval.upper == 1.0


def test_sequential_values_and_exhaustion() -> None:
    x = np.random.default_rng(0).beta(20, 60, 150)
    found = estimate_sequential([float(v) for v in x], 0.001, 0.95, value_range=(0.0, 1.0))
    assert not found.reached
    assert "used up" in found.guarantee
    assert found.interval == run_sequential(x.tolist(), 0.001, 0.95).interval
    assert found.kind == "mean"
    assert 0.25 in found.interval


def test_json() -> None:
    document = json.loads(dumps(estimate_share(STATUSES, 0.95)))
    assert document["schema"] == "onnxsub.global/1"
    assert document["estimate"] == {"lower": 0.7, "upper": 0.76}
    assert (document["proved"], document["violated"], document["undecided"], document["misclassified"]) == (70, 20, 6, 4)
    assert {i["method"] for i in document["intervals"]} == {"hoeffding", "clopper-pearson"}


def test_shuffled_is_a_permutation_by_seed() -> None:
    assert sorted(shuffled(100, 0)) == list(range(100))
    assert shuffled(100, 0) == shuffled(100, 0) != shuffled(100, 1)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="'sat' is unknown"):
        estimate_share(["sat"], 0.95)
    with pytest.raises(InputError, match="no samples"):
        estimate_share([], 0.95)
    with pytest.raises(InputError, match="no samples"):
        estimate_share(["misclassified"], 0.95, misclassified="excluded")
    with pytest.raises(InputError, match="choose one of violated, excluded"):
        estimate_share(["proved"], 0.95, misclassified="ignored")
    with pytest.raises(InputError, match="no bracket"):
        estimate_values([(0.5, 0.2)], 0.95, (0.0, 1.0))
    with pytest.raises(InputError, match="no bracket"):
        estimate_values([math.nan], 0.95, (0.0, 1.0))
    with pytest.raises(InputError, match="value_range"):
        estimate_sequential([0.5], 0.1, 0.95)
    with pytest.raises(InputError, match="status"):
        estimate_sequential(["proved"], 0.1, 0.95, value_range=(0.0, 1.0))
    with pytest.raises(InputError, match="unknown"):
        estimate_sequential(["sat"], 0.1, 0.95)


def test_convergence() -> None:
    values = [1.0] * 30 + [0.0] * 10
    rows = convergence(values, [0.1, 0.05, 0.02], 0.95, repeats=60, replacement=True, seed=1)
    assert [r.samples for r in rows] == [hoeffding_samples(e, 0.95) for e in (0.1, 0.05, 0.02)]
    assert [r.deviation for r in rows] == sorted((r.deviation for r in rows), reverse=True)
    for row in rows:
        assert row.within >= 0.95
        assert row.smallest <= row.mean <= row.largest
        # the standard deviation of a mean of that many
        assert row.deviation == pytest.approx(math.sqrt(0.75 * 0.25 / row.samples), rel=0.5)
    assert rows == convergence(values, [0.1, 0.05, 0.02], 0.95, repeats=60, replacement=True, seed=1)
    assert rows[0].to_json()["error"] == 0.1


def test_convergence_of_subsets() -> None:
    values = [1.0] * 150 + [0.0] * 50
    rows = convergence(values, [0.2, 0.12, 0.0961], 0.95)
    assert [(r.samples, r.repeats) for r in rows] == [(47, 50), (129, 50), (200, 50)]
    # of n out of N without replacement
    for row in rows[:2]:
        assert row.deviation == pytest.approx(math.sqrt(0.75 * 0.25 / row.samples * (200 - row.samples) / 199), rel=0.35)
    assert (rows[2].deviation, rows[2].mean, rows[2].within) == (0.0, 0.75, 1.0)
    with pytest.raises(InputError, match="takes 738 samples, and there are 200"):
        convergence(values, [0.05], 0.95)


def test_convergence_bad_input() -> None:
    for values, match in (([], "at least one"), ([1.5], "outside"), ([math.nan], "outside")):
        with pytest.raises(InputError, match=match):
            convergence(values, [0.1], 0.95)
    with pytest.raises(InputError, match="repeats"):
        convergence([1.0], [0.1], 0.95, repeats=0)
    with pytest.raises(InputError, match="--error"):
        convergence([1.0], [0.0], 0.95)
