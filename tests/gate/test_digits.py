"""The gate on a network that was fine-tuned without care, against the released one: real verdicts, the same ones at any speed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import onnxsub
from onnxsub import gate, testing
from onnxsub.errors import InputError
from onnxsub.evaluate import drive
from onnxsub.gate.measured import points_of
from onnxsub.gate.result import GateResult
from onnxsub.testing import NotRobustError, assert_robust
from tests.gate.files import RELEASED, careless_copy, images_file, network
from tests.robustness_tools import Here

EPS = 0.06
CHOSEN = (0, 12, 30, 32, 39, 46)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The careless copy, the images, and the folder of the runs."""
    folder = tmp_path_factory.mktemp("digits")
    return careless_copy(folder / "careless.onnx"), images_file(folder / "digits.npz"), folder / "cache"


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers in this process: starting others is tested elsewhere."""
    monkeypatch.setattr(drive, "Processes", lambda jobs, run_id: Here())


@pytest.fixture
def result(files: tuple[Path, Path, Path]) -> GateResult:
    return gate(files[0], RELEASED, data=files[1], eps=EPS, index=CHOSEN, cache=files[2])


def test_a_careless_copy_fails_and_the_right_samples_are_named(result: GateResult, files: tuple[Path, Path, Path]) -> None:
    assert result.verdict == "failed"
    # what the gate says of each sample is what a single decision says of it, by the same command's engine
    with np.load(files[1]) as archive:
        x, y = archive["x_test"], archive["y_test"]
    said: dict[str, list[int]] = {"lost": [], "won": []}
    for i in CHOSEN:
        options = onnxsub.VerifyOptions()
        old, new = (onnxsub.verify(onnxsub.make_query(m, x[i], int(y[i]), threads=1), EPS, options) for m in (RELEASED, files[0]))
        assert {old.status, new.status} <= {"proved", "violated"}
        if old.status != new.status:
            said["lost" if old.status == "proved" else "won"].append(i)
    assert len(said["lost"]) >= 3
    assert sorted(p.index for p in result.lost) == said["lost"]
    assert [p.index for p in result.won] == said["won"]
    # the witness of every lost sample is one: another class by the file itself, within the radius
    points = points_of(result.new, frozenset(said["lost"]))
    for pair in result.lost:
        if pair.new.verdict == "violated":
            point = points[pair.index].reshape(x[0].shape)
            assert np.abs(point.astype(np.float64) - x[pair.index]).max() <= EPS + 1e-9
            assert onnxsub.make_query(files[0], point, threads=1).predicted != y[pair.index]


def test_against_itself_it_passes(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "copy.onnx"
    other.write_bytes(files[0].read_bytes())
    result = gate(files[0], other, data=files[1], eps=EPS, index=CHOSEN[:2], cache=tmp_path / "cache", max_drop=0.0)
    assert (result.verdict, result.lost, result.won) == ("passed", (), ())


def test_a_torch_module_is_the_same_network(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    module = network(RELEASED)
    result = gate(module, RELEASED, data=files[1], eps=EPS, index=CHOSEN[:2], cache=tmp_path / "cache", max_drop=0.0)
    assert result.passed
    assert result.new.sha256 != result.old.sha256 if result.old else False
    assert result.new.name.startswith("Sequential-")
    assert gate(module, RELEASED, data=files[1], eps=EPS, index=CHOSEN[:2], cache=tmp_path / "cache").new.computed == 0


def facts(result: GateResult) -> list[tuple[object, ...]]:
    rows = [seen.row for p in result.pairs for seen in (p.old, p.new) if seen is not None]
    return [(r.index, r.status, r.reason, r.distance, r.lower, r.upper) for r in rows]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the clock of this process run so many times as fast, as if the machine were that much slower."""
    real = time.perf_counter
    return lambda times: monkeypatch.setattr(time, "perf_counter", lambda: times * real())


def test_verdicts_do_not_depend_on_the_speed_of_the_machine(
    files: tuple[Path, Path, Path], tmp_path: Path, slow: Callable[[float], None]
) -> None:
    results = []
    for times in (1.0, 1e4):
        slow(times)
        # of the three one is proved by bounds and one by a search, and one stays open at so few nodes
        found = gate(RELEASED, data=files[1], eps=0.11, index=(0, 1, 2), nodes=12, min_proved=0.9, cache=tmp_path / f"{times:g}")
        results.append(found)
    assert facts(results[0]) == facts(results[1])
    assert [r.verdict for r in results] == ["undecided", "undecided"]
    assert [p.new.verdict for p in results[0].pairs] == ["undecided", "proved", "proved"]


SEVEN = np.load(RELEASED.parent / "digits_seven.npy")


def test_assert_robust_passes_on_what_is_proved() -> None:
    assert_robust(RELEASED, SEVEN, 0.05, label=7)
    with np.load(RELEASED.parent / "digits_anchors.npz") as archive:
        x, y = archive["x"], archive["y"]
    assert_robust(RELEASED, x[:3], 0.02, label=y[:3])
    assert_robust(network(RELEASED), x[0], 0.02)


def test_assert_robust_names_the_witness() -> None:
    with pytest.raises(AssertionError, match=r"class 7, is not robust at radius 0.2: it becomes class \d at ") as told:
        assert_robust(RELEASED, SEVEN, 0.2, label=7)
    error = told.value
    assert isinstance(error, NotRobustError)
    assert error.witness is not None
    assert (error.sample, error.label, error.result.status) == (0, 7, "violated")
    assert onnxsub.make_query(RELEASED, error.witness, threads=1).predicted != 7
    reach = np.abs(error.witness.astype(np.float64) - SEVEN.reshape(error.witness.shape)).max()
    assert reach <= 0.2 + 1e-9
    assert f"at distance {reach:.6g} (x[0, " in str(error)


def test_assert_robust_of_a_batch_says_which_input() -> None:
    batch = np.stack([SEVEN.reshape(1, 8, 8)] * 2)
    with pytest.raises(AssertionError, match=r"input 1 of 2, class 3, is not robust: the model says 7 of the input itself"):
        assert_robust(RELEASED, batch, 0.01, label=[7, 3])
    with pytest.raises(InputError, match="3 labels do not belong to 2 inputs"):
        assert_robust(RELEASED, batch, 0.01, label=[7, 7, 7])


def test_assert_robust_on_what_is_undecided() -> None:
    radius = 0.13  # the distance is 0.1369
    with pytest.raises(AssertionError, match=r"is undecided at radius 0\.13: .*nodes") as told:
        assert_robust(RELEASED, SEVEN, radius, nodes=1)
    assert isinstance(told.value, NotRobustError)
    assert told.value.witness is None
    assert_robust(RELEASED, SEVEN, radius, nodes=1, undecided="pass")
    with pytest.raises(InputError, match="neither 'fail' nor 'pass'"):
        assert_robust(RELEASED, SEVEN, radius, undecided="skip")


def test_ctrl_c_ends_an_assertion_and_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "verify", lambda *a, **k: SimpleNamespace(status="unknown", interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        assert_robust(RELEASED, np.zeros((1, 1, 8, 8), dtype=np.float32), EPS, undecided="pass")
