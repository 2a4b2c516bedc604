"""Run folders altered by a seeded generator: every alteration is found, or has no effect on any number."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxsub.errors import OnnxsubError, OnnxsubWarning
from onnxsub.evaluate.plan import Plan, read_plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.reference import kept_reference
from onnxsub.evaluate.row import Row, rows_of
from onnxsub.evaluate.run import PLAN, Settings, evaluate
from onnxsub.evaluate.samples import Choice, read_samples
from tests.evaluate_tools import make_files
from tests.fuzz.alterations import ALTERATIONS, alter, copy_of
from tests.random_models import random_model
from tests.robustness_tools import Here

_TIMES = tuple(f.name for f in fields(Row) if f.name.startswith(("time_", "run_s_")))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan[Settings], Path, Path]:
    """A plan, its finished run, and that of another model of the same name."""
    folder = tmp_path_factory.mktemp("runs")
    model, data = make_files(folder)
    (folder / "other").mkdir()
    onnx.save(random_model(6, kind="dense", classes=3), folder / "other" / "net.onnx")
    shape = tuple(d.dim_value for d in onnx.load(folder / "other" / "net.onnx").graph.input[0].type.tensor_type.shape.dim[1:])
    np.savez(folder / "other" / "data.npz", x=np.random.default_rng(1).random((2, *shape)).astype(np.float32))
    (folder / "given.csv").write_text("sample,value\n0,0.25\n1,0.5\n")
    settings = Settings(methods=("lin",), gammas=(0.9,), timeout=20.0)
    plans = [
        Plan.of((str(path),), read_samples(images, Choice(limit=2), None, "predicted"), settings)
        for path, images in ((model, data), (folder / "other" / "net.onnx", folder / "other" / "data.npz"))
    ]  # fmt: skip
    for plan, name in zip(plans, ("run", "foreign"), strict=True):
        assert evaluate(plan, folder / name, engine=Here(), reference=str(folder / "given.csv")).finished
    return plans[0], folder / "run", folder / "foreign"


@contextmanager
def _no_hang(seconds: float) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _shown(run: Path) -> tuple[Any, ...]:
    """All that a report's numbers come from."""
    plan = read_plan(run / PLAN)
    with read_ledger(run) as ledger:
        rows, counts = list(rows_of(ledger)), ledger.counts()
        points = [(s, r, a.tobytes(), p.tobytes()) for s, r, a, p in ledger.attacks(plan["model"][0]["name"])]
    return rows, counts, points, kept_reference(run, plan), {k: v for k, v in plan.items() if k in ("version", "settings")}


def _facts(rows: list[Row]) -> list[dict[str, Any]]:
    return [{f.name: getattr(row, f.name) for f in fields(Row) if f.name not in _TIMES} for row in rows]


def found_or_harmless(seed: int, runs: tuple[Plan[Settings], Path, Path], folder: Path) -> str:
    """Alters a copy; how the alteration was met: read, and gone on with."""
    plan, run, foreign = runs
    before = _shown(run)
    way = alter(copy_of(run, folder), foreign, seed)
    told = []
    with warnings.catch_warnings(record=True) as said, _no_hang(10.0):
        warnings.simplefilter("always", OnnxsubWarning)
        try:
            after = _shown(folder)
        except OnnxsubError as error:
            told.append(f"refused ({error})")
        else:
            unfinished = after[1]["pending"] > 0
            assert said or unfinished or after == before, f"seed {seed}, {way}: other numbers without a word"
            told.append("said" if said else "unfinished" if unfinished else "the same")
        try:
            again = evaluate(plan, folder, engine=Here())
        except OnnxsubError as error:
            told.append(f"refused ({error})")
        else:
            assert again.finished
            rows = _shown(folder)[0]
            assert said or _facts(rows) == _facts(before[0]), f"seed {seed}, {way}: the run went on with what was altered"
            told.append("said" if said else "the same")
    assert not any("\n" in line for line in told)
    return f"{way}: {', '.join(told)}"


@pytest.mark.parametrize("seed", range(len(ALTERATIONS)))
def test_one_of_each_kind(seed: int, runs: tuple[Plan[Settings], Path, Path], tmp_path: Path) -> None:
    assert found_or_harmless(seed, runs, tmp_path / "copy")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(9))
def test_alterations(part: int, runs: tuple[Plan[Settings], Path, Path], tmp_path: Path) -> None:
    for seed in range((part + 1) * len(ALTERATIONS), (part + 2) * len(ALTERATIONS)):
        print(found_or_harmless(seed, runs, tmp_path / str(seed)))
    assert len(list(tmp_path.iterdir())) == len(ALTERATIONS)
