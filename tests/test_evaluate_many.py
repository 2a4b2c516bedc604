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
from onnxsub.evaluate import drive
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.choose import choose
from onnxsub.evaluate.robustness.grid import grid_of
from onnxsub.evaluate.robustness.job import RobustnessJob
from onnxsub.evaluate.robustness.result import RobustnessResult
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.run import open_robustness, robustness
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import Choice
from onnxsub.evaluate.settings import Settings
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
    samples = choose(settings, files[-1], Choice(limit=limit), labels="y" if settings.needs_label else None)
    return Plan.of(tuple(map(str, files[:models])), samples, settings)


def facts(result: RobustnessResult) -> list[Any]:
    """What does not depend on the clock."""
    blocks = [cell.to_json() for cell in result.cells]
    names = [f.name for f in fields(SampleRow) if not f.name.startswith("time_")]
    return [blocks, [[[getattr(r, n) for n in names] for r in cell.rows] for cell in result.cells]]


def test_each_figure_is_that_of_a_run_of_its_own(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    plan = grid(
        files, 4, metrics=("satisfaction", "pointwise"), props=("cr", "sr", "scr"), shared={"delta": 0.05, "eta": 0.4, "nodes": 50}
    )
    result = robustness(plan, tmp_path / "many", engine=Here())
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
    result = robustness(
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
    each = robustness(grid(files, 3, metrics=("security",), batch=0), tmp_path / "each", engine=Here())
    assert each.units["done"] == 2 * 9
    for cell in each.cells:
        assert set(cell.counts.violated) <= set(found[cell.model, "satisfaction", cell.settings.eps].counts.violated)


def test_a_killed_run_ends_like_an_undisturbed_one(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    given: dict[str, Any] = {"metrics": ("satisfaction", "security"), "batch": 2, "shared": {"nodes": 50}}
    whole = robustness(grid(files, 4, **given), tmp_path / "whole", engine=Here())
    left = [0]

    def broken(task: Task) -> Outcome | None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return None

    for _ in range(5):
        left[0] = 4
        part = robustness(grid(files, 4, **given), tmp_path / "part", engine=Here(broken))
        assert part.interrupted
        assert part.cells[-1].measure.interval is None
    again = robustness(open_robustness(tmp_path / "part"), tmp_path / "part", engine=Here())
    assert facts(again) == facts(whole)
    with pytest.raises(InputError, match="holds another run"):
        robustness(grid(files, 3, **given), tmp_path / "part", engine=Here())


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
    assert RobustnessJob(Plan((), None, s, ())).kinds == ("draw", "decide")  # type: ignore[arg-type]


def test_the_report_has_every_figure(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    run = tmp_path / "run"
    result = robustness(grid(files, 4, metrics=("security", "accuracy"), shared={"draws": 10}), run, engine=Here())
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


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        (kind, changed)
        for kind, given in (
            (ManySettings, {"timeout": "soon", "seed": 1.5, "mean": 0.5, "threads": True, "props": [1], "eps": [], "verifier": 3}),
            (RobustnessSettings, {"timeout": "soon", "eps": "0.1", "mean": 0.5, "domain": [0.0], "sequential": 1, "prop": ["cr"]}),
            (Settings, {"methods": "lin", "gammas": ["x"], "seed": "0", "timeout": [1.0], "refine": "yes"}),
        )
        for changed in ({k: v} for k, v in given.items())
    ],
)
def test_settings_of_a_wrong_type_are_refused_in_one_line(kind: Any, changed: dict[str, Any]) -> None:
    grid, one = ManySettings(("satisfaction",), ("cr",), (0.01,)), RobustnessSettings("security", 0.1)
    made: Any = {ManySettings: grid, RobustnessSettings: one, Settings: Settings()}[kind]
    whole = {k: v for k, v in made.to_json().items() if v is not None}
    assert kind.from_json(whole).to_json() == kind.from_json(json.loads(json.dumps(whole))).to_json()
    with pytest.raises(InputError) as caught:
        kind.from_json({**whole, **changed})
    assert "\n" not in str(caught.value)


def test_an_attack_that_is_out_of_time_leaves_the_sample_open(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    for batch in (0, 4):
        given: dict[str, Any] = {"metrics": ("security",), "batch": batch, "shared": {"timeout": 1e-9}}
        result = robustness(grid(files, 6, **given), tmp_path / f"run-{batch}", engine=Here())
        for cell in result.cells:
            open_ = len(cell.counts.undecided)
            assert open_ > 0
            assert (cell.measure.lower, cell.measure.upper) == (0.0, open_ / 6)


def test_a_grid_of_one_is_a_run_of_one(tmp_path: Path, files: tuple[Path, Path, Path]) -> None:
    one = grid_of(1, ("security",), ("cr",), (0.1,), None, {"seed": 3, "timeout": None, "sequential": False})
    assert one == RobustnessSettings("security", 0.1, seed=3)
    several = grid_of(2, ("security",), ("cr",), (0.1,), 7, {"seed": 3})
    assert isinstance(several, ManySettings)
    assert (several.batch, several.seed, several.alone, one.alone) == (7, 3, False, True)
    with pytest.raises(OptionError, match="leave it out for one"):
        grid_of(1, ("security",), ("cr",), (0.1,), 7, {})
    with pytest.raises(OptionError, match="belongs to --metric security"):
        grid_of(2, ("accuracy",), ("cr",), (0.1,), 7, {})
    two: Any = Plan.of(tuple(map(str, files[:2])), choose(one, files[2], Choice(), labels="y"), one)
    with pytest.raises(InputError, match="about one model"):
        robustness(two, tmp_path / "run")


def test_a_grid_in_python(tmp_path: Path, files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "Processes", lambda jobs, run_id: Here())
    run = tmp_path / "run"
    models, radii = [files[0], files[1]], (0.02, 0.1)
    result = onnxsub.robustness(models, files[2], eps=radii, metric=("security", "accuracy"), draws=5, batch=10, limit=4, run=run)
    assert len(result.cells) == 2 * 2 * 2
    cell = result.cell_of(model="other", metric="security", eps=0.1)
    assert (cell.model, cell.settings.eps, len(cell.rows)) == ("other", 0.1, 4)
    with pytest.raises(InputError, match="8 figures"):
        _ = result.measure
    with pytest.raises(InputError, match="4 of 8 figures"):
        result.cell_of(model="other")
    assert "8 figures" in repr(result)
    again = onnxsub.robustness(run=run)
    assert (again.done_now, facts(again)) == (0, facts(result))
    for wrong in ({"eps": "x"}, {"metric": 3}, {"batch": 1.5}, {"batch": -1}, {"metric": ("global", "security")}, {"eps": ()}):
        with pytest.raises(InputError):
            onnxsub.robustness(models, files[2], **{"eps": radii, "metric": "security", "run": tmp_path / "no", **wrong})
    with pytest.raises(InputError, match="eps is about a new run"):
        onnxsub.robustness(run=run, eps=0.1)
