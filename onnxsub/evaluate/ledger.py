"""The ledger: one row per unit of work in a SQLite file, written so that a kill at any moment loses nothing that was done.

States: `pending`, `running`, `done`, `failed` (with a reason). A unit's result and its state are written in one transaction. The
write-ahead log lets anybody read while a run goes on: `select state, count(*) from units group by state`.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from onnxsub.errors import InputError, OutputError
from onnxsub.evaluate.seals import OLD, SCHEMA, SEALED, Seals
from onnxsub.evaluate.task import KINDS, Outcome, unpack
from onnxsub.evaluate.unit import Group, Unit, UnitKey, numbered
from onnxsub.ops.base import Array

__all__ = ["EmptyLedgerError", "Group", "Ledger", "Unit", "UnitKey"]

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
    checksum BLOB
);
CREATE UNIQUE INDEX by_key ON units (model, sample, kind, method, gamma, verifier);
CREATE INDEX by_state ON units (state, id);
CREATE INDEX by_need ON units (needs) WHERE needs IS NOT NULL;
"""

_NOW = "strftime('%Y-%m-%dT%H:%M:%SZ', 'now')"
_COLUMNS = "id, model, sample, kind, method, gamma, verifier, needs, state, attempts, deaths, reason, seconds, result"


class EmptyLedgerError(InputError):
    """A ledger without tables: its run was killed before it began."""


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
            sealed = readonly and _sealed(path)
            name = f"{path.resolve().as_uri()}?immutable=1" if sealed else path
            self._db = sqlite3.connect(name, isolation_level=None, timeout=30.0, uri=sealed)
        self.seals = Seals(self._db, path, self._guard)
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
                        self._db.execute("INSERT INTO meta VALUES ('schema', ?), ('run', ?)", (SCHEMA, secrets.token_hex(16)))
            if not self._has_tables():
                raise EmptyLedgerError(f"{str(self.path)!r} is empty: the run did not begin; give the same command again")
            schema = self._meta("schema")
        if schema not in (OLD, SCHEMA):
            raise InputError(f"{str(self.path)!r} is a ledger of version {schema}, this is {SCHEMA}; choose another --run")

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

    @property
    def empty(self) -> bool:
        """Whether it has no units yet."""
        with self._guard():
            return self._db.execute("SELECT 1 FROM units LIMIT 1").fetchone() is None

    def add(self, units: Iterable[UnitKey]) -> list[Group]:
        """Adds units `(model, sample, kind, method, gamma, verifier)` in the order in which they are to be done.

        Empty for what a kind does not have (gamma -1). Where a sample has an attack it comes before the sample's other units,
        which need it. All of them are added or none. Returns how many there are of each kind.
        """
        with self._guard(), self._transaction():
            (first,) = self._db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM units").fetchone()
            # a grid has a million: the indices of a new ledger at once afterwards
            indices = [s for s in _TABLES.strip().split(";\n") if "INDEX" in s and first == 1]
            for statement in indices:
                self._db.execute(f"DROP INDEX IF EXISTS {statement.partition('INDEX ')[2].split()[0]}")
            groups = self.seals.add(numbered(units, first))
            for statement in indices:
                self._db.execute(statement.rstrip(";"))
        return groups

    def recover(self, *, retry_failed: bool = False) -> None:
        """What was running when the last process ended is pending again, with `retry_failed` also what failed."""
        with self._guard(), self._transaction():
            self._db.execute("UPDATE units SET state = 'pending' WHERE state = 'running'")
            if retry_failed:
                again = "state = 'pending', deaths = 0, reason = NULL, checksum = NULL"
                self._db.execute(f"UPDATE units SET {again} WHERE state = 'failed'")

    def take(self, count: int) -> list[Unit]:
        """The first pending units whose attacks are done, now `running`, as many as there are at the moment and at most `count`."""
        if count < 1:
            return []
        with self._guard(), self._transaction():
            rows = self._db.execute(
                f"""UPDATE units SET state = 'running', attempts = attempts + 1 WHERE id IN (
                    SELECT u.id FROM units u LEFT JOIN units n ON n.id = u.needs
                    WHERE u.state = 'pending' AND (u.needs IS NULL OR n.state = 'done') ORDER BY u.id LIMIT ?
                ) RETURNING {_COLUMNS}""",
                (count,),
            ).fetchall()
        return [_unit(row) for row in sorted(rows)]

    def finish(self, outcome: Outcome, followers: Mapping[str, Mapping[str, Any]] | None = None) -> list[Unit]:
        """Books `done` or `failed`, once; the units that need a failed one fail with it. Returns all that are settled by it.

        Args:
            followers: kind -> result of the units that need this one and are settled by it, without any work.
        """
        result = json.dumps(outcome.result, allow_nan=False) if outcome.state == "done" else None
        settle = (
            f"UPDATE units SET finished = {_NOW}, state = :state, reason = :reason, seconds = :seconds, result = :result, "
            f"point = :point, anchor = :anchor, checksum = {SEALED} WHERE "
        )
        ending, own = f" RETURNING {_COLUMNS}", f" RETURNING {_COLUMNS.replace('result', 'NULL')}"
        values = {
            "unit": outcome.id, "state": outcome.state, "reason": outcome.reason, "seconds": float(outcome.seconds),
            "result": result, "point": outcome.point, "anchor": outcome.anchor,
        }  # fmt: skip
        nothing = {**values, "seconds": 0.0, "point": None, "anchor": None}
        with self._guard(), self._transaction():
            rows = self._db.execute(f"{settle} id = :unit AND state = 'running' {own}", values).fetchall()
            if len(rows) != 1:
                raise RuntimeError(f"unit {outcome.id} was not running when it ended")
            units = [_unit(rows.pop(), outcome.result if outcome.state == "done" else None)]
            if outcome.state == "failed":
                failed = {**nothing, "reason": f"its attack failed: {outcome.reason}"}
                rows += self._db.execute(f"{settle} needs = :unit AND state = 'pending' {ending}", failed).fetchall()
            for kind, settled in (followers or {}).items():
                done = {**nothing, "kind": kind, "state": "done", "reason": None, "result": json.dumps(settled, allow_nan=False)}
                rows += self._db.execute(f"{settle} needs = :unit AND state = 'pending' AND kind = :kind {ending}", done).fetchall()
        return units + [_unit(row) for row in rows]

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

    def groups(self) -> list[Group]:
        """How many units of each kind are in which state, and how long they took: what a run of a million is told by."""
        with self._guard():
            found = self._db.execute(
                "SELECT kind, method, gamma, verifier, state, COUNT(*), TOTAL(seconds), COALESCE(SUM(seconds > 0), 0) FROM units "
                "GROUP BY kind, method, gamma, verifier, state"
            ).fetchall()
        return [Group.of(*row) for row in found]

    def failures(self) -> dict[str, int]:
        """Reasons of failed units, and how often each, in the order in which they first occur."""
        with self._guard():
            return dict(
                self._db.execute(
                    "SELECT reason, COUNT(*) FROM units WHERE state = 'failed' AND reason <> '' GROUP BY reason ORDER BY MIN(id)"
                ).fetchall()
            )

    def units(self) -> Iterator[Unit]:
        """All units in their order."""
        with self._guard():
            for row in self._db.execute(f"SELECT {_COLUMNS} FROM units ORDER BY id"):
                yield _unit(row)

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
    def together(self) -> Iterator[None]:
        """What is changed in the block is written by one commit, all of it or nothing."""
        with self._guard(), self._transaction():
            yield

    def _within(self) -> bool:
        return self._db.in_transaction

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._within():  # the outer one commits
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._within():  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "decode" not in str(error):
                raise OutputError(
                    f"{str(self.path)!r} cannot be used: {error}; free some room or choose a folder that is writable, "
                    "then run the same command again: what is done is kept"
                ) from error
            raise InputError(f"{str(self.path)!r} is damaged: {error}; restore it or choose another --run") from error


def _sealed(path: Path) -> bool:
    """Whether nobody here can write beside a ledger, and all that is known of it is in its own file."""
    log = path.with_name(f"{path.name}-wal")
    return not os.access(path.parent, os.W_OK) and not (log.exists() and log.stat().st_size)


def _unit(row: tuple[Any, ...], known: Mapping[str, Any] | None = None) -> Unit:
    id_, model, sample, kind, method, gamma, verifier, needs, state, attempts, deaths, reason, seconds, result = row
    return Unit(
        id_, model, sample, kind, method or None, None if gamma < 0 else gamma, verifier or None, needs, state, attempts, deaths,
        reason, seconds, known if result is None else json.loads(result),
    )  # fmt: skip
