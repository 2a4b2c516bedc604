"""The page of a report as a browser shows it: on a telephone and on a screen, with few and with many samples."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxsub.evaluate.by_sample import by_sample
from onnxsub.report.evaluation import Distances
from onnxsub.report.figures import figures
from onnxsub.report.page import Facts, page
from onnxsub.report.picture import COLOURS
from tests.report_tools import rows_like

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

PHONE, SCREEN = 390, 1400

_MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe id="page" src="index.html" style="width:WIDTHpx;height:900px;border:0"></iframe><pre id="out"></pre>
<script>
document.getElementById('page').addEventListener('load', event => {
  const doc = event.target.contentDocument, view = event.target.contentWindow;
  for (const d of doc.querySelectorAll('details')) d.open = true;
  const box = e => e.getBoundingClientRect();
  const style = (e, part) => view.getComputedStyle(e, part);
  const seen = e => box(e).width > 1 && box(e).height > 1;
  const said = e => (e.id || e.textContent).trim().slice(0, 60);
  const wide = [], cut = [], over = [];
  for (const e of doc.querySelectorAll('body *')) {
    if (!seen(e) || e.closest('thead') && style(e.closest('thead')).clipPath !== 'none') continue;
    if (box(e).right > WIDTH + 0.5 || box(e).left < -0.5) wide.push(said(e));
    if (e.scrollWidth > e.clientWidth + 1 && style(e).display !== 'inline' && e.tagName !== 'IMG') cut.push(said(e));
  }
  const apart = (group) => {
    const boxes = [...group].filter(seen).map(e => [box(e), said(e)]);
    for (let i = 1; i < boxes.length; i++) {
      const [a, x] = boxes[i - 1], [b, y] = boxes[i];
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 1) over.push(x + ' | ' + y);
    }
  };
  for (const e of doc.querySelectorAll('main, section, .figures, figure, tbody tr')) apart(e.children);
  const orders = {};
  for (const e of doc.querySelectorAll('.sortable')) {
    const rows = [...e.querySelectorAll('tbody tr')];
    for (const label of e.querySelectorAll('label')) {
      label.click();
      const places = rows.map(r => [box(r).top, r.cells[0].textContent]).sort((a, b) => a[0] - b[0]);
      orders[label.htmlFor + ' ' + label.textContent] = places.map(p => p[1]);
    }
    e.querySelector('label').click();
  }
  document.getElementById('out').textContent = JSON.stringify({
    width: doc.documentElement.scrollWidth, wide: wide, cut: cut, over: over, orders: orders,
    heading: doc.querySelector('h1').innerText,
    images: [...doc.images].map(i => ({natural: i.naturalWidth, width: box(i).width, height: box(i).height})),
    heads: [...doc.querySelectorAll('td')].filter(c => ['none', 'normal', '""'].includes(style(c, '::before').content)).length,
    hidden: [...doc.querySelectorAll('td')].filter(c => !seen(c)).length,
    small: [...doc.querySelectorAll('p, td, dd, li, a, figcaption, h3, label')]
      .filter(e => parseFloat(style(e).fontSize) < 12).length,
    links: [...doc.links].filter(a => !doc.getElementById(a.hash.slice(1))).length,
    text: doc.body.innerText.length,
  });
});
</script>"""


def chromium(*args: str) -> str:
    assert CHROMIUM is not None
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    return subprocess.run([CHROMIUM, *flags, *args], capture_output=True, text=True, timeout=120, check=True).stdout


def write_page(folder: Path, count: int, methods: tuple[str, ...] = ("lin", "act")) -> Distances:
    """The page of so many samples."""
    rows = rows_like(count, methods, (0.99,))
    references = {("digits", s.index): round(s.d_bnd_upper, 3) for s in by_sample(rows) if s.d_bnd_upper}
    found = Distances.of(rows, references)
    title, command = "Distances on substitutes: digits", "onnxsub evaluate --run run"
    words = Facts(title, tuple(found.lead), (("data", "x" * 150),), command, ("not finished",))
    text = page(words, [*found.summaries({}, "fast"), *found.single()], list(figures(rows, found)))
    (folder / "index.html").write_text(text)
    return found


