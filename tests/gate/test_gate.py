"""What passes and what fails: told verdicts, read both ways where they are undecided; the cache, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub import gate
from onnxsub.errors import InputError
from onnxsub.evaluate.drive import PLAN
from onnxsub.evaluate.plan import Plan, difference
from onnxsub.evaluate.samples import Choice
from onnxsub.gate.comparison import Fall
from onnxsub.gate.options import NODES, GateOptions
from onnxsub.gate.run import run_gate, samples_of
from onnxsub.metrics.paired import mcnemar, paired_interval
from tests.evaluate_tools import rewrite
from tests.gate.tools import Told, tell

Patch = pytest.MonkeyPatch


@pytest.mark.parametrize(
    ("old", "new", "verdict", "lost", "won", "drop"),
    [
        # one lost of ten is 10 points
        ("PPPPPPPPPP", "PPPPPPPPPV", "failed", [9], [], (0.1, 0.1)),
        ("PPPPPPPPPP", "PPPPPPPPPM", "failed", [9], [], (0.1, 0.1)),
        ("PPPPPPPPVV", "PPPPPPPVPV", "passed", [7], [8], (0.0, 0.0)),
        ("PPPPPPPPVV", "PPPPPPPPPP", "passed", [], [8, 9], (-0.2, -0.2)),
        # what is undecided may be either
        ("PPPPPPPPPP", "PPPPPPPPPU", "undecided", [9], [], (0.0, 0.1)),
        ("PPPPPPPPPP", "PPPPPPPPVU", "failed", [8, 9], [], (0.1, 0.2)),
        ("PPPPPPPPPV", "PPPPPPPPVU", "undecided", [8], [], (0.0, 0.1)),
        # a sample that broke off is undecided
        ("PPPPPPPPPP", "PPPPPPPPPF", "undecided", [9], [], (0.0, 0.1)),
        # the baseline's undecided samples were no promise, and two undecided ones are no change
        ("PPPPPPPPUU", "PPPPPPPPVV", "passed", [], [], (0.0, 0.0)),
        ("PPPPPPPPUU", "PPPPPPPPUU", "passed", [], [], (0.0, 0.0)),
        ("PPPPPPPPUU", "PPPPPPPVUU", "failed", [7], [], (0.1, 0.1)),
        ("PPPPPPPPUU", "PPPPPPPVUP", "passed", [7], [9], (0.0, 0.0)),
    ],
)  # fmt: skip
def test_what_fails(
    tmp_path: Path, monkeypatch: Patch, old: str, new: str, verdict: str, lost: list[int], won: list[int], drop: tuple[float, float]
) -> None:
    told = tell(tmp_path, monkeypatch, old, new)
    result = told.gate()
    assert result.verdict == verdict
    assert result.passed == (verdict == "passed")
    assert result.headline.startswith(f"{verdict}: the share of samples proved robust went from ")
    assert sorted(p.index for p in result.lost) == lost
    assert [p.index for p in result.won] == won
    assert result.comparison is not None
    assert (result.comparison.least.drop, result.comparison.most.drop) == pytest.approx(drop)
    strict = told.gate(fail_on_undecided=True)
    assert strict.verdict == ("failed" if verdict == "undecided" else verdict)


def test_the_evidence_is_the_exact_test(tmp_path: Path, monkeypatch: Patch) -> None:
    result = tell(tmp_path, monkeypatch, "P" * 20, "P" * 14 + "V" * 6).gate()
    assert result.comparison is not None
    assert result.comparison.most.p_value == mcnemar(6, 0) == 2 / 64
    interval = paired_interval(6, 0, 20, 0.95)
    assert (result.comparison.interval.lower, result.comparison.interval.upper) == (interval.lower, interval.upper)
    open_ = tell(tmp_path, monkeypatch, "P" * 20, "P" * 14 + "VVVVUU").gate(cache=tmp_path / "other").comparison
    assert open_ is not None
    assert open_.interval.lower == paired_interval(4, 0, 20, 0.95).lower
    assert open_.interval.upper == interval.upper


def test_significance_is_asked_for_beside_the_drop(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "P" * 20, "P" * 15 + "V" * 5)  # p = 0.0625
    assert told.gate().verdict == "failed"
    assert told.gate(significance=0.05).verdict == "passed"
    assert told.gate(significance=0.1).verdict == "failed"
    assert told.gate(significance=0.1, max_drop=0.25).verdict == "passed"


@pytest.mark.parametrize(
    ("drop", "most", "beyond"), [(0.29, 0.29, False), (0.07, 0.07, False), (0.30, 0.29, True), (0.0, 0.0, False)]
)
def test_a_drop_of_exactly_what_is_allowed_passes(drop: float, most: float, beyond: bool) -> None:
    down = round(100 * drop)
    assert Fall(down / 100, down, 0).beyond(most, None) == beyond


@pytest.mark.parametrize(
    ("new", "least", "verdict"),
    [
        ("PPPPPPPPVV", 0.8, "passed"), ("PPPPPPPPVV", 0.81, "failed"),
        ("PPPPPPPPVU", 0.9, "undecided"), ("PPPPPPPPVU", 0.95, "failed"),
    ],
)  # fmt: skip
def test_a_share_can_be_asked_for_without_a_baseline(
    tmp_path: Path, monkeypatch: Patch, new: str, least: float, verdict: str
) -> None:
    told = tell(tmp_path, monkeypatch, new, new)
    result = gate(told.new, data=told.data, eps=0.1, min_proved=least, cache=tmp_path / "cache")
    assert result.verdict == verdict
    assert (result.old, result.comparison, result.lost, result.won) == (None, None, (), ())
    assert [c.name for c in result.checks] == ["min-proved"]


def test_every_check_must_pass(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPPPPPPP", "PPPPPPPPPP")
    assert told.gate(min_proved=1.0).verdict == "passed"
    worse = tell(tmp_path, monkeypatch, "PPPPPVVVVV", "PPPPPVVVVV").gate(min_proved=0.6, cache=tmp_path / "other")
    assert [c.outcome for c in worse.checks] == ["passed", "failed"]
    assert worse.headline == "failed: 5 of 10 samples (50.0 %) are proved, at least 60 % are wanted"


def test_an_attack_that_fails_counts_as_robust(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "UUUUUUUUVV", "UUUUUUUVVF")
    result = told.gate(metric="security")
    assert result.counts("old") == {"withstood": 8, "violated": 2, "undecided": 0, "misclassified": 0}
    assert result.counts("new") == {"withstood": 7, "violated": 2, "undecided": 1, "misclassified": 0}
    assert result.comparison is not None
    # the last sample broke off: it may have withstood
    assert (result.comparison.least.drop, result.comparison.most.drop) == pytest.approx((0.0, 0.1))
    assert told.engine.tasks[0].kind == "resist"
    with pytest.raises(InputError, match="min-proved"):
        GateOptions(0.1, metric="security", min_proved=0.5)


@pytest.mark.parametrize(
    ("new", "most", "verdict"),
    [
        ([(0.2, 0.2)] * 4, 0.02, "passed"),
        ([(0.2, 0.2), (0.2, 0.2), (0.1, 0.1), (0.1, 0.1)], 0.24, "failed"),  # a quarter of the mean is gone
        ([(0.2, 0.2), (0.2, 0.2), (0.1, 0.1), (0.1, 0.1)], 0.26, "passed"),
        ([(0.2, 0.2), (0.2, 0.2), (0.1, 0.2), (0.1, 0.2)], 0.24, "undecided"),
        ([(0.0, 0.0), (0.2, 0.2), (0.3, 0.3), (0.3, 0.3)], 0.0, "passed"),
    ],
)  # fmt: skip
def test_distances(tmp_path: Path, monkeypatch: Patch, new: list[tuple[float, float]], most: float, verdict: str) -> None:
    told = tell(tmp_path, monkeypatch, [(0.2, 0.2)] * 4, new, brackets=True)
    result = told.gate(metric="distance", max_drop=most, min_distance=0.1)
    assert result.checks[0].outcome == verdict
    assert result.checks[1].outcome == "passed"
    assert result.mean_distance == pytest.approx(np.mean([low for low, _ in new]))
    assert told.engine.tasks[0].kind == "locate"
    down = sum(low < 0.2 for low, _ in new)
    assert result.comparison is not None
    assert result.comparison.most.p_value == mcnemar(down, sum(low > 0.2 for low, _ in new))


def test_a_distance_without_a_boundary_is_the_width_of_the_domain(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, [(np.inf, np.inf)] * 2, [(np.inf, np.inf), (0.5, 0.5)], brackets=True)
    result = told.gate(metric="distance", min_distance=0.7)
    assert result.comparison is not None
    assert result.comparison.old == 1.0
    assert result.checks[0].lower == pytest.approx(0.25)


def test_what_lies_in_the_cache_is_not_done_again(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPV", "PPPVV")
    first = told.gate()
    assert (first.old.computed if first.old else None, first.new.computed) == (5, 5)
    again = told.gate()
    assert (again.old.computed if again.old else None, again.new.computed) == (0, 0)
    assert len(told.engine.tasks) == 10
    assert (again.verdict, [p.index for p in again.lost]) == (first.verdict, [3])
    # the released model under another name is the same model, and what was new is the next baseline
    renamed = told.new.rename(tmp_path / "accepted.onnx")
    result = gate(renamed, renamed, data=told.data, eps=0.1, cache=tmp_path / "cache")
    assert (result.passed, result.new.computed, len(told.engine.tasks)) == (True, 0, 10)
    # the cache is no business of a version control
    assert (tmp_path / "cache" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("change", [{"eps": 0.2}, {"nodes": 7}, {"limit": 4}, {"seed": 1}, {"timeout": 3.0, "nodes": None}])
def test_other_settings_are_another_run(tmp_path: Path, monkeypatch: Patch, change: dict[str, Any]) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPV", "PPPVV")
    told.gate()
    told.gate(**change)
    assert len(told.engine.tasks) == 10 + 2 * change.get("limit", 5)


def test_the_baseline_may_be_a_run(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPV", "PPPVV")
    first = told.gate()
    assert first.old is not None
    told.old.unlink()  # the run suffices
    again = told.gate(baseline=first.old.folder, cache=tmp_path / "other")
    assert (again.verdict, [p.index for p in again.lost]) == ("failed", [3])
    assert again.old is not None
    assert again.old.sha256 == first.old.sha256
    with pytest.raises(InputError, match=r"cannot be compared: settings.eps is 0.1 there and 0.2 here"):
        told.gate(baseline=first.old.folder, eps=0.2)
    with pytest.raises(InputError, match=r"data.index is \"0-4\" there and \"0-2\" here"):
        told.gate(baseline=first.old.folder, limit=3)
    with pytest.raises(InputError, match=r"without run\.toml"):
        told.gate(baseline=tmp_path)


def test_a_run_that_is_not_finished_is_no_baseline(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPV", "PPPVV")
    first = told.gate()
    assert first.old is not None
    rewrite(first.old.folder, "UPDATE units SET state = 'pending' WHERE sample = 2")
    with pytest.raises(InputError, match="is not finished: 1 samples are pending"):
        told.gate(baseline=first.old.folder)
    assert (first.old.folder / PLAN).is_file()


def test_labels_of_a_file_of_their_own_are_part_of_the_data(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPV", "PPPVV")
    with np.load(told.data) as archive:
        np.save(tmp_path / "x.npy", archive["x_test"])
        y = archive["y_test"]
    computed = []
    for labels in (y, y, y + 1):
        np.save(tmp_path / "y.npy", labels)
        options = GateOptions(0.1)
        samples = samples_of(tmp_path / "x.npy", Choice(), options, labels=str(tmp_path / "y.npy"))
        computed.append(run_gate(told.new, told.old, samples, options, cache=tmp_path / "cache").new.computed)
    assert computed == [5, 0, 5]
    # a run folder from before that says nothing of the labels can still be gone on with
    document = Plan((), samples, options.settings, ()).to_json()
    assert document["data"]["labels_sha256"] != replace(samples, y=y).labels_sha256
    old = {**document, "data": {k: v for k, v in document["data"].items() if k != "labels_sha256"}}
    assert difference(old, document) is None


def test_nothing_compared_is_nothing_passed(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "MMMMM", "MMMMM")
    result = told.gate()
    assert result.verdict == "undecided"
    assert "the baseline guarantees nothing here" in result.checks[0].said
    for number, (old, new, verdict) in enumerate(
        [("UUUUU", "UUUUU", "undecided"), ("FFFFF", "FFFFF", "undecided"), ("VVVVV", "PVVVV", "passed")]
    ):
        assert tell(tmp_path, monkeypatch, old, new).gate(cache=tmp_path / str(number)).verdict == verdict
    none = tell(tmp_path, monkeypatch, [(0.0, 0.0)] * 3, [(0.0, 0.0)] * 3, brackets=True)
    assert none.gate(metric="distance", cache=tmp_path / "distance").verdict == "undecided"


def test_samples_that_rose_are_no_evidence_of_a_fall() -> None:
    assert not Fall(0.3, 5, 40).beyond(0.02, 0.05)
    assert Fall(0.3, 40, 5).beyond(0.02, 0.05)
    assert Fall(0.3, 5, 40).beyond(0.02, None)


def test_names_that_are_not_the_classes_of_the_model(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "P", "P")
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        np.save(tmp_path / "images" / name / "0.npy", np.zeros((1, 4, 4), np.float32))
    options = GateOptions(0.1)
    two = samples_of(tmp_path / "images", Choice(), options)
    with pytest.raises(InputError, match=r"has 2 class names, and model .* has 3 classes; say with --classes which is which"):
        run_gate(told.new, None, two, replace(options, min_proved=0.5), cache=tmp_path / "cache")
    stated = samples_of(tmp_path / "images", Choice(), options, classes=("cat=1", "dog=2"))
    assert stated.sorted_names is None


@pytest.mark.parametrize("index", [(), (-1,), (1, 1)])
def test_rows_are_named_once(index: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="give each row once, from 0 on"):
        Choice(index)


def test_arrays_are_data(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPV", "PPPVV")
    with np.load(told.data) as archive:
        x, y = archive["x_test"], archive["y_test"]
    result = told.gate(data=x, labels=y)
    assert [p.index for p in result.lost] == [3]
    assert told.gate(data=x, labels=y).new.computed == 0
    assert told.gate(data=x, labels=y + 1).new.computed == 5  # other labels are other data
    with pytest.raises(InputError, match="5 images need as many whole labels"):
        told.gate(data=x, labels=y[:3])
    with pytest.raises(InputError, match="no array"):
        told.gate(data=x[0, 0, 0], labels=y)


def test_nothing_is_asked_of_the_model(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "P", "P")
    with pytest.raises(InputError, match="nothing is asked of the model"):
        gate(told.new, data=told.data, eps=0.1, cache=tmp_path / "cache")
    with pytest.raises(InputError, match="compare with a baseline"):
        gate(told.new, data=told.data, eps=0.1, max_drop=0.1, min_proved=0.5, cache=tmp_path / "cache")
    assert not told.engine.tasks
    with pytest.raises(InputError, match="'max_dorp'"):
        told.gate(max_dorp=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "robustness"}, "--metric 'robustness' is unknown"),
        ({"max_drop": 2}, "--max-drop 2 is no share"),
        ({"min_proved": -0.1}, "--min-proved -0.1 is no share"),
        ({"significance": 1}, "--significance 1 must lie strictly between"),
        ({"min_distance": 0.1}, "--min-distance belongs to --metric distance"),
        ({"metric": "distance", "min_distance": float("nan")}, "--min-distance nan is no distance"),
        ({"metric": "security", "nodes": 5}, "--nodes belongs to --metric"),
        ({"eps": -1}, "--eps -1 is not a radius"),
    ],
)  # fmt: skip
def test_options_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GateOptions(**{"eps": 0.1, **given})


def test_the_limit_is_in_nodes_unless_seconds_are_given() -> None:
    assert GateOptions(0.1).nodes == NODES
    assert not GateOptions(0.1).by_machine
    timed = GateOptions(0.1, timeout=5.0)
    assert (timed.nodes, timed.by_machine) == (None, True)
    assert GateOptions(0.1, metric="security").nodes is None
    assert replace(GateOptions(0.1), nodes=3).settings.nodes == 3


def test_ctrl_c_keeps_what_is_done(tmp_path: Path, monkeypatch: Patch) -> None:
    told = tell(tmp_path, monkeypatch, "PPPPV", "PPPVV")
    answer, seen = told.engine._answer, []

    def stop(task: Any) -> Any:
        seen.append(task)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return answer(task)

    told.engine._answer = stop
    with pytest.raises(KeyboardInterrupt):
        told.gate()
    assert told.gate().new.computed == 3
    assert len(seen) == 11


def test_told_files_are_two_models(tmp_path: Path, monkeypatch: Patch) -> None:
    told: Told = tell(tmp_path, monkeypatch, "P", "P")
    assert told.old.read_bytes() != told.new.read_bytes()
