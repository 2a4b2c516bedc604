"""The page of a grid: all models, accuracy against robustness, groups, two models sample by sample, several runs joined."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.cell import Cell
from onnxsub.evaluate.robustness.choose import choose
from onnxsub.evaluate.robustness.row import SampleRow
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.samples import Choice
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.metrics.local.verdict import STOOD
from onnxsub.model import load_model
from onnxsub.reading import Reading
from onnxsub.report.grid_group import Group
from onnxsub.report.grid_tables import accuracy_table, compared_table, correlation_at, group_table, models_table
from onnxsub.report.model_fields import fields_of, grouped
from onnxsub.report.options import ReportOptions
from onnxsub.report.report import report, report_joined
from tests.evaluate_tools import make_files
from tests.robustness_tools import Here

RADII = (0.02, 0.1)
NAMES = ("a", "b", "c", "d", "e")


def row(index: int, status: str, reason: str | None = None, *, wrong: bool = False) -> SampleRow:
    return SampleRow(index, 0, int(wrong), status, reason, None, None, None, None, None, None, "bab", 1.0, None)


def cell(model: str, statuses: Sequence[str], eps: float = 0.1, **settings: Any) -> Cell:
    words = {"p": "proved", "v": "violated", "u": "undecided", "m": "misclassified", "f": "failed", "-": "pending"}
    rows = [row(i, words[s], STOOD if s == "u" else None, wrong=s == "m") for i, s in enumerate(statuses)]
    return Cell.of(model, RobustnessSettings(**{"metric": "satisfaction", "eps": eps, **settings}), rows)


def test_accuracy_and_robustness_are_read_off_the_samples() -> None:
    cells = [cell("a", "ppppp"), cell("b", "pppvm"), cell("c", "ppvmm"), cell("d", "pvmmm"), cell("e", "umm-f")]
    group = Group("satisfaction", "cr", tuple(cells))
    found = group.accuracy("b")
    assert found is not None
    assert found[0] == 0.8
    last = group.accuracy("e")
    assert last is not None
    assert last[0] == pytest.approx(2 / 4)  # what is pending is left out, and the invented failure was of the right class
    correlation = correlation_at(group, 0.1)
    assert correlation is not None
    assert correlation.rho == pytest.approx(0.9)  # d and e are the other way round
    table = accuracy_table(group)
    assert table is not None
    assert table.cells[0][:3] == ("0.1", "5", "+0.90")
    assert [line[0] for line in models_table(group).cells] == list("abcde")
    assert accuracy_table(Group("satisfaction", "cr", tuple(cells[:3]))) is None


def test_a_file_of_two_runs_is_one_network() -> None:
    """Twice the same network would narrow the interval of a correlation."""
    cells = [cell("a", "ppppp"), cell("b", "pppvm"), cell("c", "ppvmm"), cell("d", "pvmmm"), cell("e", "umm-f")]
    once = correlation_at(Group("satisfaction", "cr", tuple(cells)), 0.1)
    names = {name: name for name in "abcde"}
    again = replace(cells[0], model="run: a")
    twice = Group("satisfaction", "cr", (*cells, again), files={**names, "run: a": "a"})
    assert correlation_at(twice, 0.1) == once
    assert twice.distinct(("run: a", "b", "a", "x"), 0.1) == ("run: a", "b")
    assert group_table(twice, "kind", {"x": ["a", "run: a", "b"]}).cells[0] == ("x", "2", "0.800 (0.600 to 1.000)")


def test_two_models_are_compared_sample_by_sample() -> None:
    group = Group("satisfaction", "cr", (cell("a", "ppppuv"), cell("b", "pvvmpp")))
    table = compared_table(group, ("a", "b"))
    assert table is not None
    assert table.cells[0][:6] == ("0.1", "6", "3", "1", "1", "+0.167 to +0.333")
    security = Group("security", "cr", (cell("a", "uuv", metric="security"), cell("b", "ufv", metric="security")))
    table = compared_table(security, ("a", "b"))
    assert table is not None
    assert table.cells[0][2:6] == ("0", "0", "1", "+0.000 to +0.333")  # a unit that broke off is open


def test_shares_of_points_are_compared_by_their_means() -> None:
    def drawn(model: str, satisfied: Sequence[int]) -> Cell:
        rows = [replace(row(i, "drawn"), satisfied=n, drawn=10) for i, n in enumerate(satisfied)]
        return Cell.of(model, RobustnessSettings("accuracy", 0.1, draws=10), rows)

    table = compared_table(Group("accuracy", "cr", (drawn("a", (10, 8, 9, 10)), drawn("b", (10, 6, 9, 9)))), ("a", "b"))
    assert table is not None
    assert table.cells[0][5] == "+0.075"
    same = compared_table(Group("accuracy", "cr", (drawn("a", (10,) * 20), drawn("b", (10,) * 20))), ("a", "b"))
    assert same is not None
    ends = [float(text) for text in same.cells[0][6].split(" to ")]
    assert ends[0] == -ends[1] < -0.1  # twenty samples that agree do not say that all do


def test_an_attack_that_time_ended_is_not_one_that_failed() -> None:
    s = RobustnessSettings(metric="security", eps=0.1, timeout=1.0)
    late = "the time limit ended it; give more time (--timeout)"
    rows = [row(0, "undecided", STOOD), row(1, "undecided", late), row(2, "violated"), row(3, "failed", "broken")]
    found = Cell.of("a", s, rows).measure
    assert (found.lower, found.upper) == (0.25, 0.75)
    assert found.interval is not None
    assert found.interval.lower < 0.25 < 0.75 < found.interval.upper


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Five networks, the data last; one has a card, and one with half of its weights zero."""
    folder = tmp_path_factory.mktemp("models")
    model, data = make_files(folder)
    with np.load(data) as arrays:
        x = arrays["x"]
    np.savez(data, x=x, y=np.zeros(len(x), dtype=np.int64))
    proto = onnx.load(model)
    rng = np.random.default_rng(3)
    for name in NAMES:
        for tensor in proto.graph.initializer:
            values = onnx.numpy_helper.to_array(tensor)
            if values.dtype == np.float32:
                moved = (values * rng.uniform(0.9, 1.1, values.shape)).astype(np.float32)
                if name == "e":
                    moved[rng.random(moved.shape) < 0.5] = 0
                tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
        onnx.save(proto, folder / f"{name}.onnx")
    card = {"schema": "onnxsub.zoo-card/1", "file": {"sha256": load_model(folder / "a.onnx").sha256}}
    recipe = {"phases": [{"epochs": 3}, {"epochs": 4}], "regime": {"name": "certified"}}
    (folder / "a.json").write_text(json.dumps({**card, "recipe": recipe, "architecture": {"name": "tiny"}}))
    (folder / "b.json").write_text(json.dumps({**card, "recipe": recipe}))  # of another file
    (folder / "c.json").write_text("{")
    return (*(folder / f"{name}.onnx" for name in NAMES), data)


