"""Fine-tuning: which points of a run count, that they are trained on, and what is refused; and the attack that is its baseline."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxsub.budget import Budget
from onnxsub.compress.importance import SCORES, has_scores
from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.examples import read_points
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.pairs.run import run_pairs
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import Choice, Samples, read_samples
from onnxsub.metrics.adversarial import AdversarialOptions
from onnxsub.model import load_model
from onnxsub.passes.attack.lbfgs import LbfgsOptions, lbfgs_attack
from onnxsub.query import make_query
from onnxsub.region import InputSpace
from onnxsub.study.finetune import FinetuneOptions, finetune, with_examples
from onnxsub.study.tuning import TuningOptions, TuningResult, study_tuning
from onnxsub.study.tuning_report import write_report
from onnxsub.verifiers.distance import distance
from onnxsub.zoo.file_net import images_for, images_from
from onnxsub.zoo.images import ImageSet, Labelled
from onnxsub.zoo.pipeline import exported, trained
from onnxsub.zoo.recipe import default_recipe
from tests.cli.conftest import Run
from tests.handmade import Net
from tests.robustness_tools import Here
from tests.test_zoo_train import DATA, StopError, blobs

PLAIN = InputSpace()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of the blobs, and images of which every label is right."""
    where = tmp_path_factory.mktemp("tune")
    state = trained(default_recipe("blobs", "mlp:8", name="full", epochs=20), DATA, where / "m.pt")
    onnx.save(exported(state, DATA)[0], str(where / "model.onnx"))
    assert DATA.test is not None
    np.savez(where / "blobs.npz", x_train=DATA.train.x[:, 0], y_train=DATA.train.y, x_test=DATA.test.x[:, 0], y_test=DATA.test.y)
    return where


def pointwise(folder: Path, how: str, run: Path, limit: int = 3) -> None:
    samples = read_samples(folder / "blobs.npz", Choice(None, 1, limit), "x_train", "y_train")
    settings = RobustnessSettings("pointwise", 0.2, distances=how)
    assert robustness(Plan.of((str(folder / "model.onnx"),), samples, settings), run, engine=Here()).finished


@pytest.mark.parametrize("how", ["exact", "region", "lbfgs"])
def test_the_points_of_a_run_are_trained_on(onnxsub: Run, folder: Path, tmp_path: Path, how: str) -> None:
    pointwise(folder, how, tmp_path / "run", 3 if how == "exact" else 8)
    model = load_model(folder / "model.onnx")
    points = read_points(tmp_path / "run", 64)
    query_margins = []
    for x, y in zip(points.x, points.y, strict=True):
        query = make_query(model, x.reshape(1, 8, 8), int(y), space=PLAIN)
        query_margins.append(query.misclassified or float(query.margins(query.x0[None])[0][0]) >= 0)
    assert all(query_margins), "every point is beyond the boundary, or on it"
    line = ("zoo", "finetune", folder / "model.onnx", "--examples", tmp_path / "run", "--data", folder / "blobs.npz",
            "--epochs", 8, "--repeat", 20, "--rate", 0.01, "-o", tmp_path / "tuned.onnx")  # fmt: skip
    ran = onnxsub(*line, "--json")
    assert ran.code == 0, ran.err
    keys = ran.json
    assert keys["schema"] == "onnxsub.finetune/1"
    assert 0 < keys["examples"] <= keys["points"] == len(points)
    assert keys["fooled"] < keys["examples"]
    assert keys["accuracy"]["after"] > 0.9
    before = (tmp_path / "tuned.onnx").read_bytes()
    assert "still wrong" in onnxsub(*line).out
    assert (tmp_path / "tuned.onnx").read_bytes() == before
    assert "of another training: phases" in onnxsub(*line, "--epochs", 2).line


