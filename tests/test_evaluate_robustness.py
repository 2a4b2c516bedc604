"""`onnxsub robustness`: each metric of a small run against what it is made of, going on, stopping early."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import onnxsub
from onnxsub.errors import InputError
from onnxsub.evaluate.drive import LEDGER, RunOptions
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.robustness.choose import choose
from onnxsub.evaluate.robustness.result import RobustnessResult
from onnxsub.evaluate.robustness.run import open_robustness, robustness
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import Choice
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.metrics.intervals import clopper_pearson
from onnxsub.metrics.local import LocalOptions, decide_local, make_property
from tests.evaluate_tools import SAMPLES, make_files
from tests.robustness_tools import Here, plan_of


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path]) -> tuple[Path, Path]:
    """The same samples with labels, those of the samples 2 and 5 wrong."""
    with np.load(files[1]) as archive:
        x = archive["x"]
    y = np.array([onnxsub.make_query(files[0], row, threads=1).predicted for row in x])
    y[[2, 5]] = (y[[2, 5]] + 1) % 3
    path = tmp_path_factory.mktemp("wrong") / "data.npz"
    np.savez(path, x=x, y=y)
    return files[0], path


def kept(result: RobustnessResult) -> list[tuple[object, ...]]:
    """What of the rows does not depend on the clock."""
    return [(r.index, r.label, r.predicted, r.status, r.lower, r.upper, r.value, r.distance, r.satisfied) for r in result.rows]


@pytest.mark.parametrize(
    ("name", "parameter"), [("cr", {}), ("sr", {"delta": 0.05}), ("scr", {"eta": 0.35}), ("confidence", {"gamma": 0.02})]
)
def test_a_row_is_what_a_single_decision_says(
    tmp_path: Path, files: tuple[Path, Path], name: str, parameter: dict[str, float]
) -> None:
    result = robustness(plan_of(files, 4, prop=name, **parameter), tmp_path / "run", engine=Here())
    with np.load(files[1]) as archive:
        queries = [onnxsub.make_query(files[0], x, threads=1) for x in archive["x"][:4]]
    single = [decide_local(q, make_property(name, 0.1, **parameter), LocalOptions()) for q in queries]
    assert [r.status for r in result.rows] == [v.status for v in single]
    assert [r.distance for r in result.rows] == [v.distance for v in single]
    written = pyarrow.parquet.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert [r["status"] for r in written] == [v.status for v in single]
    assert {"index", "label", "lower", "upper", "value", "distance", "time_total", "time_attack"} <= set(written[0])


def test_satisfaction_counts_each_sample_once(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    def answer(task: Task) -> Outcome | None:
        if task.id == 1:
            return Outcome(task.id, "failed", "no such thing")
        return Outcome(task.id, "done", None, {"status": "undecided", "time_s": {"total": 0.0}}) if task.id == 2 else None

    result = robustness(plan_of(wrong, labels="y"), tmp_path / "run", engine=Here(answer))
    c = result.counts
    assert c.misclassified == (2, 5)
    assert c.undecided == (0, 1)  # what broke off is undecided too
    assert sorted(c.proved + c.violated + c.undecided + c.misclassified) == list(range(SAMPLES))
    proved = len(c.proved)
    assert (result.measure.lower, result.measure.upper) == (proved / SAMPLES, (proved + 2) / SAMPLES)
    interval = result.measure.interval
    assert interval is not None
    assert interval.lower == clopper_pearson(proved, SAMPLES, 0.95).lower
    assert interval.upper == clopper_pearson(proved + 2, SAMPLES, 0.95).upper
    document = result.to_json(indices=True)
    assert [document[k] for k in ("proved", "violated", "undecided", "misclassified")] == [proved, len(c.violated), 2, 2]
    assert document["index"]["misclassified"] == [2, 5]
    assert document["failures"] == {"no such thing": 1}
    assert "violated" in document["estimate"]["counted"]
    assert "index" not in result.to_json()


def test_a_property_without_classes_needs_no_labels(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    plan = plan_of(wrong, prop="sr", delta=0.5)
    assert plan.samples.y is None
    result = robustness(plan, tmp_path / "run", engine=Here())
    assert result.counts.misclassified == ()
    assert len(result.counts.proved) == SAMPLES
    with pytest.raises(InputError, match="does not speak of classes"):
        choose(plan.settings, wrong[1], Choice(), labels="y")
    with np.load(wrong[1]) as archive:
        np.savez(tmp_path / "bare.npz", x=archive["x"])
    with pytest.raises(InputError, match="has no labels that belong"):
        choose(RobustnessSettings("satisfaction", 0.1), tmp_path / "bare.npz", Choice())


def test_security_is_an_upper_bound_of_satisfaction(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    proof = robustness(plan_of(wrong, 6, labels="y"), tmp_path / "proof", engine=Here())
    attack = robustness(plan_of(wrong, 6, labels="y", metric="security"), tmp_path / "attack", engine=Here())
    assert attack.counts.proved == ()
    assert attack.counts.misclassified == (2, 5)
    assert set(attack.counts.violated) <= set(proof.counts.violated)
    assert attack.measure.lower is not None
    assert proof.measure.upper is not None
    assert attack.measure.lower >= proof.measure.upper
    assert "proves nothing" in attack.measure.guarantee
    broken = robustness(
        plan_of(wrong, 3, labels="y", metric="security"), tmp_path / "broken",
        engine=Here(lambda t: Outcome(t.id, "failed", "no such thing") if t.id == 1 else None),
    )  # fmt: skip
    # a unit that broke off is no attack that failed
    assert broken.measure.upper is not None
    assert broken.measure.lower == pytest.approx(broken.measure.upper - 1 / 3)


def test_accuracy_draws_other_points_in_every_ball(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    result = robustness(plan_of(wrong, labels="y", metric="accuracy", eps=0.3, draws=60), tmp_path / "run", engine=Here())
    rows = {r.index: r for r in result.rows}
    assert rows[2].satisfied == rows[2].drawn == 0
    drawn = [r for r in result.rows if r.status == "drawn"]
    assert all(r.drawn == 60 for r in drawn)
    assert len({r.satisfied for r in drawn}) > 2
    share = clopper_pearson(drawn[0].satisfied or 0, 60, 0.95)
    assert (drawn[0].lower, drawn[0].upper) == (share.lower, share.upper)
    assert result.measure.lower == sum(r.satisfied or 0 for r in drawn) / (60 * SAMPLES)
    broken = robustness(
        plan_of(wrong, labels="y", metric="accuracy", eps=0.3, draws=60), tmp_path / "broken",
        engine=Here(lambda t: Outcome(t.id, "failed", "no such thing") if t.id == 1 else None),
    )  # fmt: skip
    assert broken.measure.upper == pytest.approx((broken.measure.lower or 0.0) + 1 / SAMPLES)
    # of points for which a sample's time did not suffice, nothing is known
    half = {
        "label": 0, "predicted": 0, "shape": (1,), "status": "drawn", "satisfied": 30, "drawn": 30, "lower": 0.0, "upper": 1.0,
        "time_s": {"total": 0.1},
    }  # fmt: skip
    late = robustness(
        plan_of(wrong, labels="y", metric="accuracy", eps=0.3, draws=60), tmp_path / "late",
        engine=Here(lambda t: Outcome(t.id, "done", None, half) if t.id == 1 else None),
    )  # fmt: skip
    assert late.measure.upper == pytest.approx((late.measure.lower or 0.0) + 30 / (60 * SAMPLES))
    more = result.to_json()["estimate"]
    assert more["of_these_samples"]["lower"] <= more["lower"] <= more["of_these_samples"]["upper"]
    assert set(result.counts.violated) == {r.index for r in drawn if r.satisfied != 60}


def test_pointwise_brackets_by_every_way(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    found = {}
    for way, more in (("exact", {}), ("substitute", {"via": "lin:0.5"}), ("attack", {}), ("region", {})):
        plan = plan_of(wrong, 3, labels="y", metric="pointwise", distances=way, **more)
        found[way] = robustness(plan, tmp_path / way, engine=Here())
    exact = {r.index: r for r in found["exact"].rows}
    assert exact[2].status == "misclassified"
    assert all(r.status in ("exact", "none") for r in exact.values() if r.index != 2)
    for way, result in found.items():
        for r in result.rows:
            assert r.lower is not None
            assert r.upper is not None
            e = exact[r.index]
            # every bracket holds the exact distance
            assert r.lower <= (e.upper or 0) + 1e-9
            assert r.upper >= (e.lower or 0) - 1e-9
        assert result.counts.misclassified == (2,)
        assert result.measure.lower == np.mean([(r.upper or 0) <= 0.1 for r in result.rows])
        assert way in ("exact", "substitute") or result.counts.proved == ()
    near = [r.upper or 0.0 for r in exact.values() if (r.upper or 0.0) <= 0.1]
    assert found["exact"].to_json()["estimate"]["severity"]["upper"] == pytest.approx(np.mean(near), abs=1e-5)
    for way, by in (("exact", "exact"), ("substitute", "lin:0.5"), ("attack", "attack"), ("region", "region")):
        told = found[way].to_json()["estimate"]["estimated"]
        taken = [math.inf if (d := r.upper if r.value is None else r.value) is None else d for r in found[way].rows]
        assert told["by"] == by
        assert told["frequency"] == np.mean([d <= 0.1 for d in taken])
        assert told["severity"] == pytest.approx(np.mean([d for d in taken if d <= 0.1]))
    assert all((r.value is not None) == (r.status != "misclassified") for r in found["substitute"].rows)


def test_quantitative_means(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    d = robustness(plan_of(wrong, 6, labels="y", metric="global", quantitative=True, eps=0.2), tmp_path / "cr", engine=Here())
    shares = [min(r.upper or 0.0, 0.2) / 0.2 for r in d.rows]
    assert d.measure.upper == pytest.approx(math.fsum(shares) / 6)
    assert d.measure.lower == pytest.approx(d.measure.upper, abs=1e-4)
    assert d.counts.misclassified == (2, 5)
    scr = robustness(
        plan_of(wrong, 6, labels="y", metric="global", quantitative=True, prop="scr", eta=0.2), tmp_path / "scr", engine=Here()
    )
    assert scr.measure.lower is not None
    assert scr.measure.upper is not None
    found = [r for r in scr.rows if r.status != "misclassified"]
    assert [r.status for r in found] == ["exact"] * 4
    assert all(r.lower <= r.upper <= r.lower + 1e-3 for r in found if r.lower is not None and r.upper is not None)
    # the parameter only sorts the samples
    assert set(scr.counts.proved) == {r.index for r in found if r.lower is not None and r.lower >= 0.2}
    assert 0 <= scr.measure.lower <= scr.measure.upper <= 1


@pytest.mark.parametrize(
    ("method", "prop", "own", "side"), [("fgsm", "confidence", {"gamma": 0.3}, "lower"), ("pgd", "scr", {"eta": 0.2}, "upper")]
)
def test_an_approximation_bounds_the_mean_on_one_side(
    tmp_path: Path, wrong: tuple[Path, Path], method: str, prop: str, own: dict[str, float], side: str
) -> None:
    given = {"metric": "global", "quantitative": True, "prop": prop, **own, **({"labels": "y"} if prop == "scr" else {})}
    found = robustness(plan_of(wrong, 3, approximate=method, **given), tmp_path / "run", engine=Here())
    document = found.to_json()
    estimate, interval = document["estimate"], document["interval"]
    assert estimate["approximate"] == {"method": method, "bound": side, "value": estimate[side]}
    assert (document["proved"], found.nothing_decided) == (0, False)
    assert (estimate["upper"] if side == "lower" else estimate["lower"]) == (1.0 if side == "lower" else 0.0)
    assert (interval["upper"] if side == "lower" else interval["lower"]) == (1.0 if side == "lower" else 0.0)
    assert f"bounds the true one from {'below' if side == 'lower' else 'above'} only" in document["guarantee"]
    assert "nothing is proved" in document["guarantee"]
    assert "Proved means" not in document["guarantee"]
    assert {r.status for r in found.rows} <= {"approximate", "misclassified"}
    assert all(r.verifier == method for r in found.rows)
    whole = robustness(plan_of(wrong, 3, **given), tmp_path / "whole", engine=Here())
    for one, other in zip(found.rows, whole.rows, strict=True):
        assert one.upper is None or other.lower is None or one.upper >= other.lower - 1e-9
        assert one.lower is None or other.upper is None or one.lower <= other.upper + 1e-9
    assert set(found.counts.violated) <= set(whole.counts.violated) | set(whole.counts.undecided)


def test_security_by_fgsm(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    given = {"labels": "y", "metric": "security", "eps": 0.2}
    runs = {
        name: robustness(plan_of(wrong, 4, attack=name, **given), tmp_path / str(name), engine=Here())
        for name in ("fgsm", "pgd", None)
    }
    violated = {name: set(run.counts.violated) for name, run in runs.items()}
    assert violated["fgsm"] <= violated["pgd"] <= violated[None]
    assert all(run.counts.proved == () for run in runs.values())
    assert {r.verifier for r in runs["fgsm"].rows if r.status == "undecided"} <= {"fgsm"}
    assert runs["fgsm"].to_json()["settings"]["attack"] == "fgsm"


def test_a_range_cuts_the_mean_and_not_what_is_known_of_a_misclassified_sample(tmp_path: Path, wrong: tuple[Path, Path]) -> None:
    given = {"labels": "y", "metric": "global", "quantitative": True, "prop": "scr", "eta": 0.2, "value_range": (0.6, 1.0)}
    rows = [r for r in robustness(plan_of(wrong, 3, **given), tmp_path / "run", engine=Here()).rows if r.status == "misclassified"]
    assert rows
    assert all(r.lower == 0.0 and r.upper is not None and r.upper < 0.6 for r in rows)


def test_an_interrupted_run_goes_on_and_repeats_nothing(tmp_path: Path, files: tuple[Path, Path]) -> None:
    calm = robustness(plan_of(files), tmp_path / "calm", engine=Here())
    seen: list[int] = []

    def stops(task: Task) -> None:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(task.id)

    part = robustness(plan_of(files), tmp_path / "run", engine=Here(stops))
    assert part.interrupted
    assert not part.finished
    assert len(part.counts.pending) == SAMPLES - 4
    assert part.measure.interval is None
    assert part.measure.guarantee.startswith("Nothing yet: 6 samples")
    rest = robustness(open_robustness(tmp_path / "run"), tmp_path / "run", engine=(engine := Here()))
    assert [t.id for t in engine.tasks] == [i for i in range(1, SAMPLES + 1) if i not in seen]
    assert kept(rest) == kept(calm)
    assert rest.measure == calm.measure
    with Ledger(tmp_path / "run" / LEDGER, readonly=True) as ledger:
        assert {u.kind for u in ledger.units()} == {"decide"}


def test_a_lost_worker_counts_as_undecided_in_the_end(tmp_path: Path, files: tuple[Path, Path]) -> None:
    engine = Here(lambda t: Outcome(t.id, "died", "its process was ended by SIGKILL") if t.id == 3 else None)
    result = robustness(plan_of(files), tmp_path / "run", engine=engine)
    assert [t.id for t in engine.tasks].count(3) == 3
    assert result.counts.undecided == (2,)
    assert "SIGKILL" in (result.rows[2].reason or "")
    again = robustness(plan_of(files), tmp_path / "run", RunOptions(retry_failed=True), engine=Here())
    assert again.done_now == 1
    assert again.counts.undecided == ()