def answer(task: Task) -> Outcome:
    """The later the model and the larger the radius, the fewer samples hold."""
    model = NAMES.index(Path(str(task.model)).stem)
    x = float(task.x.reshape(-1)[0]) + 0.1 * model + (task.gamma or 0.0)
    status = "proved" if x < 0.6 else "violated" if x < 0.9 else "misclassified"
    facts = {"status": status, "label": 0, "predicted": int(status == "misclassified"), "time_s": {"total": 0.0}}
    return Outcome(task.id, "done", None, facts)


def ran(models: Sequence[Path], chosen: Sequence[str], folder: Path, labels: str = "y", **given: Any) -> Path:
    """A run of some of the networks."""
    files = [path for path in models[:-1] if path.stem in chosen]
    settings: Any = ManySettings(("satisfaction",), ("cr",), RADII) if not given else RobustnessSettings("satisfaction", **given)
    plan: Any = Plan.of(tuple(map(str, files)), choose(settings, models[-1], Choice(), labels=labels), settings)
    assert robustness(plan, folder, engine=Here(answer)).finished
    return folder


def test_the_page_has_tables_and_pictures_of_all(models: tuple[Path, ...], tmp_path: Path) -> None:
    run = ran(models, NAMES, tmp_path / "run")
    written = report(run, ReportOptions(group=("depth", "sparsity", "training", "architecture.name"), compare=("a", "e")))
    names = {f"figures/{n}.svg" for n in (
        "curves-satisfaction-cr", "accuracy-satisfaction-cr", "boxes-depth-satisfaction-cr", "boxes-sparsity-satisfaction-cr",
        "boxes-training-satisfaction-cr", "boxes-architecture.name-satisfaction-cr",
    )}  # fmt: skip
    assert names <= set(written.files)
    page = written.page.read_text()
    compared, by = "Satisfaction of cr: a against e", "Satisfaction of cr by depth"
    for text in ("Clean accuracy against satisfaction of cr", by, compared, "not known"):
        assert text in page
    with pytest.raises(OptionError, match=r"no network has it; of these networks are known: .*depth"):
        report(run, ReportOptions(group=("colour",)))
    with pytest.raises(OptionError, match="no network 'x'; there are a, b, c, d, e"):
        report(run, ReportOptions(compare=("a", "x")))
    for pair in (("a",), ("a", "a"), ("a", "b", "c")):
        with pytest.raises(OptionError, match="is not two networks"):
            ReportOptions(compare=pair)