def measured(folder: Path, width: int) -> dict[str, Any]:
    (folder / "measure.html").write_text(_MEASURE.replace("WIDTH", str(width)))
    dom = chromium(
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--window-size=1500,1000", "--dump-dom",
        (folder / "measure.html").as_uri(),
    )  # fmt: skip
    found = re.search(r'<pre id="out">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None
    answer: dict[str, Any] = json.loads(unescape(found.group(1)))
    return answer


def check(found: dict[str, Any], width: int) -> None:
    assert found["width"] <= width  # nothing has to be pushed sideways
    assert found["wide"] == []
    assert found["cut"] == []
    assert found["over"] == []
    assert found["hidden"] == found["small"] == found["links"] == 0
    assert found["heading"] == "Distances on substitutes: digits"
    assert found["text"] > 1500
    for image in found["images"]:
        assert image["natural"] > 100  # it was decoded
        assert 300 < image["width"] <= width
        assert image["height"] > 150


def test_a_telephone(tmp_path: Path) -> None:
    distances = write_page(tmp_path, 14, ("lin",))
    found = measured(tmp_path, PHONE)
    check(found, PHONE)
    assert len(found["images"]) == 6
    assert found["heads"] == 0  # each figure stands beside its name
    # a table is sorted by the button that is pressed, without a script of the page
    orders = {name.partition(" ")[2]: places for name, places in found["orders"].items()}
    samples = distances.samples
    assert orders["nearest first"] == [str(s.index) for s in sorted(samples, key=lambda s: s.near)]
    assert orders["by position in the data"] == [str(i) for i in range(14)]
    widest = max((s for s in samples if s.status == "bracket"), key=lambda s: (s.d_bnd_upper or 0.0) - (s.d_bnd_lower or 0.0))
    assert orders["widest bracket first"][0] == str(widest.index)
    assert sorted(map(int, orders["d_hat farthest from d_bnd first"])) == list(range(14))


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 100, 1000])
@pytest.mark.parametrize("width", [PHONE, SCREEN])
def test_any_number_of_samples(tmp_path: Path, count: int, width: int) -> None:
    write_page(tmp_path, count)
    found = measured(tmp_path, width)
    check(found, width)
    for places in found["orders"].values():
        assert sorted(map(int, places)) == list(range(count))
    assert (tmp_path / "index.html").stat().st_size < 4e6


@pytest.mark.slow
def test_the_check_itself(tmp_path: Path) -> None:
    """What is too wide, cut or on top of something else is found."""
    write_page(tmp_path, 8)
    text = (tmp_path / "index.html").read_text()
    bad = (
        '<p style="width:500px">too wide</p><p style="width:40px;overflow:hidden;overflow-wrap:normal">incomprehensible</p>'
        '<p style="margin-top:-1rem">above it</p>'
    )
    (tmp_path / "index.html").write_text(text.replace("</main>", f"{bad}</main>"))
    found = measured(tmp_path, PHONE)
    assert "too wide" in found["wide"]
    assert "incomprehensible" in found["cut"]
    assert any("above it" in pair for pair in found["over"])


@pytest.mark.slow
def test_what_a_person_sees_on_a_screen(tmp_path: Path) -> None:
    write_page(tmp_path, 30, ("lin", "act", "con"))
    shot = tmp_path / "page.png"
    where = (tmp_path / "index.html").as_uri()
    chromium(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,6000", f"--screenshot={shot}", where)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    assert (pixels.min(axis=1) > 240).mean() > 0.5  # a light page
    for colour in COLOURS.values():
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - rgb).max(axis=1) < 12).sum() > 500  # whose figures are there, in their colours
    assert (pixels.max(axis=1) < 60).sum() > 3000  # and its words
