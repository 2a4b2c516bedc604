"""Run folders, altered: one seed is one alteration of one finished run."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np

from onnxsub.evaluate.drive import LEDGER, PLAN
from onnxsub.evaluate.reference import REFERENCE

__all__ = ["ALTERATIONS", "alter", "copy_of"]

Random = np.random.Generator
Alteration = Callable[[Path, Path, Random], None]

_COLUMNS = (
    "id", "model", "sample", "kind", "method", "gamma", "verifier", "needs", "state", "attempts", "deaths", "reason", "seconds",
    "finished", "result", "point", "anchor", "checksum",
)  # fmt: skip
_VALUES = (
    None, "", "x", "done", "failed", "pending", 0, 1, -1, 7, 1e300, 0.125, b"", b"\x00\x01", "{}", '{"status": "exact"}', "[1]",
)  # fmt: skip


def copy_of(run: Path, target: Path) -> Path:
    """A run folder copied whole."""
    shutil.copytree(run, target)
    return target


def alter(folder: Path, other: Path, seed: int) -> str:
    """Alters a folder in one way; `other` is another run's. Returns the name of the way."""
    rng = np.random.default_rng(seed)
    chosen = ALTERATIONS[seed % len(ALTERATIONS)]
    chosen(folder, other, rng)
    return chosen.__name__.strip("_")


def _sql(folder: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    db = sqlite3.connect(folder / LEDGER, isolation_level=None)
    for statement, values in statements:
        try:
            db.execute(statement, values)
        except sqlite3.IntegrityError:
            continue  # the table refuses it: nothing is altered
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def _row(folder: Path, rng: Random) -> int:
    db = sqlite3.connect(folder / LEDGER)
    (count,) = db.execute("SELECT COUNT(*) FROM units").fetchone()
    db.close()
    return int(rng.integers(1, count + 1))


def _any_value(folder: Path, other: Path, rng: Random) -> None:
    column, value = _COLUMNS[rng.integers(len(_COLUMNS))], _VALUES[rng.integers(len(_VALUES))]
    _sql(folder, (f"UPDATE units SET {column} = ? WHERE id = ?", (value, _row(folder, rng))))


def _digit(folder: Path, other: Path, rng: Random) -> None:
    """One digit of a result."""
    row = _row(folder, rng)
    db = sqlite3.connect(folder / LEDGER)
    (text,) = db.execute("SELECT result FROM units WHERE id = ?", (row,)).fetchone()
    db.close()
    places = [i for i, c in enumerate(text) if c.isdigit()]
    if places:
        at = places[rng.integers(len(places))]
        text = f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}"
    _sql(folder, ("UPDATE units SET result = ? WHERE id = ?", (text, row)))


def _nearer(folder: Path, other: Path, rng: Random) -> None:
    change = """replace(result, '"lower": 0.', '"lower": 0.9')"""
    _sql(folder, (f"UPDATE units SET result = {change} WHERE id = ?", (_row(folder, rng),)))


def _point(folder: Path, other: Path, rng: Random) -> None:
    """One byte of a point or an anchor."""
    column = ("point", "anchor")[rng.integers(2)]
    db = sqlite3.connect(folder / LEDGER)
    found = db.execute(f"SELECT id, {column} FROM units WHERE {column} IS NOT NULL").fetchall()
    db.close()
    if found:
        row, blob = found[rng.integers(len(found))]
        data = bytearray(blob)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        _sql(folder, (f"UPDATE units SET {column} = ? WHERE id = ?", (bytes(data), row)))


def _swapped(folder: Path, other: Path, rng: Random) -> None:
    """Outcomes of two rows, checksums and all."""
    a, b = _row(folder, rng), _row(folder, rng)
    columns = ("state", "reason", "seconds", "result", "point", "anchor", "checksum")
    both = ", ".join(f"{c} = (SELECT {c} FROM units WHERE id = ?)" for c in columns)
    _sql(folder, (f"UPDATE units SET {both} WHERE id = ?", (*[a] * len(columns), b)))


def _foreign_row(folder: Path, other: Path, rng: Random) -> None:
    """The outcome of the same unit in a run of another model."""
    row = _row(folder, rng)
    db = sqlite3.connect(other / LEDGER)
    found = db.execute("SELECT state, result, point, anchor, checksum FROM units WHERE id = ?", (row,)).fetchone()
    db.close()
    if found:
        _sql(folder, ("UPDATE units SET state = ?, result = ?, point = ?, anchor = ?, checksum = ? WHERE id = ?", (*found, row)))


def _deleted(folder: Path, other: Path, rng: Random) -> None:
    _sql(folder, ("DELETE FROM units WHERE id = ?", (_row(folder, rng),)))


def _deleted_all(folder: Path, other: Path, rng: Random) -> None:
    _sql(folder, ("DELETE FROM units WHERE id > ?", (int(rng.integers(0, 4)),)))


def _doubled(folder: Path, other: Path, rng: Random) -> None:
    columns = "kind, method, gamma, verifier, state, seconds, result, point, anchor, checksum"
    copied = f"SELECT model, sample + 50, {columns} FROM units WHERE id = ?"
    _sql(folder, (f"INSERT INTO units (model, sample, {columns}) {copied}", (_row(folder, rng),)))