def test_pairs_and_several_runs(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "pairs"
    samples = read_samples(folder / "blobs.npz", Choice(None, 1, 2), "x_test", "y_test")
    files = (str(folder / "model.onnx"),)
    (pairs,) = run_pairs(files, samples, AdversarialOptions(0.3), run, engine=Here()).summary
    pointwise(folder, "region", tmp_path / "region", 2)
    model = load_model(folder / "model.onnx")
    found = finetune(model, [run, tmp_path / "region"], DATA, FinetuneOptions(epochs=1))
    # the best point of a pair without an example is none
    assert 0 < found.examples <= found.points
    assert found.examples >= len(pairs.examples) > 0
    again = finetune(model, [run, tmp_path / "region"], DATA, FinetuneOptions(epochs=1))
    assert again.proto == found.proto
    scored = ModelProto()
    scored.CopyFrom(model.source)
    prop = next(node for node in scored.graph.node if node.op_type == "Relu").metadata_props.add()
    prop.key, prop.value = SCORES, json.dumps([0.0] * 8)
    tuned = finetune(load_model(scored), [run], DATA, FinetuneOptions(epochs=1))
    assert not has_scores(tuned.proto), "they are of the weights before"


def test_images_come_back_from_inputs() -> None:
    net = Net(8, 8, 3)
    h = net.node("Reshape", ["x", net.weight([-1, 192], np.int64)])
    model = load_model(net.model(net.gemm(h, 192, 4, "logits"), 4))
    x = np.random.default_rng(0).random((5, 1, 8, 8)).astype(np.float32)
    flat = Net(64)
    grey = load_model(flat.model(flat.gemm("x", 64, 4, "logits"), 4))
    for space in (PLAIN, InputSpace(-1.0, 1.0), InputSpace(0.0, 255.0)):
        fed = images_for(grey, space, x)
        assert fed.shape == (5, 64)
        assert np.abs(images_from(grey, space, fed, (1, 8, 8)) - x).max() < 1e-6
    with pytest.raises(InputError, match="an image has shape"):
        images_for(model, PLAIN, x)


def test_what_is_refused(onnxsub: Run, folder: Path, tmp_path: Path) -> None:
    base = ("zoo", "finetune", folder / "model.onnx", "--data", folder / "blobs.npz", "-o", tmp_path / "t.onnx")
    (tmp_path / "empty").mkdir()
    for words, code, said in (
        ((*base, "--examples", tmp_path / "none"), 4, "is no run folder"),
        ((*base, "--examples", tmp_path / "empty"), 4, "is no run folder"),
        (base, 2, "--examples"),
        ((*base, "--examples", tmp_path, "--repeat", 0), 2, "--repeat 0"),
        ((*base, "--examples", tmp_path, "--threads", 0), 2, "--threads 0"),
        ((*base, "--examples", tmp_path, "--epochs", 0), 2, "0 epochs"),
    ):
        ran = onnxsub(*words)
        assert (ran.code, said in ran.err) == (code, True), (words, ran.err)
    pointwise(folder, "region", tmp_path / "run", 2)
    with pytest.raises(InputError, match="holds points of 64 numbers, the model takes 10"):
        read_points(tmp_path / "run", 10)
    with pytest.raises(OptionError, match="--repeat"):
        FinetuneOptions(repeat=0)
    with pytest.raises(InputError, match="an example has the label 9"):
        with_examples(DATA, Labelled(np.zeros((1, 1, 8, 8), np.float32), np.array([9])))
    constant = Net(1, 8, 8)
    h = constant.node("Flatten", ["x"], axis=1)
    w, b = constant.weight(np.zeros((4, 64))), constant.weight(np.zeros(4))
    points = read_points(tmp_path / "run", 64)
    dull = load_model(constant.model(constant.named("Gemm", [h, w, b], "logits", transB=1), 4))
    if (points.y == 0).all():
        with pytest.raises(InputError, match="is adversarial to"):
            finetune(dull, [tmp_path / "run"], DATA, FinetuneOptions(epochs=1))
    images = with_examples(ImageSet("b", blobs(5), None), Labelled(np.zeros((2, 1, 8, 8), np.float32), np.array([0, 1])), 3)
    assert len(images.train) == 11
    assert images.train.x.max() <= 1.0


def test_the_points_of_attacked_batches_are_read_one_by_one(folder: Path, tmp_path: Path) -> None:
    """Also where a batch holds a single one, which is as large as a point of any other unit."""
    file = folder / "model.onnx"
    for eps, limit in ((0.5, 5), (0.15, 12)):
        samples = read_samples(folder / "blobs.npz", Choice(None, 1, limit), "x_train", "y_train")
        settings = ManySettings(("security",), ("cr",), (eps / 2, eps), batch=3)
        found = robustness(Plan.of((str(file),), samples, settings), tmp_path / f"{eps}", engine=Here())
        broken = {r.index for c in found.cells for r in c.rows if r.status == "violated"}
        assert broken
        points = read_points(tmp_path / f"{eps}", 64)
        assert len(points) == len(broken)
        at = sorted(broken)
        assert samples.y is not None
        assert points.y.tolist() == [int(samples.y[i]) for i in at]
        assert np.abs(points.x - samples.x[at].reshape(len(at), 64) / 255).max() <= eps + 1e-6
    with pytest.raises(InputError, match="holds points of 64 numbers, the model takes 32"):
        read_points(tmp_path / "0.5", 32)


def test_the_nearest_points_of_evaluate_are_read_too(onnxsub: Run, folder: Path, tmp_path: Path) -> None:
    argv = ("--data", folder / "blobs.npz", "--limit", 2, "--methods", "lin", "--gammas", "0.5", "--run", tmp_path / "run")
    ran = onnxsub("evaluate", folder / "model.onnx", *argv, "--json")
    assert ran.code == 0, ran
    nearest = [sample["d_bnd_upper"] for sample in json.loads(ran.out)["samples"]]
    points = read_points(tmp_path / "run", 64)
    x = read_samples(folder / "blobs.npz", Choice(None, 1, 2)).x.reshape(2, 64) / 255
    for anchor, d in zip(x, nearest, strict=True):
        assert np.abs(points.x - anchor).max(axis=1).min() == pytest.approx(d, abs=1e-6)


def test_the_baseline_is_confirmed_and_no_nearer_than_the_exact_distance(folder: Path) -> None:
    model = load_model(folder / "model.onnx")
    assert DATA.test is not None
    found = 0
    for i in range(2):
        query = make_query(model, DATA.test.x[i].astype(np.float32) / 255, int(DATA.test.y[i]), space=PLAIN)
        if query.misclassified:
            continue
        point = lbfgs_attack(query)
        assert point is not None
        assert float(query.margins(point.x[None])[0][0]) > 0
        assert point.radius == pytest.approx(float(query.radius(point.x[None])[0]))
        assert point.x.min() >= 0.0
        assert point.x.max() <= 1.0
        assert point.radius >= distance(query).lower - 1e-9
        again = lbfgs_attack(query)
        assert again is not None
        assert np.array_equal(again.x, point.x)
        found += 1
    assert found > 0
    assert lbfgs_attack(query, budget=Budget(1e-9)) is None
    with pytest.raises(OptionError):
        LbfgsOptions(steps=0)


TUNING = TuningOptions("mlp:8", "full", 20, sources=("region", "lbfgs"), measures=("exact", "region"), eps=0.2,
                       tune=FinetuneOptions(4, 0.01, repeat=5))  # fmt: skip


def rows(folder: Path, which: str, count: int) -> Samples:
    return read_samples(folder / "blobs.npz", Choice(None, 1, count), f"x_{which}", f"y_{which}")


def untimed(found: TuningResult) -> str:
    keys = found.to_json()
    for record in (*keys["found"].values(), *(m for by in keys["measured"].values() for m in by.values())):
        del record["seconds"]
    return json.dumps(keys)


@pytest.mark.slow
def test_three_kills_change_no_figure_of_the_study(folder: Path, tmp_path: Path) -> None:
    samples = rows(folder, "train", 4), rows(folder, "test", 3)
    calls = 0

    def count(share: float, text: str) -> None:
        nonlocal calls
        calls += 1
        assert 0 <= share <= 1

    whole = study_tuning(DATA, *samples, TUNING, tmp_path / "whole", engine=Here(), progress=count)

    def stopped(left: int) -> Callable[[float, str], None]:
        def report(share: float, text: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise StopError

        return report

    for stop in (calls // 3, calls // 4, calls // 4):
        with pytest.raises(StopError):
            study_tuning(DATA, *samples, TUNING, tmp_path / "cut", engine=Here(), progress=stopped(stop))
    again = study_tuning(DATA, *samples, TUNING, tmp_path / "cut", engine=Here())
    assert untimed(again) == untimed(whole)
    assert list(whole.accuracy) == ["original", "region", "lbfgs"]
    for source in TUNING.sources:
        assert 0 < whole.sources[source]["examples"] <= whole.sources[source]["points"] <= 4
    for how in TUNING.measures:
        for m in whole.measured[how].values():
            assert m["samples"] == 3
            assert m["failed"] == 0
            assert 0 <= m["frequency"][0] <= m["frequency"][1] <= 1
            assert m["found"]["frequency"] == m["frequency"][0]
            assert m["found"]["severity"] is None or 0 <= m["found"]["severity"] <= TUNING.eps
    for name in whole.accuracy:  # the program of one region is never below what is proved
        assert whole.measured["region"][name]["frequency"][0] <= whole.measured["exact"][name]["frequency"][1]
    (written,) = write_report(again, tmp_path / "cut")
    assert written.read_text().count("### ") == 3
    with pytest.raises(InputError, match="other settings: eps"):
        study_tuning(DATA, *samples, replace(TUNING, eps=0.3), tmp_path / "cut", engine=Here())


def test_bad_input_of_the_study(folder: Path, tmp_path: Path) -> None:
    samples = rows(folder, "train", 2), rows(folder, "test", 2)
    with pytest.raises(InputError, match="has no test images"):
        study_tuning(ImageSet("blobs", blobs(20), None), *samples, TUNING, tmp_path / "s")
    for wrong in ({"sources": ()}, {"sources": ("region", "region")}, {"measures": ("guess",)}, {"eps": float("nan")}):
        with pytest.raises(OptionError):
            replace(TUNING, **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


@pytest.mark.slow  # three runs, each of which starts a process
def test_the_command_of_the_study(onnxsub: Run, folder: Path, tmp_path: Path) -> None:
    line = ("study", "finetune", "--data", folder / "blobs.npz", "--architecture", "mlp:6", "--epochs", 5, "--sources", "region",
            "--measures", "region", "--anchors", 3, "--images", 1, "--tuned", 1, "--run", tmp_path / "s")  # fmt: skip
    keys = onnxsub(*line, "--json").json
    assert keys["schema"] == "onnxsub.study-finetune/1"
    assert set(keys["accuracy"]) == {"original", "region"}
    assert "other settings: seed is 0 there and 3 here" in onnxsub(*line, "--seed", 3).line
    assert onnxsub("study", "finetune", "--run", "t").code == 2