def test_fields_are_of_the_file_and_of_its_own_card_only(models: tuple[Path, ...]) -> None:
    entries = [{"name": p.stem, "path": str(p), "sha256": load_model(p).sha256, "training": ""} for p in models[:-1]]
    found = {e["name"]: fields_of(e, Reading()) for e in entries}
    assert (found["a"]["epochs"], found["a"]["training"], found["a"]["architecture.name"]) == (7, "certified", "tiny")
    assert all("epochs" not in found[name] for name in "bcde")
    assert found["b"]["depth"] == found["a"]["depth"] >= 2
    assert found["b"]["sparsity"] < 0.2 < 0.4 < found["e"]["sparsity"]
    assert fields_of({**entries[0], "sha256": "0" * 64}, Reading()) == {}  # the file is another one by now
    assert fields_of({**entries[0], "path": "gone.onnx", "training": "clean"}, Reading()) == {"training": "clean"}


def test_many_numbers_become_ranges() -> None:
    values: dict[str, dict[str, Any]] = {f"n{i}": {"width": i} for i in range(12)} | {"m": {}}
    parts = grouped("width", values)
    assert [len(own) for own in parts.values()] == [3, 3, 3, 3, 1]
    assert list(parts) == ["0 to 2", "3 to 5", "6 to 8", "9 to 11", "not known"]
    few = grouped("width", {"a": {"width": 10}, "b": {"width": 2}, "c": {"width": 2}})
    assert few == {"2": ["b", "c"], "10": ["a"]}
    assert list(grouped("k", {"a": {"k": "x"}, "b": {"k": 3}})) == ["3", "x"]
    alike = grouped("k", {"a": {"k": 0.96101}, "b": {"k": 0.96102}, "c": {"k": 0.5}})
    assert alike == {"0.5": ["c"], "0.961": ["a", "b"]}
    many: dict[str, dict[str, Any]] = {f"n{i}": {"k": 0.5 + 1e-9 * i} for i in range(12)}
    assert sorted(name for own in grouped("k", many).values() for name in own) == sorted(many)
    huge: dict[str, dict[str, Any]] = {f"n{i}": {"k": 10**400 + i} for i in range(12)}
    assert len(grouped("k", huge)) == 12


def test_runs_are_joined_and_compared(models: tuple[Path, ...], tmp_path: Path) -> None:
    first, second = ran(models, "abc", tmp_path / "first"), ran(models, "cde", tmp_path / "second")
    alone = ran(models, "a", tmp_path / "alone", eps=0.1)
    options = ReportOptions(output=str(tmp_path / "page"), compare=("b", "e"))
    written = report_joined([first, second, alone], options)
    with (written.folder / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["model"] for line in lines} == {"first: a", "alone: a", "b", "first: c", "second: c", "d", "e"}
    assert "b against e" in written.page.read_text()
    assert written.counts["done"] == 10 * 2 * 6 + 10
    shutil.copytree(alone, tmp_path / "other")
    text = (tmp_path / "other" / "run.toml").read_text()
    (tmp_path / "other" / "run.toml").write_text(text.replace("onnxsub.run-robustness/1", "onnxsub.run/1"))
    with pytest.raises(InputError, match="different commands"):
        report_joined([first, tmp_path / "other"])
    with pytest.raises(OptionError, match="--group is of a robustness run of several"):
        report(alone, ReportOptions(group=("depth",)))


