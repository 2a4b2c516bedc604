"""Tutorial and how-tos run as they stand, each page in one folder; every link between documents leads somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxsub.cli.main import run
from tests.test_readme import commands, examples, shape_of

ROOT = Path(__file__).parents[1]
PAGES = ("docs/tutorial.md", "docs/how-to.md")
LINK = re.compile(r"\]\(<?([^)\s>]+)>?\)|<(?:img|a)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")


@pytest.mark.parametrize("page", PAGES)
def test_every_example_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    no_marabou = importlib.util.find_spec("maraboupy") is None
    ran = {"console": 0, "python": 0}
    skipped = 0
    for example in examples(page):
        if no_marabou and "marabou" in example.text:
            skipped += 1
            continue
        capfd.readouterr()
        if example.kind == "console":
            for command, output in commands(example.text):
                program, *args = shlex.split(command)
                assert program == "onnxsub", f"{example.where}: only onnxsub is run here"
                code = run(args)
                captured = capfd.readouterr()
                assert code == 0, f"{example.where}: {command}: {captured.err}"
                if output:
                    assert shape_of(without_hashes(captured.out)) == shape_of(without_hashes(output)), f"{example.where}: {command}"
                ran["console"] += 1
        else:
            with warnings.catch_warnings():  # torch's exporter that needs no other package; maraboupy's parsers that do
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", UserWarning)
                exec(compile(example.text, example.where, "exec"), {"__name__": "__example__"})
            promised = "\n".join(re.findall(r"  # -> (.*)$", example.text, re.MULTILINE))
            if promised:
                assert shape_of(capfd.readouterr().out) == shape_of(promised), example.where
            ran["python"] += 1
    assert min(ran.values()) >= 1
    if skipped:
        pytest.skip(f"{skipped} examples need maraboupy; the others ran")


def without_hashes(text: str) -> str:
    """A network that is trained here has other last digits elsewhere."""
    return re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, text)


def documents() -> list[Path]:
    folders = (ROOT, ROOT / "docs", ROOT / "models", ROOT / "benchmarks", ROOT / ".github" / "ISSUE_TEMPLATE")
    return sorted(p for folder in folders for p in folder.glob("*.md"))


def prose(text: str) -> str:
    """A document without its code."""
    text = re.sub(r"^(```+|~~~+).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub and the site make them, and those that it sets itself."""
    found: set[str] = set()
    body = re.sub(r"^(```+|~~~+).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)?$", body, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower().strip()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        number = 0
        while (name := slug if not number else f"{slug}-{number}") in found:
            number += 1
        found.add(name)
    return found | set(re.findall(r"\bid=\"([^\"]+)\"", body))


def broken_links(document: Path) -> Iterator[str]:
    """What a document links to within the repository and is not there; addresses elsewhere are not asked."""
    for found in LINK.finditer(prose(document.read_text())):
        link = found[1] or found[2]
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())):
            yield link


@pytest.mark.parametrize("document", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert not list(broken_links(document)), f"{document.name} links to what is not there"


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One *heading*, `code`\n## Twice\n## Twice\n```\n# no heading\n```\n")
    good = "[a](other.md) [b](other.md#one-heading-code) [c](other.md#twice-1) [d](https://example.org) ![e](p.png) `[f](gone.md)`"
    (tmp_path / "p.png").write_bytes(b"")
    bad = '[a](gone.md) [b](other.md#no-heading) [c](#here) ![d](q.png) <img src="r.png">'
    page = tmp_path / "page.md"
    page.write_text(good)
    assert list(broken_links(page)) == []
    page.write_text(bad)
    assert list(broken_links(page)) == ["gone.md", "other.md#no-heading", "#here", "q.png", "r.png"]
