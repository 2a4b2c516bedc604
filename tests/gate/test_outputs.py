"""What a gate writes: JUnit as junitparser reads it, Markdown, badge, SARIF, the page, JSON; exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import junitparser
import pytest

from onnxsub.errors import OutputError
from onnxsub.gate.badge import badge
from onnxsub.gate.junit import junit
from onnxsub.gate.markdown import append_summary, markdown
from onnxsub.gate.outputs import check_outputs, write_outputs
from onnxsub.gate.pages import gate_page
from onnxsub.gate.result import GateResult
from onnxsub.gate.sarif import sarif
from tests.cli.conftest import Run
from tests.gate.tools import Told, tell

OLD, NEW = "PPPPPVVU", "PPVUMVPF"
"""Lost: 2 (violated), 3 (undecided), 4 (misclassified). Won: 6. The last one broke off."""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return tell(tmp_path, monkeypatch, OLD, NEW)


@pytest.fixture
def result(told: Told) -> GateResult:
    return told.gate()


def cases(data: bytes) -> dict[str, junitparser.TestCase]:
    found = junitparser.JUnitXml.fromstring(data)
    assert isinstance(found, junitparser.JUnitXml)
    (suite,) = found
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for case in suite:
        counts["tests"] += 1
        for outcome in case.result:
            kind = {junitparser.Failure: "failures", junitparser.Error: "errors", junitparser.Skipped: "skipped"}[type(outcome)]
            counts[kind] += 1
    assert {k: getattr(suite, k) for k in counts} == counts
    assert {k: getattr(found, k) for k in counts} == counts
    return {case.name: case for case in suite}


def outcome(case: junitparser.TestCase) -> tuple[str, str]:
    return (type(case.result[0]).__name__, case.result[0].type) if case.result else ("passed", "")


def test_junit_has_a_case_per_check_and_sample(result: GateResult) -> None:
    found = cases(junit(result))
    assert [name.partition(",")[0] for name in found] == ["max-drop", *(f"sample {i}" for i in range(8))]
    seen = {name.partition(",")[0].removeprefix("sample "): outcome(case) for name, case in found.items()}
    assert seen == {
        "max-drop": ("Failure", "failed"), "0": ("passed", ""), "1": ("passed", ""), "2": ("Failure", "lost"),
        "3": ("Skipped", "undecided"), "4": ("Failure", "lost"), "5": ("Failure", "violated"), "6": ("passed", ""),
        "7": ("Error", "failed"),
    }  # fmt: skip
    message = found["sample 2, class 0"].result[0].message
    assert message == (
        "not robust at radius 0.1: an input of another class was found and confirmed, at distance 0.07; "
        "the baseline is proved there"
    )
    assert "2 classes are open: the limit of 2,000 nodes ended it" in found["sample 3, class 0"].result[0].message
    assert "the solver broke off" in found["sample 7, class 0"].result[0].message
    assert {case.classname for case in found.values()} == {"onnxsub.gate", "candidate"}
    assert found["sample 0, class 0"].time == 0.25


def test_undecided_samples_are_errors_where_they_are_to_fail(told: Told) -> None:
    found = cases(junit(told.gate(fail_on_undecided=True)))
    assert outcome(found["sample 3, class 0"]) == ("Error", "undecided")


def test_junit_survives_any_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tell(tmp_path, monkeypatch, "P", "F")
    answer = told.engine._answer
    monkeypatch.setattr(told.engine, "_answer", lambda task: _worded(answer(task), "a \x1b[31mred\x00 <end> & \ud800\ufffe"))
    found = cases(junit(told.gate()))
    assert "a ?[31mred? <end> & ??" in found["sample 0, class 0"].result[0].message


def _worded(found: Any, reason: str) -> Any:
    from dataclasses import replace

    return replace(found, reason=reason.encode("utf-8", "replace").decode()) if found.state == "failed" else found


def test_markdown_names_the_samples(result: GateResult) -> None:
    text = markdown(result)
    assert text.startswith("## Robustness gate: failed\n\n`candidate` (")
    assert "against `released`" in text
    assert "8 samples, radius 0.1" in text
    assert "exact McNemar test, p = 0.62" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [(r[0], r[2], r[3]) for r in rows] == [
        ("2", "proved", "violated"), ("4", "proved", "misclassified"), ("3", "proved", "undecided"), ("6", "violated", "proved"),
    ]  # fmt: skip
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_summary_is_added_to_what_other_steps_wrote(
    result: GateResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert append_summary("nothing") is None
    summary = tmp_path / "summary.md"
    summary.write_text("of another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert write_outputs(result, {}, ["onnxsub"]) == {"summary": str(summary)}
    assert summary.read_text().startswith("of another step\n## Robustness gate: failed")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(OutputError, match="GITHUB_STEP_SUMMARY"):
        append_summary("text")


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] if len(colour) == 7 else [1.0, 1.0, 1.0]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("new", "more", "words"),
    [
        ("PPPPPVVU", {}, "62.5 % proved, passed"),
        (NEW, {}, "37.5 % proved, failed"),
        ("PPPPUVVU", {}, "50.0 % proved, undecided"),
    ],
)
def test_the_badge_says_it_in_colours_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: str, more: dict[str, Any], words: str
) -> None:
    svg = ElementTree.fromstring(badge(tell(tmp_path, monkeypatch, OLD, new).gate(**more)))
    space = "{http://www.w3.org/2000/svg}"
    texts = svg.findall(f".//{space}text")
    assert [t.text for t in texts] == ["robust at 0.1", words]
    assert svg.get("aria-label") == svg.findtext(f"{space}title") == f"robust at 0.1: {words}"
    boxes = svg.findall(f"{space}g/{space}rect")
    for text, box in zip(texts, boxes, strict=True):
        left, width = float(box.get("x", "0")), float(box.get("width", "0"))
        middle, length = float(text.get("x", "0")), float(text.get("textLength", "0"))
        assert left < middle - length / 2
        assert middle + length / 2 < left + width
        assert 1.05 / (luminance(box.get("fill", "")) + 0.05) >= 4.5
    assert max(float(b.get("x", "0")) + float(b.get("width", "0")) for b in boxes) >= float(svg.get("width", "0"))


def test_the_badge_of_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tell(tmp_path, monkeypatch, [(0.25, 0.25)], [(0.25, 0.25)], brackets=True).gate(metric="distance")
    assert b"<title>distance: 0.25 passed</title>" in badge(result)


def test_sarif_points_at_the_model(result: GateResult, monkeypatch: pytest.MonkeyPatch, told: Told) -> None:
    monkeypatch.chdir(told.folder)
    log = json.loads(sarif(result))
    (run,) = log["runs"]
    assert (log["version"], run["tool"]["driver"]["name"]) == ("2.1.0", "onnxsub gate")
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    found = [(r["ruleId"], r["level"], r["partialFingerprints"]["onnxsubGate/v1"].partition(":")[2]) for r in run["results"]]
    assert found == [
        ("robustness-gate", "error", "max-drop"), ("sample-lost", "error", "sample-2"), ("sample-lost", "error", "sample-4"),
        ("sample-undecided", "warning", "sample-3"),
    ]  # fmt: skip
    for r in run["results"]:
        assert rules[r["ruleIndex"]] == r["ruleId"]
        (where,) = r["locations"]
        assert where["physicalLocation"]["artifactLocation"]["uri"] == "candidate.onnx"
    (told.folder / "inner").mkdir()
    monkeypatch.chdir(told.folder / "inner")
    elsewhere = json.loads(sarif(result))["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert elsewhere == told.new.as_uri()


def test_the_page_shows_the_samples_that_changed(result: GateResult) -> None:
    files = gate_page(result, ["onnxsub", "gate", "my model.onnx"])
    html = files["index.html"].decode()
    assert "<h1>Robustness gate: failed, candidate against released</h1>" in html
    assert "onnxsub gate &#x27;my model.onnx&#x27;" in html
    ids = re.findall(r'<figure id="([^"]+)">', html)
    assert ids == ["lost-2", "lost-4", "lost-3", "won-6"]
    assert "the solver broke off" in html
    assert "http" not in re.sub(r'http-equiv|xmlns[^"]*"[^"]*"', "", re.sub(r'src="data:[^"]*"', "", html))
    assert {name for name in files if name.startswith("figures/")} == {f"figures/{i}.svg" for i in ids}
    captions = dict(re.findall(r'<figure id="([^"]+)">.*?<figcaption>([^<]+)</figcaption>', html, re.DOTALL))
    assert captions["lost-2"] == "The new model gives another class at distance 0.07; of the baseline the sample is proved."
    assert captions["lost-4"] == "The new model takes the sample itself for class 1; of the baseline the sample is proved."
    assert captions["lost-3"].startswith("The new model is undecided: 2 classes are open")
    assert captions["won-6"] == "The baseline gives another class at distance 0.07; of the new model the sample is proved."
    lines = list(csv.DictReader(io.StringIO(files["samples.csv"].decode())))
    assert [(x["baseline"], x["new"], x["change"]) for x in lines[2:5]] == [
        ("proved", "violated", "lost"), ("proved", "undecided", "lost"), ("proved", "misclassified", "lost"),
    ]  # fmt: skip


def argv(told: Told, *more: Any) -> list[Any]:
    return ["gate", told.new, "--baseline", told.old, "--data", told.data, "--eps", "0.1", "--cache", told.folder / "cache", *more]


def test_the_command_writes_everything(told: Told, onnxsub: Run, tmp_path: Path) -> None:
    names = {"--junit": "g.xml", "--markdown": "g.md", "--badge": "g.svg", "--sarif": "g.sarif", "--page": "page"}
    ran = onnxsub(*argv(told, *(x for k, v in names.items() for x in (k, tmp_path / v))), "--json")
    assert ran.code == 1
    d = ran.json
    assert (d["schema"], d["verdict"], d["samples"]) == ("onnxsub.gate/1", "failed", 8)
    assert d["headline"].startswith("failed: the share of samples proved robust went from 62.5 % to 37.5 % (62.5 % with")
    assert [(p["sample"], p["baseline"], p["verdict"], p["distance"]) for p in d["lost"]] == [
        (2, "proved", "violated", 0.07), (4, "proved", "misclassified", 0.0), (3, "proved", "undecided", None),
    ]  # fmt: skip
    assert [p["sample"] for p in d["won"]] == [6]
    assert d["comparison"]["least"] == {"drop": 0.125, "down": 2, "up": 1, "p_value": 1.0}
    assert d["comparison"]["most"] == {"drop": 0.25, "down": 3, "up": 1, "p_value": 0.625}
    assert d["new"]["proved"] == 3
    assert d["baseline"]["computed"] == 8
    assert d["settings"]["nodes"] == 2000
    assert ran.err == "note: candidate: 1 failed, which count as undecided: the solver broke off\n"
    for name in ("g.xml", "g.md", "g.svg", "g.sarif", "page/index.html", "page/summary.md", "page/samples.csv"):
        assert (tmp_path / name).stat().st_size > 100


@pytest.mark.parametrize(
    ("new", "more", "code"),
    [("PPPPPVVU", (), 0), ("PPPPVVVU", (), 1), ("PPPPUVVU", (), 3), ("PPPPUVVU", ("--fail-on", "undecided"), 1),
     ("PPPPVVVU", ("--max-drop", "0.2"), 0), ("PPPPVVVU", ("--min-proved", "0.9", "--max-drop", "1"), 1)],
)  # fmt: skip
def test_exit_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxsub: Run, new: str, more: tuple[str, ...], code: int
) -> None:
    told = tell(tmp_path, monkeypatch, OLD, new)
    ran = onnxsub(*argv(told, *more))
    assert ran.code == code
    assert ran.err == ""
    assert re.search(r"^gate +(passed|failed|undecided): ", ran.out)
    assert re.search(r"^proved +5 +", ran.out, re.MULTILINE)


def test_bad_usage_and_bad_input(told: Told, onnxsub: Run, tmp_path: Path) -> None:
    assert onnxsub("gate", told.new, "--max-drop", "much").code == 2
    assert onnxsub("gate", told.new, "--fail-on", "violated").code == 2
    without = onnxsub("gate", told.new, "--baseline", told.old, "--eps", "0.1")
    assert (without.code, without.line) == (2, "onnxsub: a gate needs --data; give it; see onnxsub gate --help")
    assert onnxsub(*argv(told, "--max-drop", "7")).code == 2
    assert onnxsub("gate", told.new, "--data", told.data, "--eps", "0.1").code == 2  # nothing is asked
    missing = onnxsub(*argv(told, "--junit", tmp_path / "no" / "g.xml"))
    assert missing.code == 4
    assert "there is no folder" in missing.line
    assert not told.engine.tasks  # found out before the work begins
    timed = onnxsub(*argv(told, "--timeout", "5"))
    assert "verdicts depend on the machine's speed" in timed.err
    with pytest.raises(OutputError, match="is a folder"):
        check_outputs({"badge": str(tmp_path)})


def test_no_output_takes_the_place_of_what_is_read_or_of_another_one(told: Told, onnxsub: Run, tmp_path: Path) -> None:
    before = Path(told.new).read_bytes()
    for option in ("--junit", "--markdown", "--sarif"):
        for name in (told.new, told.old, told.data):
            ran = onnxsub(*argv(told, option, name))
            assert ran.code == 2
            assert f"{option} {str(name)!r} is a file that is read here" in ran.line
    ran = onnxsub(*argv(told, "--junit", tmp_path / "one", "--sarif", tmp_path / "." / "one"))
    assert ran.code == 2
    assert "--junit and --sarif name one file" in ran.line
    assert "give a name that ends in .svg" in onnxsub(*argv(told, "--badge", tmp_path / "badge.png")).line
    assert Path(told.new).read_bytes() == before
    assert not told.engine.tasks
