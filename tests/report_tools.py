"""What tests of reports share: many samples out of few, and a look at what is drawn."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from onnxsub.evaluate.row import Row
from tests.evaluate_tools import rewrite

__all__ = ["ROW_LIKE", "Recorder", "check_layout", "replicate", "rows_like"]

_COLUMNS = (
    "model, sample, kind, method, gamma, verifier, needs, state, attempts, deaths, reason, seconds, finished, result, point, anchor"
)
_DISTANCES = ("lower", "upper", "d_adv")


def replicate(run: Path, folder: Path, count: int) -> Path:
    """A copy of a finished run with at least `count` samples, the real ones first; of a run of `evaluate`."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("report"))
    db = sqlite3.connect(folder / "ledger.sqlite")
    rows = db.execute(f"SELECT id, {_COLUMNS} FROM units ORDER BY id").fetchall()
    samples = sorted({row[2] for row in rows})
    times = -(-count // len(samples))
    step = samples[-1] + 1
    first = max(row[0] for row in rows) + 1
    for k in range(1, times):
        factor = 0.75 + 0.5 * ((k * 0.618) % 1)  # spread over a range, no two alike
        place = {row[0]: first + i for i, row in enumerate(rows)}
        for row in rows:
            unit, model, sample, *rest = row
            rest[4] = None if rest[4] is None else place[rest[4]]
            rest[11] = None if rest[11] is None else json.dumps(_scaled(json.loads(rest[11]), factor))
            marks = ", ".join("?" * (3 + len(rest)))
            db.execute(f"INSERT INTO units (id, {_COLUMNS}) VALUES ({marks})", (place[unit], model, sample + k * step, *rest))
        first += len(rows)
    db.commit()
    found = [s for (s,) in db.execute("SELECT DISTINCT sample FROM units ORDER BY sample")]
    db.close()
    plan = folder / "run.toml"
    lines = plan.read_text().splitlines()
    index = ",".join(map(str, found))
    plan.write_text("\n".join(f'index = "{index}"' if line.startswith("index = ") else line for line in lines) + "\n")
    rewrite(folder)
    return folder


def _scaled(result: dict[str, Any], factor: float) -> dict[str, Any]:
    found = dict(result)
    for name in _DISTANCES:
        if isinstance(found.get(name), float):
            found[name] *= factor
    if found.get("original"):
        found["original"] = _scaled(found["original"], factor)
    return found


def rows_like(count: int, methods: tuple[str, ...] = ("lin", "act"), gammas: tuple[float, ...] = (0.9, 0.99)) -> list[Row]:
    """Rows as real runs have them: brackets and exact distances, substitutes a little beside them, a few samples without any."""
    rng = np.random.default_rng(7)
    found = []
    for index in range(count):
        d = float(rng.gamma(6.0, 0.025))
        adv = d * float(1 + rng.gamma(1.0, 0.002))
        exact, wrong, far = rng.random() < 0.4, index % 17 == 5, index % 23 == 11
        lower = d if exact else d * float(rng.uniform(0.5, 0.9))
        upper = d if exact else adv
        status = "misclassified" if wrong else "none" if far else "exact" if exact else "bracket"
        if wrong:
            lower, upper, adv = 0.0, 0.0, 0.0
        for method in methods:
            for gamma in gammas:
                hat = d * float(1 + (1 - gamma if method == "lin" else 0.1) * rng.normal())
                own = status if status in ("misclassified", "none") else "exact"
                row = replace(
                    ROW_LIKE, index=index, label=index % 10, predicted=(index + wrong) % 10, adversarial_label=(index + 1) % 10,
                    method=method, gamma=gamma, status=own if status == "exact" else status, status_bnd=status, status_hat=own,
                    d_bnd_lower=None if far else lower, d_bnd_upper=None if far else upper, d_adv=None if far else adv,
                    d_hat_lower=None if far else 0.0 if wrong else hat, d_hat_upper=None if far else 0.0 if wrong else hat,
                    original_lower=None if far or wrong else lower * 0.97, original_upper=None if far or wrong else upper,
                    time_hat=None if wrong else 0.2, time_bnd=None if wrong else 2.0, time_prune=None if wrong else 0.1,
                )  # fmt: skip
                found.append(row)
    return found


ROW_LIKE = Row(
    model="digits", index=0, label=1, predicted=1, method="lin", gamma=0.9, verifier="bab", d_adv=0.22, adversarial_label=2,
    d_bnd_lower=0.2, d_bnd_upper=0.2, d_hat_lower=0.21, d_hat_upper=0.21, original_lower=0.1, original_upper=0.2,
    original_exact=False, status="exact", status_bnd="exact", status_hat="exact", reason=None,
    units_total=10, units_pruned=9, kept_per_layer=(0, 1),
    runs_bnd=5, runs_hat=2, nodes_bnd=0, nodes_hat=0, run_s_bnd=4.0, run_s_hat=0.5, time_attack=0.1, time_bnd=30.0, time_prune=0.5,
    time_hat=1.5, time_original=0.2, time_refine=0.0,
)  # fmt: skip


class Recorder:
    """Keeps every figure that is written, under its title."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.figures: dict[str, Figure] = {}
        save = Figure.savefig

        def savefig(figure: Figure, *args: Any, **how: Any) -> None:
            self.figures[how["metadata"]["Title"]] = figure
            save(figure, *args, **how)

        monkeypatch.setattr(Figure, "savefig", savefig)


def check_layout(figure: Figure) -> None:
    """No text is cut by the figure's edge or lies on another label, and no legend lies on the axes."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    edge, beyond = figure.bbox.padded(1.0), _beyond(figure)
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and text not in beyond:
            box = text.get_window_extent(renderer)
            assert edge.x0 <= box.x0, (text.get_text(), box)
            assert box.x1 <= edge.x1, (text.get_text(), box)
            assert edge.y0 <= box.y0, (text.get_text(), box)
            assert box.y1 <= edge.y1, (text.get_text(), box)
    for legend in figure.legends:
        for axes in figure.axes:
            assert not legend.get_window_extent(renderer).overlaps(axes.get_window_extent(renderer))
    for axes in figure.axes:
        assert axes.get_legend() is None
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axes.get_window_extent(renderer).padded(1.0).get_points()
            boxes = [
                label.get_window_extent(renderer)
                for tick in axis.get_major_ticks() for label in [tick.label1] if label.get_visible() and label.get_text()
            ]  # fmt: skip
            inside = [b for b in boxes if low[0] <= (b.x0 + b.x1) / 2 <= high[0] or low[1] <= (b.y0 + b.y1) / 2 <= high[1]]
            assert not [1 for a, b in pairwise(inside) if a.overlaps(b)], axis


def _beyond(figure: Figure) -> list[Text]:
    """Labels of ticks that are beyond the limits of their axis, or of axes that are off: they are not drawn."""
    found = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in [*axis.majorTicks, *axis.minorTicks]:
                if not (axes.axison and low <= tick.get_loc() <= high):
                    found += [tick.label1, tick.label2]
    return found