def test_predicted_labels_do_not_say_what_is_right(models: tuple[Path, ...], tmp_path: Path) -> None:
    run = ran(models, NAMES, tmp_path / "run", labels="predicted")
    written = report(run, ReportOptions())
    assert "figures/accuracy-satisfaction-cr.svg" not in written.files
    assert "lean accuracy" not in written.page.read_text()


def test_figures_of_other_settings_are_not_mixed(models: tuple[Path, ...], tmp_path: Path) -> None:
    first = ran(models, "ab", tmp_path / "first")
    second = ran(models, "ac", tmp_path / "second", labels="predicted")
    third = ran(models, "d", tmp_path / "third", eps=0.1, domain=(0.0, 2.0))
    assert ran(models, "a", tmp_path / "same", eps=0.1)
    written = report_joined([first, second, third, tmp_path / "same"], ReportOptions(output=str(tmp_path / "page")))
    page = written.page.read_text()
    for own in ("domain 0 to 1, classes given", "domain 0 to 1, classes predicted", "domain 0 to 2, classes given"):
        assert f"Satisfaction of cr ({own})" in page
    written = report_joined([first, tmp_path / "same"], ReportOptions(output=str(tmp_path / "page")))
    assert "Satisfaction of cr<" in written.page.read_text()


def test_attacks_of_two_kinds_stand_apart(models: tuple[Path, ...], tmp_path: Path) -> None:
    def held(task: Task) -> Outcome:
        facts = {"status": "undecided", "reason": STOOD, "label": 0, "predicted": 0, "time_s": {"total": 0.0}}
        return Outcome(task.id, "done", None, facts)

    runs = []
    for name, shared in (("strong", {}), ("fgsm", {"attack": "fgsm"})):
        settings: Any = ManySettings(("security",), ("cr",), RADII, batch=0, shared=shared)
        plan: Any = Plan.of(tuple(map(str, models[:2])), choose(settings, models[-1], Choice(limit=3)), settings)
        assert robustness(plan, tmp_path / name, engine=Here(held)).finished
        runs.append(tmp_path / name)
    page = report_joined(runs, ReportOptions(output=str(tmp_path / "page"))).page.read_text()
    assert "Security of cr (attack one by one)" in page
    assert "Security of cr (attack fgsm)" in page


def test_odd_names_and_cards(models: tuple[Path, ...], tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    files = []
    for k, name in enumerate(("a$b$", "<i>", "x" * 120, "tab\tname")):
        files.append(folder / f"{name}.onnx")
        shutil.copy(models[k], files[-1])
        card = {"file": {"sha256": load_model(files[-1]).sha256}, "odd": float("nan"), "name": "$\\frac$", "yes": True}
        files[-1].with_suffix(".json").write_text(json.dumps(card))

    def told(task: Task) -> Outcome:
        status = "proved" if float(task.x.reshape(-1)[0]) < 0.5 else "undecided"
        return Outcome(task.id, "done", None, {"status": status, "label": 0, "predicted": 0, "time_s": {"total": 0.0}})

    settings = ManySettings(("satisfaction",), ("cr",), RADII)
    plan = Plan.of(tuple(map(str, files)), choose(settings, models[-1], Choice(limit=4), labels="predicted"), settings)
    result = robustness(plan, tmp_path / "run", engine=Here(told))
    names = [m["name"] for m in result.plan["model"]]
    written = report(tmp_path / "run", ReportOptions(group=("name", "yes", "depth"), compare=(names[0], names[1])))
    page = written.page.read_text()
    assert "<i>" not in page.replace("&lt;i&gt;", "")
    assert "a$b$ against &lt;i&gt;" in page
    with pytest.raises(OptionError, match="--group odd: no network has it"):
        report(tmp_path / "run", ReportOptions(group=("odd",)))


def test_a_grid_that_has_hardly_begun(models: tuple[Path, ...], tmp_path: Path) -> None:
    left = [1]

    def stops(task: Task) -> Outcome:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return answer(task)

    settings = ManySettings(("satisfaction", "security"), ("cr",), RADII, batch=3)
    plan = Plan.of(tuple(map(str, models[:2])), choose(settings, models[-1], Choice(limit=4), labels="predicted"), settings)
    assert robustness(plan, tmp_path / "run", engine=Here(stops)).interrupted
    written = report(tmp_path / "run", ReportOptions(group=("depth",), compare=("a", "b")))
    assert "the run is not finished" in written.page.read_text()
