"""The ledger: one row per unit of work in a SQLite file, written so that a kill at any moment loses nothing that was done.

States: `pending`, `running`, `done`, `failed` (with a reason). A unit's result and its state are written in one transaction. The
write-ahead log lets anybody read while a run goes on: `select state, count(*) from units group by state`.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from onnxsub.errors import InputError, OutputError
from onnxsub.evaluate.task import KINDS, Outcome, unpack
from onnxsub.ops.base import Array

__all__ = ["Ledger", "Unit", "UnitKey"]

UnitKey = tuple[str, int, str, str, float, str]
"""`(model, sample, kind, method, gamma, verifier)` of a unit; see `Ledger.add`."""

_SCHEMA = "1"

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE units (
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    sample INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ({kinds})),
    method TEXT NOT NULL DEFAULT '',
    gamma REAL NOT NULL DEFAULT -1,
    verifier TEXT NOT NULL DEFAULT '',
    needs INTEGER REFERENCES units (id),
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'done', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    seconds REAL,
    finished TEXT,
    result TEXT,
    point BLOB,
    anchor BLOB,
    UNIQUE (model, sample, kind, method, gamma, verifier)
);
CREATE INDEX by_state ON units (state, id);
CREATE INDEX by_need ON units (needs);
"""

_NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
_COLUMNS = "id, model, sample, kind, method, gamma, verifier, needs, state, attempts, deaths, reason, seconds, result"


@dataclass(frozen=True)
class Unit:
    """A row of the ledger, without its point.

    Attributes:
        model: name of the network. sample: position in the data set.
        needs: the attack that it builds on.
        deaths: how often its worker was lost.
    """

    id: int
    model: str
    sample: int
    kind: str
    method: str | None
    gamma: float | None
    verifier: str | None
    needs: int | None
    state: str
    attempts: int
    deaths: int
    reason: str | None
    seconds: float | None
    result: Mapping[str, Any] | None


