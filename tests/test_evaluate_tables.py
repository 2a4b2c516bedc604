"""The tables of a run folder with and without pyarrow, the distances of its samples, and references beside them."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from onnxsub.cli.distances import distance_tables
from onnxsub.errors import InputError
from onnxsub.evaluate.by_sample import by_sample
from onnxsub.evaluate.numbers import Digits
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.reference import REFERENCE, read_reference
from onnxsub.evaluate.row import Row
from onnxsub.evaluate.run import evaluate
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.evaluate.spread import spreads
from onnxsub.evaluate.tables import results_of, write_results
from onnxsub.results import dumps
from tests.evaluate_tools import make_files
from tests.robustness_tools import Here
from tests.test_report import ROW


@dataclass(frozen=True)
class Item:
    name: str
    value: float | None
    several: tuple[int, ...] | None


ITEMS = (Item("a,b", 0.1 + 0.2, (1, 20)), Item("é\n", None, None))


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_both_tables_hold_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet tables need pyarrow (extra report)")
    write_results(iter(ITEMS), tmp_path, Item)
    read = lines_of(tmp_path / "samples.csv")
    assert read == [{"name": "a,b", "value": "0.30000000000000004", "several": "1 20"}, {"name": "é\n", "value": "", "several": ""}]
    columns = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert columns[0] == {"name": "a,b", "value": 0.1 + 0.2, "several": [1, 20]}
    assert results_of(tmp_path) == (tmp_path / "samples.csv", tmp_path / "results.parquet")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run begins and ends; a Parquet table of an earlier end would be out of date."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    model, data = make_files(tmp_path)
    plan = Plan.of((str(model),), read_samples(data, Choice(limit=2), labels="predicted"), Settings(gammas=(0.5,)))
    evaluate(plan, tmp_path / "run", engine=Here())
    (tmp_path / "run" / "results.parquet").touch()
    result = evaluate(plan, tmp_path / "run", engine=Here())
    assert not (tmp_path / "run" / "results.parquet").exists()
    document = json.loads(dumps(result))
    assert document["results"] is None
    assert document["samples_csv"] == str(tmp_path / "run" / "samples.csv")
    read = lines_of(tmp_path / "run" / "samples.csv")
    assert [row["index"] for row in read] == ["0", "1"]
    assert [float(row["d_bnd_upper"]) for row in read] == [s["d_bnd_upper"] for s in document["samples"]]


def rows() -> list[Row]:
    """Two gammas of four samples: exact, a bracket, without any boundary, misclassified; one not looked at."""
    nothing = dict.fromkeys(f"{distance}_{end}" for distance in ("d_bnd", "d_hat", "original") for end in ("lower", "upper"))
    nothing["d_adv"] = None
    cases = (
        ROW,
        replace(ROW, index=1, status_bnd="bracket", d_bnd_lower=0.1, d_bnd_upper=0.4, d_adv=0.4, original_lower=0.12),
        replace(ROW, index=2, status_bnd="none", status_hat="none", **nothing),
        replace(ROW, index=3, status_bnd="misclassified", status_hat="misclassified", time_hat=None, **{**nothing, "d_adv": 0.0}),
        replace(ROW, index=4, status_bnd="pending", status_hat="pending", label=None, time_hat=None, **nothing),
    )
    found = []
    for row in cases:
        for gamma in (0.9, 1.0):
            low = None if row.original_lower is None else row.original_lower * gamma
            found.append(replace(row, gamma=gamma, original_lower=low))
    return found


def test_what_is_known_of_each_sample() -> None:
    samples = by_sample(rows(), {("m", 0): 0.25, ("m", 1): 0.3, ("m", 3): 0.1})
    assert [(s.index, s.status, s.certified_lower) for s in samples] == [
        (0, "exact", 0.1), (1, "bracket", 0.12), (2, "none", None), (3, "misclassified", None), (4, "pending", None)
    ]  # fmt: skip
    # 0.25 lies beside 0.2 by a fifth of itself, 0.3 within [0.1, 0.4]; a misclassified sample has no bracket to compare with
    assert [s.reference_difference for s in samples] == [pytest.approx(0.2), 0.0, None, None, None]
    assert [s.index for s in sorted(samples, key=lambda s: s.near)] == [0, 1, 2, 3, 4]
    assert [x.asked for x in samples[3].substitutes] == [False, False]


def test_mean_and_quantiles() -> None:
    by = {(x.quantity, x.gamma): x for x in spreads(by_sample(rows()))}
    assert set(by) == {("d_bnd_lower", None), ("d_bnd_upper", None), ("d_adv", None), ("certified_lower", None)} | {
        (f"d_hat_{end}", g) for end in ("lower", "upper") for g in (0.9, 1.0)
    }
    upper = by["d_bnd_upper", None]
    assert (upper.samples, upper.counted) == (3, 2)  # one has no boundary
    assert (upper.min, upper.max) == (0.2, 0.4)
    assert upper.mean == pytest.approx(0.3)
    assert upper.sd == pytest.approx(0.02**0.5)
    assert [upper.q10, upper.q25, upper.median, upper.q75, upper.q90] == pytest.approx([0.22, 0.25, 0.3, 0.35, 0.38])
    assert by["d_bnd_lower", None].mean == pytest.approx(0.15)
    assert by["certified_lower", None].counted == 2
    assert (by["d_hat_upper", 0.9].samples, by["d_hat_upper", 0.9].counted) == (3, 2)
    values = np.random.default_rng(0).random(50)
    many = by_sample([replace(ROW, index=i, d_bnd_upper=v) for i, v in enumerate(values.tolist())])
    found = next(x for x in spreads(many) if x.quantity == "d_bnd_upper")
    assert [found.q10, found.q75] == pytest.approx(np.quantile(values, [0.1, 0.75]).tolist())
    assert found.sd == pytest.approx(values.std(ddof=1))


def test_a_terminal_shows_the_nearest_samples() -> None:
    samples = by_sample(rows(), {("m", 0): 0.25})
    spread, nearest = distance_tables(samples, spreads(samples))
    assert spread[0][:4] == ("distance", "samples", "mean", "median")
    assert ("d_bnd, upper end", "2 of 3", "0.3000", "0.3000") in [line[:4] for line in spread]
    # two ends that look the same are one line
    assert "d_hat lin 0.9" in [line[0] for line in spread]
    assert nearest[0] == ("sample", "class", "d_bnd", "certified", "d_adv", "d_hat lin 1", "reference")
    assert nearest[1:] == [
        ("0", "1 to 2", "0.2000", "0.1000", "0.2200", "0.2100", "0.2500"),
        ("1", "1 to 2", "0.1000 to 0.4000", "0.1200", "0.4000", "0.2100", "-"),
        ("2", "1 to 2", "none", "-", "-", "none", "-"),
        ("3", "1 to 2", "0.0000", "-", "0.0000", "0.0000", "-"),
        ("4", "-", "-", "-", "-", "-", "-"),
    ]
    many = by_sample([replace(ROW, index=i) for i in range(30)])
    assert list(distance_tables(many, spreads(many)))[1][0][0] == "nearest 10 of 30 samples"


def test_numbers_are_rounded_outwards() -> None:
    digits = Digits.of([0.0123456, None, 0.02, float("inf")])
    assert digits == Digits(5)
    assert digits.bracket("bracket", 0.0123456, 0.0123456) == "0.01234 to 0.01235"
    assert digits.bracket("exact", 0.0123456, 0.0123456) == "0.01235"
    assert digits.bracket("bracket", 0.0123456, None) == "at least 0.01234"
    assert digits.near(float("inf")) == "none"
    assert Digits.of([12.0, 3.0]).near(12.0) == "12"  # whole numbers stay whole
    assert Digits.of([1234.5]).near(1234.56) == "1,235"
    assert Digits.of([]).near(None) == "-"


def read(tmp_path: Path, text: str, models: Sequence[str] = ("m",)) -> dict[tuple[str, int], float]:
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    return read_reference(tmp_path / "r.csv", models, range(10))


def test_a_reference_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "0,0.5\n3,1e-2\n\n99,1\n") == {("m", 0): 0.5, ("m", 3): 0.01}
    assert read(tmp_path, "\ufeffIndex,note,Value\n3,,0.25\n4,open,\n") == {("m", 3): 0.25}
    named = read(tmp_path, "model,sample,d_bnd\na,1,0.1\nb,1,0.2\n", ("a", "b"))
    assert named == {("a", 1): 0.1, ("b", 1): 0.2}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; give the columns sample"),
        ("sample,result\n0,1\n", "has no column 'value', only 'sample', 'result'"),
        ("0,1,2\n", "has no column 'sample'"),
        ("sample,index,value\n0,1,2\n", "two columns of one meaning, 'sample' and 'index'"),
        ("sample,value\n0\n", "line 2 has 1 columns"),
        ("sample,value\n0,0.1\n0,0.2\n", "line 3 names sample 0 a second time"),
        ("sample,value\n1.5,0.1\n", "line 2: '1.5' is no position in the data"),
        ("sample,value\n1,-0.1\n", "line 2: '-0.1' is no distance"),
        ("sample,value\n1,nan\n", "line 2: 'nan' is no distance"),
        ("sample,value\n1,much\n", "line 2: 'much' is no distance"),
        ("sample,value,network\n1,0.1,other\n", "line 2 names the network 'other'; those of the run are 'm'"),
        ("sample,value\n77,0.1\n", "has no value of a sample of this run"),
    ],
)
def test_a_reference_that_is_not_understood(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_must_name_one_of_several_networks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not say which of the 2 networks"):
        read(tmp_path, "0,0.5\n", ("a", "b"))
    with pytest.raises(InputError, match="cannot be read"):
        read_reference(tmp_path / "none.csv", ("m",), range(3))


def test_a_run_keeps_its_reference(tmp_path: Path) -> None:
    model, data = make_files(tmp_path)
    plan = Plan.of((str(model),), read_samples(data, Choice(limit=2), labels="predicted"), Settings(gammas=(0.5,)))
    (tmp_path / "published.csv").write_text("sample,value\n1,0.125\n")
    engine = Here()
    with pytest.raises(InputError, match="cannot be read"):
        evaluate(plan, tmp_path / "run", engine=engine, reference=str(tmp_path / "missing.csv"))
    assert not (tmp_path / "run").exists()  # found out before anything was done
    first = evaluate(plan, tmp_path / "run", engine=engine, reference=str(tmp_path / "published.csv"))
    assert [s.reference for s in first.samples] == [None, 0.125]
    assert (tmp_path / "run" / REFERENCE).read_text() == "network,sample,value\nnet,1,0.125\n"
    again = evaluate(plan, tmp_path / "run", engine=engine)
    assert [s.reference for s in again.samples] == [None, 0.125]
    assert "reference" in [x.quantity for x in again.spread]