def _renumbered(folder: Path, other: Path, rng: Random) -> None:
    a, b = _row(folder, rng), _row(folder, rng)
    moves = ((-1, a), (a, b), (b, -1)) if a != b else ((1000, a),)
    _sql(folder, *(("UPDATE units SET id = ? WHERE id = ?", move) for move in moves))


def _undone(folder: Path, other: Path, rng: Random) -> None:
    """A row that says it was never done: it is done again."""
    empty = ", ".join(f"{c} = NULL" for c in ("reason", "seconds", "finished", "result", "point", "anchor", "checksum"))
    _sql(folder, (f"UPDATE units SET state = 'pending', {empty} WHERE id = ?", (_row(folder, rng),)))


def _meta(folder: Path, other: Path, rng: Random) -> None:
    key = ("schema", "run", "plan", "units", f"file {REFERENCE}")[rng.integers(5)]
    value = ("0", "1", "2", "", "0" * 64)[rng.integers(5)]
    if rng.random() < 0.3:
        _sql(folder, ("DELETE FROM meta WHERE key = ?", (key,)))
    else:
        _sql(folder, ("UPDATE meta SET value = ? WHERE key = ?", (value, key)))


def _acts(folder: Path, other: Path, rng: Random) -> None:
    """A trigger or a view in the ledger."""
    made = (
        "CREATE TRIGGER t AFTER UPDATE ON units BEGIN UPDATE units SET state = 'done' WHERE id = 1; END",
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM units; END",
        "CREATE VIEW v AS SELECT * FROM units",
        "CREATE VIRTUAL TABLE f USING fts5(x)",
    )[rng.integers(4)]
    _sql(folder, (made, ()))


def _table(folder: Path, other: Path, rng: Random) -> None:
    made = ("DROP TABLE meta", "DROP TABLE units", "DROP INDEX by_state", "ALTER TABLE units DROP COLUMN reason")[rng.integers(4)]
    _sql(folder, (made, ()))


def _page(folder: Path, other: Path, rng: Random) -> None:
    """Bytes of the ledger's file."""
    path = folder / LEDGER
    data = bytearray(path.read_bytes())
    match rng.integers(4):
        case 0:
            for at in rng.integers(0, len(data), 8):
                data[at] ^= 1 << int(rng.integers(8))
        case 1:
            del data[rng.integers(len(data)) :]
        case 2:
            at = 512 * int(rng.integers(len(data) // 512))
            data[at : at + 512] = bytes(512)
        case _:
            data[rng.integers(len(data))] ^= 255
    path.write_bytes(data)


def _other_ledger(folder: Path, other: Path, rng: Random) -> None:
    shutil.copy(other / LEDGER, folder / LEDGER)


def _text(name: str, folder: Path, rng: Random) -> None:
    path = folder / name
    text = path.read_text()
    lines = text.splitlines(keepends=True)
    at = int(rng.integers(len(lines)))
    places = [i for i, c in enumerate(text) if c.isdigit()]
    match rng.integers(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[int(rng.integers(len(lines)))])
        case 2:
            lines = lines[: at + 1]
        case 3:
            lines.insert(at, ("timeout = 1\n", "[settings]\n", "m,0,0.5\n", "\x00\n", "seed = 99\n")[rng.integers(5)])
        case _:
            i = places[rng.integers(len(places))]
            lines = [f"{text[:i]}{(int(text[i]) + 1) % 10}{text[i + 1 :]}"]
    path.write_text("".join(lines))


def _plan(folder: Path, other: Path, rng: Random) -> None:
    _text(PLAN, folder, rng)


def _unsigned_plan(folder: Path, other: Path, rng: Random) -> None:
    """A setting is changed and the checksum is left out, as an older version would have written it."""
    path = folder / PLAN
    lines = [line for line in path.read_text().splitlines() if not line.startswith("checksum")]
    path.write_text("\n".join(lines).replace("timeout = ", "timeout = 1") + "\n")


def _other_plan(folder: Path, other: Path, rng: Random) -> None:
    shutil.copy(other / PLAN, folder / PLAN)


def _reference(folder: Path, other: Path, rng: Random) -> None:
    if (folder / REFERENCE).is_file():
        _text(REFERENCE, folder, rng)


def _beside(folder: Path, other: Path, rng: Random) -> None:
    """Files beside the ledger: damaged, strange, or gone."""
    name = ("lock.sqlite", "samples.csv", f"{LEDGER}-wal", f"{LEDGER}-shm", REFERENCE, LEDGER, PLAN, "new")[rng.integers(8)]
    path = folder / name
    path.unlink(missing_ok=True)
    match rng.integers(4):
        case 0:
            path.write_bytes(rng.bytes(5000))
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(other / LEDGER)
        case _:
            pass


ALTERATIONS: tuple[Alteration, ...] = (
    _any_value, _digit, _nearer, _point, _swapped, _foreign_row, _deleted, _deleted_all, _doubled, _renumbered, _undone, _meta,
    _acts, _table, _page, _other_ledger, _plan, _unsigned_plan, _other_plan, _reference, _beside,
)  # fmt: skip