class Ledger:
    """The ledger of one run folder. One process writes at a time; `readonly` ones may watch.

    Args:
        kinds: of the units, for a ledger that is made.

    Raises:
        InputError: damaged, of another version, missing (`readonly`).
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, *, readonly: bool = False, kinds: Sequence[str] = KINDS) -> None:
        self.path = path
        self._kinds = kinds
        if readonly and not path.is_file():
            raise InputError(
                f"{str(path.parent)!r} is no run folder: it has no {path.name}; give the folder of a run that was begun"
            )
        with self._guard():
            # without the write-ahead log's own files even a reader may have to make them, so it opens for writing too
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        try:
            self._open(readonly)
        except BaseException:
            self._db.close()
            raise

    def _open(self, readonly: bool) -> None:
        with self._guard():
            if readonly:
                self._db.execute("PRAGMA query_only = on")
            else:
                self._db.execute("PRAGMA journal_mode = WAL")
                # a kill cannot lose a commit; a power cut may lose the last ones, which are then computed again
                self._db.execute("PRAGMA synchronous = NORMAL")
                with self._transaction():
                    if not self._has_tables():
                        tables = _TABLES.format(kinds=", ".join(f"'{kind}'" for kind in self._kinds))
                        for statement in tables.strip().split(";\n"):
                            self._db.execute(statement)
                        self._db.execute("INSERT INTO meta VALUES ('schema', ?), ('run', ?)", (_SCHEMA, secrets.token_hex(16)))
            if not self._has_tables():
                raise InputError(f"{str(self.path)!r} is empty: the run did not begin; give the same command again")
            schema = self._meta("schema")
        if schema != _SCHEMA:
            raise InputError(f"{str(self.path)!r} is a ledger of version {schema}, this is {_SCHEMA}; choose another --run")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @property
    def run_id(self) -> str:
        """A random name of the run, by which processes that it left behind are known."""
        return self._meta("run")

    def add(self, units: Iterable[UnitKey]) -> None:
        """Adds units `(model, sample, kind, method, gamma, verifier)` in the order in which they are to be done.

        Empty for what a kind does not have (gamma -1). Where a sample has an attack it comes before the sample's other units,
        which need it. All of them are added or none.
        """
        attacks: dict[tuple[str, int], int] = {}
        with self._guard(), self._transaction():
            for model, sample, kind, method, gamma, verifier in units:
                needs = attacks.get((model, sample))
                cursor = self._db.execute(
                    "INSERT INTO units (model, sample, kind, method, gamma, verifier, needs) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (model, sample, kind, method, gamma, verifier, needs),
                )
                if kind == "attack":
                    assert cursor.lastrowid is not None
                    attacks[model, sample] = cursor.lastrowid

    def recover(self, *, retry_failed: bool = False) -> None:
        """What was running when the last process ended is pending again, with `retry_failed` also what failed."""
        with self._guard(), self._transaction():
            self._db.execute("UPDATE units SET state = 'pending' WHERE state = 'running'")
            if retry_failed:
                self._db.execute("UPDATE units SET state = 'pending', deaths = 0, reason = NULL WHERE state = 'failed'")

    def take(self) -> Unit | None:
        """The first pending unit whose attack is done, now `running`; None where there is none at the moment."""
        with self._guard(), self._transaction():
            row = self._db.execute(
                f"""UPDATE units SET state = 'running', attempts = attempts + 1 WHERE id = (
                    SELECT u.id FROM units u LEFT JOIN units n ON n.id = u.needs
                    WHERE u.state = 'pending' AND (u.needs IS NULL OR n.state = 'done') ORDER BY u.id LIMIT 1
                ) RETURNING {_COLUMNS}"""
            ).fetchone()
        return None if row is None else _unit(row)

    def finish(self, outcome: Outcome, followers: Mapping[str, Mapping[str, Any]] | None = None) -> list[Unit]:
        """Books `done` or `failed`, once; the units that need a failed one fail with it. Returns all that are settled by it.

        Args:
            followers: kind -> result of the units that need this one and are settled by it, without any work.
        """
        result = json.dumps(outcome.result, allow_nan=False) if outcome.state == "done" else None
        settle = f"UPDATE units SET finished = {_NOW}, state = ?, reason = ?, seconds = ?, result = ?, point = ?, anchor = ? WHERE "
        ending = f" RETURNING {_COLUMNS}"
        with self._guard(), self._transaction():
            rows = self._db.execute(
                f"{settle} id = ? AND state = 'running' {ending}",
                (outcome.state, outcome.reason, outcome.seconds, result, outcome.point, outcome.anchor, outcome.id),
            ).fetchall()
            if len(rows) != 1:
                raise RuntimeError(f"unit {outcome.id} was not running when it ended")
            if outcome.state == "failed":
                reason = f"its attack failed: {outcome.reason}"
                rows += self._db.execute(
                    f"{settle} needs = ? AND state = 'pending' {ending}", ("failed", reason, 0.0, None, None, None, outcome.id)
                ).fetchall()
            for kind, settled in (followers or {}).items():
                rows += self._db.execute(
                    f"{settle} needs = ? AND state = 'pending' AND kind = ? {ending}",
                    ("done", None, 0.0, json.dumps(settled, allow_nan=False), None, None, outcome.id, kind),
                ).fetchall()
        return [_unit(row) for row in rows]

    def put_back(self, unit: int, reason: str) -> None:
        """The worker of a running unit was lost: it is pending again, with one death more."""
        with self._guard(), self._transaction():
            self._db.execute(
                "UPDATE units SET state = 'pending', deaths = deaths + 1, reason = ? WHERE id = ? AND state = 'running'",
                (reason, unit),
            )

    def counts(self) -> dict[str, int]:
        """Number of units by state."""
        found = dict.fromkeys(("pending", "running", "done", "failed"), 0)
        with self._guard():
            found.update(self._db.execute("SELECT state, COUNT(*) FROM units GROUP BY state").fetchall())
        return found

    def units(self) -> Iterator[Unit]:
        """All units in their order."""
        with self._guard():
            for row in self._db.execute(f"SELECT {_COLUMNS} FROM units ORDER BY id"):
                yield _unit(row)

    def keys(self) -> Generator[UnitKey, None, None]:
        """The keys of all units, in their order."""
        with self._guard():
            yield from self._db.execute("SELECT model, sample, kind, method, gamma, verifier FROM units ORDER BY id")

    def result(self, unit: int) -> tuple[Mapping[str, Any], Array | None]:
        """Result and point (float32, flat) of a unit that is done."""
        with self._guard():
            text, point = self._db.execute("SELECT result, point FROM units WHERE id = ?", (unit,)).fetchone()
        return json.loads(text), None if point is None else unpack(point)

    def attacks(self, model: str, kind: str = "attack") -> Iterator[tuple[int, Mapping[str, Any], Array, Array]]:
        """Sample, result, anchor and point (float32, flat) of every attack on a model, or unit of another kind, that has both."""
        with self._guard():
            for sample, result, anchor, point in self._db.execute(
                "SELECT sample, result, anchor, point FROM units "
                "WHERE kind = ? AND state = 'done' AND model = ? AND point IS NOT NULL AND anchor IS NOT NULL ORDER BY id",
                (kind, model),
            ):
                yield sample, json.loads(result), unpack(anchor), unpack(point)

    def _meta(self, key: str) -> str:
        with self._guard():
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def _has_tables(self) -> bool:
        return self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is not None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise OutputError(
                    f"{str(self.path)!r} cannot be used: {error}; free some room or choose a folder that is writable, "
                    "then run the same command again: what is done is kept"
                ) from error
            raise InputError(f"{str(self.path)!r} is damaged: {error}; restore it or choose another --run") from error


def _unit(row: tuple[Any, ...]) -> Unit:
    id_, model, sample, kind, method, gamma, verifier, needs, state, attempts, deaths, reason, seconds, result = row
    return Unit(
        id_, model, sample, kind, method or None, None if gamma < 0 else gamma, verifier or None, needs, state, attempts, deaths,
        reason, seconds, None if result is None else json.loads(result),
    )  # fmt: skip
