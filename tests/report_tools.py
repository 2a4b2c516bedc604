"""Run folders with many samples, made of a real small one: its ledger again and again, each time with other distances."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

__all__ = ["replicate"]

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
    return folder


def _scaled(result: dict[str, Any], factor: float) -> dict[str, Any]:
    found = dict(result)
    for name in _DISTANCES:
        if isinstance(found.get(name), float):
            found[name] *= factor
    if found.get("original"):
        found["original"] = _scaled(found["original"], factor)
    return found
