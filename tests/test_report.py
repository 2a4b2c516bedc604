"""`onnxsub report`: tables, figures and the page of a run, finished or not."""

from __future__ import annotations

import base64
import csv
import json
import re
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from onnxsub.cli.main import run as run_cli
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.run import evaluate
from onnxsub.evaluate.samples import Choice, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.evaluate.summary import difference_of, summarise
from onnxsub.report.images import image_of
from onnxsub.report.picture import BLACK, COLOURS, GREY
from onnxsub.report.report import ReportOptions, report
from onnxsub.report.table import distances, records_csv, to_latex, to_markdown
from tests.evaluate_tools import ROOT, SAMPLES, make_files, rewrite
from tests.report_tools import ROW_LIKE
from tests.robustness_tools import Here

DIGITS = ROOT / "models" / "digits.onnx"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of a network whose name no page must take for markup."""
    folder = tmp_path_factory.mktemp("report")
    model, data = make_files(folder)
    model = model.rename(folder / "net & <b>more.onnx")
    samples = read_samples(data, Choice(), labels="predicted")
    plan = Plan.of((str(model),), samples, Settings(methods=("lin", "act", "con"), gammas=(0.5, 0.9)))
    evaluate(plan, folder / "run", engine=Here())
    return folder / "run"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images, with so short a limit that distances stay brackets."""
    folder = tmp_path_factory.mktemp("pictures") / "run"
    samples = read_samples(ROOT / "models" / "digits_anchors.npz", Choice(limit=3))
    plan = Plan.of((str(DIGITS),), samples, Settings(gammas=(0.99,), timeout=1.0))
    evaluate(plan, folder, engine=Here())
    return folder


@pytest.fixture(scope="module")
def written(run: Path) -> Path:
    report(run)
    return run / "report"


