"""The pairs of `onnxsub adversarial` in a run folder."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pyarrow.parquet
import pytest

import onnxsub
from onnxsub.cli.main import run as run_cli
from onnxsub.errors import InputError
from onnxsub.evaluate.pairs.files import write_pair_files
from onnxsub.evaluate.pairs.run import run_pairs
from onnxsub.evaluate.pairs.settings import PairSettings
from onnxsub.evaluate.samples import Choice, Samples, read_samples
from onnxsub.evaluate.task import Task
from onnxsub.metrics.adversarial import AdversarialOptions, Anchor, Targets
from onnxsub.metrics.adversarial_pairs import Pairs, find_pairs
from onnxsub.metrics.adversarial_result import AdversarialResult
from onnxsub.metrics.margin import MarginOptions
from onnxsub.metrics.tables import Tried
from onnxsub.verifiers.options import Limits, MilpOptions
from tests.evaluate_tools import make_files
from tests.robustness_tools import Here

OPTIONS = AdversarialOptions(0.1, margin=MarginOptions(Limits(threads=1)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network and samples, the second of which is wrongly labelled."""
    folder = tmp_path_factory.mktemp("files")
    model, data = make_files(folder)
    with np.load(data) as archive:
        x = archive["x"][:4]
    y = np.array([onnxsub.make_query(model, row, threads=1).predicted for row in x])
    y[1] = (y[1] + 1) % 3
    np.savez(data, x=x, y=y)
    other = onnx.load(model)
    for weight in other.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array((0.9 * array).astype(array.dtype), weight.name))
    onnx.save(other, folder / "other.onnx")
    return model, data


@pytest.fixture(scope="module")
def samples(files: tuple[Path, Path]) -> Samples:
    return read_samples(files[1], Choice(), labels="y")


def facts(pairs: Pairs) -> list[dict[str, object]]:
    return [{k: v for k, v in asdict(p).items() if k != "seconds"} for p in pairs.pairs]


def test_the_same_as_without_a_folder(tmp_path: Path, files: tuple[Path, Path], samples: Samples) -> None:
    done = run_pairs((str(files[0]),), samples, OPTIONS, tmp_path / "run", engine=Here())
    assert samples.y is not None
    anchors = [Anchor(i, x, int(y)) for i, x, y in zip(samples.index, samples.x, samples.y, strict=True)]
    direct = find_pairs(files[0], anchors, OPTIONS)
    (pairs,) = done.summary
    assert pairs.planned == direct.planned == 6
    assert pairs.misclassified == direct.misclassified == (1,)
    assert (pairs.labels, pairs.classes) == (direct.labels, 3)
    assert facts(pairs) == facts(direct)
    assert all(np.array_equal(a.x, b.x) for a, b in zip(pairs.found, direct.found, strict=True))
    rows = pyarrow.parquet.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert [(r["sample"], r["target"]) for r in rows] == [(p.sample, p.target) for p in direct.pairs]


def test_two_models_interrupted_and_gone_on_with(tmp_path: Path, files: tuple[Path, Path], samples: Samples) -> None:
    models = (str(files[0]), str(files[0].with_name("other.onnx")))
    calm = run_pairs(models, replace(samples, y=None), OPTIONS, tmp_path / "calm", engine=Here()).summary
    seen: list[int] = []

    def stops(task: Task) -> None:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(task.id)

    part = run_pairs(models, replace(samples, y=None), OPTIONS, tmp_path / "run", engine=Here(stops))
    assert part.interrupted
    assert all(p.interrupted for p in part.summary)
    assert len(part.summary[0].found) == 3
    rest = run_pairs(models, replace(samples, y=None), OPTIONS, tmp_path / "run", engine=(engine := Here()))
    assert len(engine.tasks) == 16 - 3
    assert [facts(p) for p in rest.summary] == [facts(p) for p in calm]
    assert [p.name for p in rest.summary] == ["net", "other"]
    with pytest.raises(InputError, match=r"settings.eps is 0.1 there and 0.2 here"):
        run_pairs(models, replace(samples, y=None), replace(OPTIONS, eps=0.2), tmp_path / "run", engine=Here())


def test_a_report(tmp_path: Path, files: tuple[Path, Path], samples: Samples, capfd: pytest.CaptureFixture[str]) -> None:
    models = (str(files[0]), str(files[0].with_name("other.onnx")))
    run = tmp_path / "run"
    done = run_pairs(models, samples, replace(OPTIONS, eps=0.3), run, engine=Here())
    assert run_cli(["report", str(run)]) == 4
    assert "has no results yet" in capfd.readouterr().err
    a, b = done.summary
    tried = (Tried(a.name, b.name, 4, 3, 2, 2, 3, 2),)
    write_pair_files(AdversarialResult(a, b, tried, OPTIONS, {}, {"total": 1.0}), run)
    assert run_cli(["report", str(run), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["table"][0]["done"] == 6
    assert {"table.md", "table.tex", "index.html", "figures/objective-net.svg"} <= set(document["files"])
    text = (run / "report" / "index.html").read_text()
    words = unescape(text).replace("\xa0", " ")
    assert "2 of 3 examples of net fool other" in words
    for name in ("net", "other"):
        for what in ("class of the sample", "target class"):
            assert f"<span>{name}: pairs by {what}</span>" in text
        assert f"<span>{name}: pairs one by one</span>" in text
    assert text.count("<figure ") == text.count('<img alt="') == sum(f.endswith(".svg") for f in document["files"])
    with (run / "report" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(r["target"]) for r in rows if r["model"] == "net"] == [p.target for p in a.pairs]


def test_settings() -> None:
    s = PairSettings(0.1, "runner-up", timeout=5.0, nodes=70, mean=(0.1,), std=(0.5,))
    assert PairSettings.from_json(s.to_json()) == s
    assert PairSettings.of(s.options) == s
    assert s.options.margin.limits.nodes == 70
    before = {name: value for name, value in PairSettings(0.1).to_json().items() if name != "nodes"}
    assert PairSettings.from_json(before) == PairSettings(0.1)
    assert PairSettings.of(replace(OPTIONS, targets=Targets.parse("1,2"))).targets == "1,2"
    with pytest.raises(InputError, match="does not hold"):
        PairSettings.of(replace(OPTIONS, margin=replace(OPTIONS.margin, milp=MilpOptions(bounds_method="ibp"))))
    with pytest.raises(InputError, match="--targets 'none'"):
        PairSettings(0.1, "none")
