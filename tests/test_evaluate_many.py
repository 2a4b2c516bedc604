"""`onnxsub robustness` over several models, metrics, properties and radii: each figure is that of a run of its own."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

import onnxsub
from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.many.job import ManyJob
from onnxsub.evaluate.many.row import CellRow
from onnxsub.evaluate.many.run import ManyResult, choose_many, holds_many, open_many, robustness_many
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.samples import Choice
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.metrics.local import make_property
from onnxsub.metrics.local.batch import BatchAttack, attack_batch, queries_of
from onnxsub.report.report import report
from tests.evaluate_tools import make_files
from tests.robustness_tools import Here, plan_of

RADII = (0.02, 0.1, 0.3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two networks and data with their labels, two of them wrong for the first network."""
    folder = tmp_path_factory.mktemp("files")
    model, data = make_files(folder)
    other = folder / "other.onnx"
    proto = onnx.load(model)
    rng = np.random.default_rng(3)
    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            moved = (values * rng.uniform(0.6, 1.4, values.shape)).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    onnx.save(proto, other)
    with np.load(data) as archive:
        x = archive["x"]
    y = np.array([onnxsub.make_query(model, row, threads=1).predicted for row in x])
    y[[2, 5]] = (y[[2, 5]] + 1) % 3
    np.savez(data, x=x, y=y)
    return model, other, data


def grid(files: tuple[Path, Path, Path], limit: int = 6, models: int = 2, **given: Any) -> Plan[ManySettings]:
    values = {"metrics": ("satisfaction",), "props": ("cr",), "eps": RADII, **given}
    settings = ManySettings(**values)
    samples = choose_many(settings, files[-1], Choice(limit=limit), labels="y" if settings.needs_label else None)
    return Plan.of(tuple(map(str, files[:models])), samples, settings)


def facts(result: ManyResult) -> list[Any]:
    """What does not depend on the clock."""
    blocks = [cell.to_json() for cell in result.cells]
    names = [f.name for f in fields(CellRow) if not f.name.startswith("time_") and f.name not in ("model", "metric", "prop", "eps")]
    return [blocks, [[[getattr(r, n) for n in names] for r in cell.rows] for cell in result.cells]]


