"""`onnxsub evaluate`: whole runs, going on with them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import onnxsub
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.run import DEATHS, LEDGER, RunOptions, evaluate
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.passes.select import SelectOptions
from onnxsub.verifiers.options import Limits
from tests.evaluate_tools import SAMPLES, UNITS, Call, command, facts, rows, small_plan
from tests.robustness_tools import Here


def test_results(finished: Path) -> None:
    table = pyarrow.parquet.read_table(finished / "results.parquet")
    wanted = {"index", "label", "d_adv", "d_bnd_lower", "d_bnd_upper", "d_hat_lower", "d_hat_upper", "original_lower"}
    wanted |= {"original_upper", "status", "model", "method", "gamma", "time_attack", "time_bnd", "time_prune", "time_hat"}
    assert wanted <= set(table.column_names)
    found = table.to_pylist()
    order = [(0, "lin", 0.5), (0, "lin", 0.9), (0, "act", 0.5), (0, "act", 0.9)]
    assert [(r["index"], r["method"], r["gamma"]) for r in found[:4]] == order
    for r in found:
        assert r["status"] in ("exact", "none")
        if r["status"] == "exact":
            assert 0 < r["d_bnd_upper"] - r["d_bnd_lower"] + 1e-9 <= 1.1e-6
            assert r["d_adv"] >= r["d_bnd_lower"]
            assert r["original_lower"] <= r["d_bnd_upper"] + 1e-9
            assert r["original_upper"] >= r["d_bnd_lower"] - 1e-9
            assert sum(r["kept_per_layer"]) == r["units_total"] - r["units_pruned"]
    assert sum(r["status"] == "exact" for r in found) >= 30


def test_a_row_is_what_a_single_distance_says(finished: Path, files: tuple[Path, Path]) -> None:
    with np.load(files[1]) as data:
        x = data["x"][3]
    query = onnxsub.make_query(files[0], x, threads=1)
    attack = onnxsub.AttackOptions(threads=1)
    limits = Limits(threads=1)
    via = onnxsub.PruneOptions(method="lin", select=SelectOptions(gamma=0.5), attack=attack)
    d_bnd = onnxsub.distance(query, onnxsub.DistanceOptions(limits, attack=attack))
    d_hat = onnxsub.distance(query, onnxsub.DistanceOptions(limits, via=via, attack=attack))
    row = next(r for r in rows(finished) if (r.index, r.method, r.gamma) == (3, "lin", 0.5))
    assert (row.d_bnd_lower, row.d_bnd_upper) == (d_bnd.lower, d_bnd.upper)
    assert (row.d_hat_lower, row.d_hat_upper) == (d_hat.lower, d_hat.upper)
    assert d_hat.original is not None
    assert (row.original_lower, row.original_upper) == (d_hat.original.lower, d_hat.original.upper)


def test_a_finished_run_does_nothing_again(finished: Path, call: Call) -> None:
    before = facts(finished)
    code, out, err = call("evaluate", "--run", finished, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["done_now"] == 0
    assert document["time_s"]["overhead"] is None
    assert facts(finished) == before
    with Ledger(finished / LEDGER, readonly=True) as ledger:
        assert {u.attempts for u in ledger.units()} == {1}


def test_the_table_at_a_terminal(finished: Path, call: Call) -> None:
    code, out, err = call("evaluate", "--run", finished)
    assert (code, err) == (0, "")
    assert f"{UNITS} done" in out
    assert "lin 0.5" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seed", "1"], "settings.seed is 0 there and 1 here"),
        (["--limit", "3"], 'data.index is "0-9" there and "0-2" here'),
        (["--timeout", "9"], "settings.timeout is nothing there and 9.0 here"),
        (["--nodes", "9"], "settings.nodes is nothing there and 9 here"),
    ],
)
def test_another_configuration_is_refused(
    finished: Path, files: tuple[Path, Path], call: Call, more: list[str], words: str
) -> None:
    code, out, err = call(*command(*files, finished, *more)[3:])
    assert (code, out) == (4, "")
    assert f"holds another run: {words}" in err
    assert len(err.splitlines()) == 1


def test_a_changed_model_is_refused(tmp_path: Path, files: tuple[Path, Path], call: Call) -> None:
    model = shutil.copy(files[0], tmp_path / "net.onnx")
    run = tmp_path / "run"
    assert call("evaluate", model, "--data", files[1], "--labels", "predicted", "--limit", 1, "--run", run)[0] == 0
    other = onnxsub.load(model).source
    other.producer_name = "somebody else"
    Path(model).write_bytes(other.SerializeToString())
    code, _, err = call("evaluate", "--run", run)
    assert code == 4
    assert "model[0].sha256" in err


def test_bad_input(tmp_path: Path, files: tuple[Path, Path], call: Call) -> None:
    model, data = files
    np.savez(tmp_path / "large.npz", x=np.zeros((3, 50), dtype=np.float32), y=np.zeros(3, dtype=int))
    np.savez(tmp_path / "wild.npz", x=np.full((3, 4), 7.0, dtype=np.float32), y=np.zeros(3, dtype=int))
    with np.load(data) as archive:
        np.savez(tmp_path / "classes.npz", x=archive["x"], y=np.full(SAMPLES, 3))
        np.savez(tmp_path / "wild.npz", x=archive["x"] + 7, y=np.zeros(SAMPLES, dtype=int))
        np.savez(tmp_path / "bare.npz", x=archive["x"])
    run = tmp_path / "run"
    for argv, words in (
        (("--run", run), "is no run folder"),
        ((model, "--run", run), "give --data"),
        ((model, "--data", tmp_path / "large.npz", "--run", run), "do not belong together"),
        ((model, "--data", tmp_path / "classes.npz", "--run", run), "label 3, but the model has 3 classes"),
        ((model, "--data", tmp_path / "wild.npz", "--run", run), "outside the domain"),
        ((model, "--data", tmp_path / "bare.npz", "--run", run), "has no labels"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--jobs", 0), "--jobs 0"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--address", "a:1"), "add --engine ray"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--kill-after", -1), "--kill-after -1"),
        ((model, "--data", data, "--labels", "predicted", "--run", run, "--gammas", "a"), "--gammas 'a' is no list"),
        ((model, "--data", data, "--labels", "predicted", "--run", files[0] / "run"), "cannot make the folder"),
        (("no.onnx", "--data", data, "--labels", "predicted", "--run", run), "no.onnx"),
        (("--run", run, "--limit", 3), "--limit is about a new run"),
    ):
        code, out, err = call("evaluate", *argv)
        usage = words.startswith(("--", "give --data", "add --"))
        assert (code, out) == (2 if usage else 4, ""), argv
        assert words in err, argv
        assert len(err.splitlines()) == 1
        assert not (run / LEDGER).exists()


def test_a_lost_worker_is_tried_again_with_fewer_threads(tmp_path: Path, files: tuple[Path, Path]) -> None:
    def answer(task: Task) -> Outcome | None:
        lost = task.kind == "original" and (task.id == 2 or task.threads > 2)
        return Outcome(task.id, "died", "its process was ended by SIGKILL") if lost else None

    engine = Here(answer)
    result = evaluate(small_plan(files, threads=4), tmp_path / "run", engine=engine)
    assert [t.threads for t in engine.tasks if t.id == 2] == [4, 2, 1]
    assert [t.threads for t in engine.tasks if t.id == 5] == [4, 2]
    assert result.counts == {"pending": 0, "running": 0, "done": 5, "failed": 1}
    assert result.failures == {f"its process was ended by SIGKILL; {DEATHS} times": 1}
    first, second = rows(tmp_path / "run")
    assert (first.status, first.status_bnd, first.status_hat) == ("failed", "failed", "exact")
    assert first.d_bnd_upper is None
    assert "SIGKILL" in (first.reason or "")
    assert second.status == "exact"
    willing = Here(lambda task: None)
    again = evaluate(small_plan(files, threads=4), tmp_path / "run", engine=willing)
    assert again.done_now == 0  # a failed unit is not tried again by itself
    again = evaluate(small_plan(files, threads=4), tmp_path / "run", RunOptions(retry_failed=True), engine=willing)
    assert again.done_now == 1
    assert again.counts["done"] == 6


def test_an_error_of_a_unit_is_its_reason(tmp_path: Path, files: tuple[Path, Path]) -> None:
    def answer(task: Task) -> Outcome | None:
        return Outcome(task.id, "failed", "no such thing") if task.kind == "attack" and task.id == 1 else None

    result = evaluate(small_plan(files), tmp_path / "run", engine=Here(answer))
    assert result.counts["failed"] == 3
    assert rows(tmp_path / "run")[0].status == "failed"
    assert result.failures == {"no such thing": 1, "its attack failed: no such thing": 2}


def test_misclassified_samples_cost_nothing(tmp_path: Path, files: tuple[Path, Path]) -> None:
    with np.load(files[1]) as archive:
        predicted = [onnxsub.make_query(files[0], x, threads=1).predicted for x in archive["x"][:2]]
        np.savez(tmp_path / "d.npz", x=archive["x"], y=[(predicted[0] + 1) % 3, predicted[1], *[0] * (SAMPLES - 2)])
    engine = Here(lambda task: None)
    result = evaluate(small_plan((files[0], tmp_path / "d.npz"), labels="y"), tmp_path / "run", engine=engine)
    assert result.counts["done"] == 6
    assert [t.kind for t in engine.tasks] == ["attack", "attack", "original", "substitute"]
    first = rows(tmp_path / "run")[0]
    assert (first.status, first.d_bnd_lower, first.d_bnd_upper, first.d_adv) == ("misclassified", 0.0, 0.0, 0.0)
    (line,) = result.lines
    assert (line.misclassified, line.counted) == (1, 1)
