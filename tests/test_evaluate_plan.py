"""Samples, settings and `run.toml`: what is read, what is refused and with which words."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.anchors import read_anchor
from onnxsub.errors import InputError
from onnxsub.evaluate.plan import Plan, difference, plan_again, read_plan, write_plan
from onnxsub.evaluate.samples import Choice, anchor_of, format_indices, parse_indices, read_samples
from onnxsub.evaluate.settings import Settings
from tests.evaluate_tools import make_files


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "set.npz"
    x = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(path, x_train=x[:5], y_train=np.arange(5), x_test=x, y_test=np.arange(20) % 10, spare=np.zeros(3))
    return path


@pytest.mark.parametrize(
    ("text", "found"), [("0", (0,)), ("0,5,10-13", (0, 5, 10, 11, 12, 13)), ("3-3", (3,)), ("7,1", (7, 1)), (" 2 , 4-5", (2, 4, 5))]
)
def test_indices(text: str, found: tuple[int, ...]) -> None:
    assert parse_indices(text) == found
    assert parse_indices(format_indices(found)) == found


@pytest.mark.parametrize("text", ["", "a", "1,", "-3", "5-2", "1,1", "1-3,2", "1.5", "1--2"])
def test_no_indices(text: str) -> None:
    with pytest.raises(InputError, match="--index"):
        parse_indices(text)


def test_choice() -> None:
    assert Choice().of(3) == (0, 1, 2)
    assert Choice(every=10).of(25) == (0, 10, 20)
    assert Choice(every=10, limit=2).of(25) == (0, 10)
    assert Choice(index=(4, 1)).of(5) == (4, 1)
    with pytest.raises(InputError, match="out of range: the data hold 5 rows"):
        Choice(index=(5,)).of(5)
    for wrong in ({"index": (1,), "limit": 2}, {"every": 0}, {"limit": 0}):
        with pytest.raises(InputError):
            Choice(**wrong)  # type: ignore[arg-type]


def test_samples_are_the_chosen_rows_only(images: Path) -> None:
    found = read_samples(images, Choice(index=(3, 17)))
    assert (found.array, found.labels, found.index) == ("x_test", "y_test", (3, 17))
    assert found.x.shape == (2, 8, 8)
    assert found.x.base is None  # the other rows are let go
    assert found.y is not None
    assert found.y.tolist() == [3, 7]
    assert read_samples(images, Choice(), "x_train").y is not None
    assert read_samples(images, Choice(), labels="predicted").y is None


def test_a_row_is_the_anchor_of_a_single_distance(images: Path) -> None:
    found = read_samples(images, Choice(index=(9,)))
    one = anchor_of(found.x[0], (1, 8, 8), (-0.5, 0.5), "a sample")
    same = read_anchor(images, (1, 8, 8), index=9, array="x_test", domain=(-0.5, 0.5))
    assert one.dtype == same.dtype == np.float32
    assert np.array_equal(one, same)


def test_npy_with_labels_of_their_own(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 6), dtype=np.float32))
    np.save(tmp_path / "y.npy", np.array([[1], [0], [2], [1]]))
    found = read_samples(tmp_path / "x.npy", Choice(), labels=str(tmp_path / "y.npy"))
    assert found.y is not None
    assert found.y.tolist() == [1, 0, 2, 1]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"array": "nothing"}, "has no array 'nothing'; it has x_train"),
        ({"array": "spare"}, "holds no images"),
        ({"labels": "y_train"}, "20 images and 5 labels do not belong together"),
        ({"labels": "elsewhere"}, "neither an array"),
        ({"labels": "x_train"}, "labels are one integer per image"),
    ],
)
def test_arrays_that_do_not_fit(images: Path, more: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_samples(images, Choice(), **more)


def test_files_that_are_none(tmp_path: Path, images: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_samples(tmp_path / "no.npz", Choice())
    (tmp_path / "some.txt").write_text("1")
    with pytest.raises(InputError, match=r"the ending '\.txt'"):
        read_samples(tmp_path / "some.txt", Choice())
    (tmp_path / "cut.npz").write_bytes(images.read_bytes()[:700])
    with pytest.raises(InputError, match="cannot be read"):
        read_samples(tmp_path / "cut.npz", Choice())
    np.savez(tmp_path / "bare.npz", pictures=np.zeros((3, 4)))
    with pytest.raises(InputError, match="has no labels that belong to the images"):
        read_samples(tmp_path / "bare.npz", Choice())
    np.savez(tmp_path / "two.npz", a=np.zeros((3, 4)), b=np.zeros((3, 4)))
    with pytest.raises(InputError, match="say with --array"):
        read_samples(tmp_path / "two.npz", Choice())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"protocol": "slow"}, "--protocol 'slow' is unknown"),
        ({"methods": ()}, "--methods is empty"),
        ({"methods": ("lin", "lin")}, "names something twice"),
        ({"methods": ("sin",)}, "--methods 'sin' is unknown"),
        ({"gammas": (1.5,)}, "--gammas 1.5 is outside"),
        ({"verifiers": ("best",)}, "--verifier 'best' is unknown"),
        ({"protocol": "paper", "refine": True}, "--protocol paper is defined for"),
        ({"timeout": 0.0}, "--timeout 0 is not a positive number"),
        ({"nodes": 0}, "--nodes 0 must be at least 1"),
        ({"protocol": "paper", "nodes": 9}, "--protocol paper is defined without --nodes"),
        ({"interval": 0.5}, "--interval is of --protocol paper"),
        ({"known_points": True}, "--known-points is of --protocol paper"),
        ({"radius_timeout": 9.0}, "--radius-timeout is of --protocol paper"),
        ({"protocol": "paper", "interval": -1.0}, "--interval -1 is not a positive number"),
        ({"threads": 0}, "--threads 0"),
        ({"seed": -1}, "--seed -1"),
        ({"tol": -1.0}, "--tol"),
        ({"solver": "glpk"}, "--solver 'glpk' is unknown"),
        ({"rank": "size"}, "--rank 'size' is unknown"),
        ({"domain": (1.0, 0.0)}, "--domain"),
        ({"mean": (0.5,)}, "--mean and --std belong together"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Settings(**settings)


def test_the_protocol_decides_what_is_left_open() -> None:
    fast, paper = Settings(), Settings(protocol="paper")
    assert (fast.rank, fast.tol, fast.verifiers) == ("influence", 1e-6, ("bab",))
    assert (fast.methods, fast.timeout, fast.interval, fast.radius_timeout) == (("lin",), None, None, None)
    assert (paper.rank, paper.tol, paper.verifiers, paper.methods) == ("width", None, ("milp",), ("con", "lin", "act"))
    assert (paper.timeout, paper.radius_timeout, paper.interval) == (60.0, 120.0, 0.5)
    assert Settings(protocol="paper", timeout=5.0).radius_timeout == 10.0
    assert Settings(protocol="paper", rank="influence", tol=1e-3).tolerance == 1e-3


def test_run_toml_repeats_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path)
    settings = Settings(methods=("con", "act"), gammas=(0.1, 1.0), timeout=2.5, nodes=70, mean=(0.5,), std=(0.25,))
    plan = Plan.of(("net.onnx",), read_samples("data.npz", Choice(index=(1, 2, 5)), labels="predicted"), settings)
    write_plan(plan, tmp_path / "run.toml")
    recorded = read_plan(tmp_path / "run.toml")
    again = plan_again(recorded)
    assert again.settings == settings
    assert again.to_json() == plan.to_json()
    assert difference(recorded, plan.to_json()) is None
    assert recorded["data"]["index"] == "1-2,5"
    assert recorded["settings"].pop("nodes") == 70
    assert plan_again(recorded).settings == replace(settings, nodes=None)  # a folder from before there was such a limit
    assert np.array_equal(again.samples.x, plan.samples.x)


def test_strings_of_run_toml_survive(tmp_path: Path) -> None:
    model, data = make_files(tmp_path)
    odd = tmp_path / 'a "quoted" \\ name ü.onnx'
    model.rename(odd)
    plan = Plan.of((str(odd),), read_samples(data, Choice(), labels="predicted"), Settings())
    write_plan(plan, tmp_path / "run.toml")
    assert tomllib.loads((tmp_path / "run.toml").read_text())["model"][0]["path"] == str(odd)


def test_differences_are_named(tmp_path: Path) -> None:
    model, data = make_files(tmp_path)
    samples = read_samples(data, Choice(), labels="predicted")
    one = Plan.of((str(model),), samples, Settings()).to_json()
    two = Plan.of((str(model),), samples, Settings(gammas=(0.9,), timeout=3.0)).to_json()
    assert difference(one, two) == "settings.gammas is [0.9, 0.99] there and [0.9] here"
    assert difference(one, one | {"model": [one["model"][0] | {"path": "elsewhere/net.onnx"}]}) is None
    assert "model[0].sha256" in (difference(one, one | {"model": [one["model"][0] | {"sha256": "0"}]}) or "")
    fewer = Plan.of((str(model),), read_samples(data, Choice(limit=2), labels="predicted"), Settings()).to_json()
    assert difference(one, fewer) == 'data.index is "0-9" there and "0-1" here'


def test_two_files_of_one_name(tmp_path: Path) -> None:
    model, data = make_files(tmp_path)
    other = tmp_path / "b" / "net.onnx"
    other.parent.mkdir()
    import onnx

    from tests.random_models import random_model

    onnx.save(random_model(8, kind="dense"), other)
    samples = read_samples(data, Choice(), labels="predicted")
    names = [m.name for m in Plan.of((str(model), str(other)), samples, Settings()).models]
    assert names[0] == "net"
    assert names[1].startswith("net-")
    with pytest.raises(InputError, match="given twice"):
        Plan.of((str(model), str(model)), samples, Settings())


def test_a_run_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('schema = "onnxsub.run/1"\nversion = "0.0.9"\n')
    with pytest.raises(InputError, match=r"made by onnxsub 0\.0\.9, this is"):
        read_plan(path)
    path.write_text('schema = "onnxsub.run/0"\n')
    with pytest.raises(InputError, match="is of schema"):
        read_plan(path)
    path.write_text("no toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_plan(path)


def test_data_sets_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxsub.evaluate import samples
    from onnxsub.zoo.images import ImageSet, Labelled

    train = Labelled(np.zeros((5, 1, 2, 2), dtype=np.uint8), np.arange(5))
    test = Labelled(np.full((3, 1, 2, 2), 9, dtype=np.uint8), np.array([2, 1, 0]))
    monkeypatch.setattr(samples, "load_dataset", lambda name: ImageSet(name, train, test))
    found = read_samples("mnist", Choice(index=(0, 2)))
    assert (found.source, found.array, found.labels, found.sha256) == ("mnist", "x_test", "y_test", test.sha256)
    assert found.y is not None
    assert found.y.tolist() == [2, 0]
    assert found.x.max() == 9
    assert len(read_samples("mnist", Choice(), "x_train").x) == 5
    assert read_samples("mnist", Choice(), labels="predicted").y is None
    with pytest.raises(InputError, match="has the images x_test and x_train"):
        read_samples("mnist", Choice(), "images")
    with pytest.raises(InputError, match="or one of mnist, fashion-mnist, cifar10"):
        read_samples("imagenet", Choice())


def test_the_training_of_a_network_of_the_zoo(tmp_path: Path) -> None:
    model, data = make_files(tmp_path)
    import onnx

    proto = onnx.load(model)
    samples = read_samples(data, Choice(), labels="predicted")
    for recipe, words in (
        ('{"budget": 0.0}', "clean"), ('{"budget": 0.1}', "adversarial 0.1"), ("odd", ""), ("[1]", ""),
        ('{"budget": 0.1, "regime": {"name": "sr"}}', "sr 0.1"), ('{"budget": 0.1, "regime": {"name": "\\u001b[1m"}}', ""),
        ('{"budget": 0.1, "regime": {"name": []}}', ""), ('{"budget": 0.1, "regime": 3}', ""),
    ):
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, {"onnxsub.zoo": recipe})
        onnx.save(proto, model)
        plan = Plan.of((str(model),), samples, Settings())
        assert plan.models[0].training == words
    # what a file is called does not decide the results: a folder of before goes on
    document = plan.to_json()
    other = {**document, "model": [{**document["model"][0], "training": "adversarial 0.1"}]}
    assert difference(other, document) is None