def test_each_figure_is_that_of_a_run_of_its_own(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    plan = grid(
        files, 4, metrics=("satisfaction", "pointwise"), props=("cr", "sr", "scr"), shared={"delta": 0.05, "eta": 0.4, "nodes": 50}
    )
    result = robustness_many(plan, tmp_path / "many", engine=Here())
    assert result.finished
    assert len(result.cells) == 2 * (3 * 3 + 3)
    document = json.loads(json.dumps(result.to_json()))
    assert document["schema"] == "onnxsub.robustness-many/1"
    for metric, prop, own in (
        ("satisfaction", "cr", {}), ("satisfaction", "scr", {"eta": 0.4}), ("satisfaction", "sr", {"delta": 0.05}),
        ("pointwise", "cr", {}),
    ):  # fmt: skip
        alone = plan_of((files[1], files[2]), 4, labels="y", metric=metric, prop=prop, eps=0.1, nodes=50, **own)
        single = robustness(alone, tmp_path / f"{metric}-{prop}", engine=Here())
        (cell,) = [
            c for c in result.cells if (c.model, c.settings.metric, c.settings.prop, c.settings.eps) == ("other", metric, prop, 0.1)
        ]
        assert cell.settings == alone.settings
        assert cell.counts == single.counts
        assert cell.measure == single.measure
    assert (tmp_path / "many" / "samples.csv").read_text().count("\n") == 1 + 4 * len(result.cells)


def test_a_batch_finds_what_onnxruntime_confirms(files: tuple[Path, Path, Path]) -> None:
    with np.load(files[2]) as archive:
        x, y = archive["x"], archive["y"]
    query = onnxsub.make_query(files[0], x[0], threads=1)
    queries = queries_of(query, x, [int(k) for k in y])
    parameters: dict[str, dict[str, float]] = {
        "cr": {}, "sr": {"delta": 0.05}, "scr": {"eta": 0.4}, "lr": {"lipschitz": 0.5}, "confidence": {"gamma": 0.02}
    }  # fmt: skip
    for name, own in parameters.items():
        props = [make_property(name, eps, **own) for eps in RADII]
        rows = attack_batch(queries, props, BatchAttack())
        assert rows[-1] != rows[0]
        broken = 0
        for prop, row in zip(props, rows, strict=True):
            for own_query, verdict in zip(queries, row, strict=True):
                single = onnxsub.make_query(files[0], own_query.x0, own_query.label, threads=1)
                assert own_query.predicted == single.predicted
                if verdict.status == "violated":
                    broken += 1
                    assert prop.measure(single, verdict.witness[None]).violated[0]
                    assert np.abs(verdict.witness - single.x0).max() <= prop.eps + 1e-12
                assert (verdict.status == "misclassified") == (prop.needs_label and single.misclassified)
        assert broken > 0, name
        order = [[v.status == "violated" for v in row] for row in rows]
        assert all(a <= b for small, large in pairwise(order) for a, b in zip(small, large, strict=True))


def test_security_in_batches_is_no_less_than_what_is_proved(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    result = robustness_many(
        grid(files, 7, metrics=("satisfaction", "security", "accuracy"), batch=4, shared={"draws": 20, "nodes": 50}),
        tmp_path / "run", engine=Here(),
    )  # fmt: skip
    found = {(c.model, c.settings.metric, c.settings.eps): c for c in result.cells}
    assert result.units["done"] == 2 * (21 + 2 + 21)  # batches serve all radii
    for model in ("net", "other"):
        for eps in RADII:
            proof, attack = found[model, "satisfaction", eps], found[model, "security", eps]
            assert set(attack.counts.violated) <= set(proof.counts.violated)
            assert attack.counts.misclassified == proof.counts.misclassified
            assert attack.measure.lower is not None
            assert proof.measure.lower is not None
            assert attack.measure.lower >= proof.measure.lower
    each = robustness_many(grid(files, 3, metrics=("security",), batch=0), tmp_path / "each", engine=Here())
    assert each.units["done"] == 2 * 9
    for cell in each.cells:
        assert set(cell.counts.violated) <= set(found[cell.model, "satisfaction", cell.settings.eps].counts.violated)


def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    given: dict[str, Any] = {"metrics": ("satisfaction", "security"), "batch": 2, "shared": {"nodes": 50}}
    whole = robustness_many(grid(files, 4, **given), tmp_path / "whole", engine=Here())
    left = [0]

    def broken(task: Task) -> Outcome | None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return None

    for _ in range(5):
        left[0] = 4
        part = robustness_many(grid(files, 4, **given), tmp_path / "part", engine=Here(broken))
        assert part.interrupted
        assert part.cells[-1].measure.interval is None
    again = robustness_many(open_many(tmp_path / "part"), tmp_path / "part", engine=Here())
    assert holds_many(tmp_path / "part")
    assert facts(again) == facts(whole)
    with pytest.raises(InputError, match="holds another run"):
        robustness_many(grid(files, 3, **given), tmp_path / "part", engine=Here())


@pytest.mark.parametrize(
    ("given", "why"),
    [({"metrics": ("global",)}, "of one model"), ({"shared": {"delta": 0.1}}, "--property sr"), ({"eps": ()}, "--eps is empty"),
     ({"shared": {"draws": 5}}, "--metric accuracy"), ({"shared": {"error": 0.1}}, "--metric global"), ({"batch": -1}, "--batch"),
     ({"metrics": ("pointwise",), "props": ("sr",), "shared": {"delta": 1.0}}, "add cr"), ({"eps": (0.1, 0.1)}, "twice")],
)  # fmt: skip
def test_what_nothing_heeds_is_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        ManySettings(**{"metrics": ("satisfaction",), "props": ("cr",), "eps": RADII, **given})


def test_settings_survive_the_file() -> None:
    s = ManySettings(("accuracy", "satisfaction"), ("sr",), (0.3, 0.1), 7, {"delta": 0.2, "domain": (0.0, 2.0), "timeout": None})
    again = ManySettings.from_json(json.loads(json.dumps(s.to_json())))
    assert again.to_json() == s.to_json()
    assert again.eps == (0.1, 0.3)
    assert again.places.keys() == s.places.keys()
    assert pickle.loads(pickle.dumps(s)).places == s.places  # as it travels to a worker
    assert ManyJob(Plan((), None, s, ())).kinds == ("draw", "decide")  # type: ignore[arg-type]


def test_the_report_has_every_figure(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    run = tmp_path / "run"
    result = robustness_many(grid(files, 4, metrics=("security", "accuracy"), shared={"draws": 10}), run, engine=Here())
    written = report(run)
    assert {"table.csv", "table.md", "index.html", "figures/curves-security-cr.svg"} <= set(written.files)
    page = (written.folder / "index.html").read_text()
    table = (written.folder / "table.md").read_text()
    for cell in result.cells:
        interval = cell.measure.interval
        assert interval is not None
        for text in (page, table):
            assert f"{cell.measure.lower:.3f} [{interval.lower:.3f}, {interval.upper:.3f}]" in text
    lines = (written.folder / "table.csv").read_text().splitlines()
    assert len(lines) == 1 + len(result.cells)


@pytest.mark.parametrize("changed", [{"eps": 0.02}, {"batch": "x"}, {"batch": True}, {"props": "cr"}])
def test_settings_that_were_edited_wrongly_are_refused_in_one_line(changed: dict[str, object]) -> None:
    whole = ManySettings(("satisfaction",), ("cr",), (0.01,)).to_json()
    assert ManySettings.from_json(whole).eps == (0.01,)
    with pytest.raises(InputError, match=r"run\.toml is damaged"):
        ManySettings.from_json({**whole, **changed})