class Page(HTMLParser):
    """What stands in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_is_self_contained(written: Path) -> None:
    text = (written / "index.html").read_text()
    page = Page(text)
    assert page.all("html")[0]["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert not page.all("script")
    assert not page.all("link")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "action", "data", "poster"):
                assert (value or "").startswith("data:image/svg+xml;base64,")
            if name == "href":
                assert value is not None
                assert value.removeprefix("#") in ids
    assert not re.search(r"url\(|@import|https?://", re.sub(r'src="data:[^"]*"', "", text))
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert (policy or "").startswith("default-src 'none'")


def test_every_figure_says_what_it_shows(written: Path) -> None:
    page = Page((written / "index.html").read_text())
    shown = page.all("img")
    assert len(shown) == len(page.all("figure")) == len(list((written / "figures").glob("*.svg"))) >= 7
    for image in shown:
        assert len(image["alt"] or "") > 60
        svg = base64.b64decode((image["src"] or "").partition(",")[2])
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert not [e for e in root.iter() for k, v in e.attrib.items() if k.endswith("href") and not v.startswith(("#", "data:"))]
    assert len({i["alt"] for i in shown}) == len(shown)
    titles = [page.tags[i + 1][0] for i, (tag, _) in enumerate(page.tags) if tag == "figure"]
    assert titles == ["h3"] * len(shown)


def test_names_are_no_markup(written: Path) -> None:
    page = Page((written / "index.html").read_text())
    assert not page.all("b")
    assert any("net & <b>more" in part for part in page.text)
    assert all(re.fullmatch(r"[\w.-]+", p.name) for p in (written / "figures").iterdir())


def test_tables_agree(run: Path, written: Path) -> None:
    with (written / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(x["method"], x["gamma"]) for x in lines] == [(m, g) for m in ("lin", "act", "con") for g in ("0.5", "0.9")]
    markdown = (written / "table.md").read_text()
    spread, substitutes, certificates = (part.splitlines()[2:] for part in markdown.split("\n\n")[1::3])
    assert len(substitutes) == len(lines)
    assert len(certificates) == sum(bool(x["original_lower"]) for x in lines)
    first = float(lines[0]["difference"])
    assert f"{100 * first:.3f} %" in substitutes[0]
    for rows in (spread, substitutes, certificates):
        assert len({line.count("|") - line.count("\\|") for line in rows}) == 1
    latex = (written / "table.tex").read_text()
    assert latex.count(r"\toprule") == latex.count(r"\bottomrule") == 3
    assert r"net \& <b>more" in latex
    assert r"d\_bnd" in latex
    page = Page((written / "index.html").read_text())
    cells = page.all("td")
    assert all(cell["data-head"] for cell in cells)
    # the tables of single samples stand on the page and in samples.csv
    singles = [cell for cell in cells if cell["data-head"] == "sample"]
    with (written / "samples.csv").open(newline="") as file:
        assert len(singles) == 2 * len(list(csv.DictReader(file))) == 2 * SAMPLES


def test_the_figures_repeat_byte_for_byte(run: Path, written: Path, tmp_path: Path) -> None:
    report(run, ReportOptions(str(tmp_path / "again")))
    names = sorted(p.relative_to(written) for p in written.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for name in names:
        assert (written / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_images_of_samples(pictures: Path) -> None:
    result = report(pictures, ReportOptions(images=2))
    assert "figures/images-digits.png" in result.files
    two = size_of(result.folder / "figures" / "images-digits.png")
    named = report(pictures, ReportOptions(samples=(1,)))
    one = size_of(named.folder / "figures" / "images-digits.png")
    assert one[1] < two[1]
    assert "sample 1:" in (named.folder / "index.html").read_text()
    assert "figures/images-digits.png" not in report(pictures, ReportOptions(images=0)).files


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((1, 8, 8), (8, 8)),
        ((8, 9), (8, 9)),
        ((3, 5, 7), (5, 7, 3)),
        ((5, 7, 3), (5, 7, 3)),
        ((49,), (7, 7)),
        ((4,), None),
        ((3, 2), None),
    ],
)
def test_what_is_an_image(shape: tuple[int, ...], found: tuple[int, ...] | None) -> None:
    image = image_of(np.zeros(shape))
    assert (None if image is None else image.shape) == found


def test_an_unfinished_run(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    part = shutil.copytree(run, tmp_path / "part")
    rewrite(
        part,
        "UPDATE units SET state = 'pending' WHERE id > 30",
        "UPDATE units SET state = 'failed', reason = 'broken <here>', result = NULL WHERE id = 3",
    )
    assert run_cli(["report", str(part), "--json", "--title", "So far"]) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert document["schema"] == "onnxsub.report/1"
    assert document["units"]["pending"] > 0
    assert "the run is not finished" in err
    text = (part / "report" / "index.html").read_text()
    assert "<title>So far</title>" in text
    assert "the run is not finished" in text
    assert "broken &lt;here&gt;" in text


def test_what_is_no_run(tmp_path: Path, run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["report", str(tmp_path)]) == 4
    assert "is no run folder" in capfd.readouterr().err
    (tmp_path / "file").touch()
    assert run_cli(["report", str(run), "-o", str(tmp_path / "file" / "x")]) == 4
    assert "cannot make the folder" in capfd.readouterr().err
    assert run_cli(["report", str(run), "--images", "-1"]) == 2
    assert "--images -1" in capfd.readouterr().err
    shutil.copy(run / "run.toml", tmp_path / "run.toml")
    assert run_cli(["report", str(tmp_path)]) == 4
    assert "is no run folder: it has no ledger.sqlite" in capfd.readouterr().err


def test_matplotlib_is_not_installed(run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_cli(["report", str(run)]) == 4
    assert 'pip install "onnxsub[report]"' in capfd.readouterr().err


ROW = replace(ROW_LIKE, model="m", verifier="milp", timed_bnd=3, timed_hat=2, run_sd_bnd=1.0, run_sd_hat=0.0)


def test_what_is_counted() -> None:
    """By hand: differences over samples with two exact distances, times over all that were searched for."""
    rows = [
        ROW,
        replace(ROW, index=1, d_hat_upper=0.19, d_adv=0.2, time_bnd=10.0),
        replace(ROW, index=2, status="bracket", status_bnd="bracket", d_bnd_lower=0.1, time_bnd=60.0),
        replace(ROW, index=3, status="none", status_hat="none", d_hat_lower=None, d_hat_upper=None),
        replace(ROW, index=4, status="misclassified", status_bnd="misclassified", status_hat="misclassified", d_bnd_upper=0.0,
                time_bnd=None, time_hat=None, time_prune=None),
        replace(ROW, index=5, status="failed", status_bnd="failed", d_bnd_upper=None, time_bnd=None),
    ]  # fmt: skip
    (line,) = summarise(rows)
    assert (line.samples, line.counted, line.timed, line.misclassified, line.failed, line.unbounded) == (6, 2, 4, 1, 1, 1)
    assert line.difference == pytest.approx(0.05)
    assert line.bias == pytest.approx(0.0)
    assert line.sd == pytest.approx(0.0)
    assert line.worst == pytest.approx(0.05)
    assert line.attack_difference == pytest.approx(0.05)
    assert line.original_lower == pytest.approx(0.5)
    assert line.bnd_s == pytest.approx((30 + 10 + 60 + 30) / 4)
    assert line.speed_up == pytest.approx(32.5 / 2)
    assert line.speed_up_median == pytest.approx(15.0)
    assert line.run_speed_up == pytest.approx(4.0 / (0.5 + 0.25))
    assert (line.runs_bnd, line.runs_hat, line.run_prune_s) == (3 * line.paired, 2 * line.paired, pytest.approx(0.25))
    assert (line.exact_bnd, line.exact_hat) == (3, 3)
    assert difference_of(rows[2]) is None


def test_lines_without_anything_to_compare() -> None:
    rows = [replace(ROW, status="bracket", status_bnd="bracket", time_bnd=None)]
    lines = summarise(rows)
    assert lines[0].difference is None
    assert lines[0].speed_up is None
    table = distances(lines, {"m": "adversarial, 0.1"}, "fast")
    assert table.cells[0][:5] == ("m", "adversarial, 0.1", "lin", "0.9", "0 of 1")
    assert "| - |" in to_markdown([table])
    assert "m,lin,0.9,milp,1,0,0,0,0,,," in records_csv(lines)
    assert r"\begin{tabular}{lllll" in to_latex([table])


def test_the_paper_protocol_compares_solver_runs() -> None:
    table = distances(summarise([ROW]), {}, "paper")
    assert table.cells[0][-6:] == ("0.250", "0.500 ± 0.000", "4.00 ± 1.00", "2 / 3 (1)", "5.33x", "-")


def test_colours_are_told_apart_by_colour_blind_people() -> None:
    """Pairwise differences of lightness and hue as seen with red-green blindness (Vienot, Brettel, Mollon 1999)."""
    to_lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    deuteranope = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])
    protanope = np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]])
    colours = [*COLOURS.values(), BLACK, GREY]
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours]) ** 2.2
    for eye in (np.eye(3), deuteranope, protanope):
        seen = np.clip(rgb @ (np.linalg.inv(to_lms) @ eye @ to_lms).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)[np.triu_indices(len(colours), 1)]
        assert apart.min() > 0.15
