"""Checksums of a run folder: of its plan, of every settled row of its ledger, of the list of its units, of the files beside it.

They find what was changed: a flipped bit, a row that was edited, deleted or copied from another run. They are no signatures, since
there is no secret in them: whoever wants to deceive can compute them anew.

A row's checksum is that of its key, its outcome and its points, together with the plan's. So a row of another model, another data
set or other settings is no row of this run, even where its key is the same.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError, OnnxsubWarning
from onnxsub.evaluate.scan import OUTCOME, VALUES, Scan, row_checksum
from onnxsub.evaluate.unit import Group, UnitKey
from onnxsub.files import one_line

__all__ = ["OLD", "SCHEMA", "SEALED", "Seals", "plan_checksum"]

OLD, SCHEMA = "1", "2"
"""Versions of a ledger: without and with checksums."""

SEALED = f"row_checksum({VALUES}, :{OUTCOME.replace(', ', ', :')})"
"""SQL: the checksum of a row with a new outcome, whose values have the names of their columns."""

_STORED = f"row_checksum({VALUES}, {OUTCOME})"
_EMPTY = (
    "state = 'pending', deaths = 0, reason = NULL, seconds = NULL, finished = NULL, result = NULL, point = NULL, anchor = NULL, "
    "checksum = NULL"
)
_SHOWN = 3
_LOT = 100  # SQLite may know no more than 999 parameters
_FOREIGN = "belongs to another plan than the run.toml beside it"


def plan_checksum(document: Mapping[str, Any]) -> str:
    """SHA-256 of what a `run.toml` holds, apart from its own checksum and from where files lie: they may be moved."""
    text = json.dumps(_decisive(document), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _decisive(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {str(k): _decisive(v) for k, v in value.items() if k not in ("path", "source", "checksum")}
        return {k: v for k, v in kept.items() if v is not None}
    return [_decisive(v) for v in value] if isinstance(value, list | tuple) else value


class Seals:
    """The checksums of one ledger.

    Args:
        db: its connection, which learns the function `row_checksum`. path: of its file, for messages.
        guard: turns SQLite's errors into ours.
    """

    def __init__(self, db: sqlite3.Connection, path: Path, guard: Callable[[], AbstractContextManager[None]]) -> None:
        self._db = db
        self._path = path
        self._guard = guard
        self._bound("")
        db.create_function("row_checksum", 14, self._row)

    def bind(self, plan: str | None, renew: Callable[[], str]) -> str:
        """Makes the ledger that of a plan, or finds that it is; one from before there were checksums gets them, and that is said.

        Args:
            plan: the checksum in `run.toml`; None: it has none. renew: writes one there, and returns it.

        Raises:
            InputError: the ledger is of another plan.
        """
        with self._guard():
            self._sound()  # before anything else is read, and before a million units are written
            old, known = self._meta("schema") == OLD, self._meta("plan")
            if plan is None and known is None:
                plan = renew()
            if old and plan is not None:
                self._upgrade(plan)
            elif known is None and plan is not None:
                self._set("plan", plan)
            elif known != plan:
                self._refuse(_FOREIGN)
            assert plan is not None
            self._bound(plan)
            return plan

    def check(self, plan: str | None) -> None:
        """Raises InputError naming what is not as it was written: units, rows, the plan, the file itself.

        Args:
            plan: the checksum in `run.toml`. None where the folder is from before there were any: that is said.
        """
        with self._guard():
            if self._meta("schema") == OLD and plan is None:
                warnings.warn(self._old, OnnxsubWarning, stacklevel=4)
                return
            self._db.execute("BEGIN")  # one state of the file, while others go on writing
            try:
                if self._meta("plan") != plan:
                    self._refuse(_FOREIGN)
                self._bound(plan or "")
                self._sound()
                known = self._meta("units")
                if known is None:
                    self._refuse("has no list of its units: the run did not begin", "give its command again")
                found = Scan(self._plan).read(self._db, None)
                if known != found.units:
                    self._refuse("does not hold the units that were planned", "go on with the run, which names them")
            finally:
                self._db.execute("ROLLBACK")
            self._refuse_rows(found.altered)

    def add(self, rows: Iterable[tuple[Any, ...]]) -> list[Group]:
        """Writes new units, `VALUES` of each, and the checksum of a new ledger's; returns how many there are of each kind."""
        found, left, new = Scan(self._plan), iter(rows), False
        while lot := list(islice(left, _LOT)):
            found.new(lot)
            new = new or lot[0][0] == 1
            # a statement for many rows takes half the time of one each
            marks = ", ".join([f"({', '.join('?' * len(lot[0]))})"] * len(lot))
            self._db.execute(f"INSERT INTO units ({VALUES}) VALUES {marks}", tuple(chain.from_iterable(lot)))
        if new:
            self._set("units", found.units)
        return found.groups

    def take_over(self, planned: Iterable[UnitKey], *, redo: bool) -> list[Group]:
        """The same for the process that goes on with the run; returns how many there were of each kind.

        Args:
            planned: the units as they should be.
            redo: rows that were altered are done again, and so is what builds on them.

        Raises:
            InputError: a unit of the plan is not there, or another is: nothing would seem missing.
        """
        with self._guard():
            found = Scan(self._plan).read(self._db, planned)
            if found.wrong is not None:
                wanted, have = found.wrong
                lacks = "" if wanted is None else f"lacks {_named(wanted)}"
                other = "" if have is None else f"has {_named(have)}"
                self._refuse(f"{', and '.join(filter(None, (lacks, other if wanted is None else '')))}, which is not as planned")
            self._set("units", found.units)
            if not redo:
                self._refuse_rows(found.altered)
            for row in found.altered:
                self._db.execute(f"UPDATE units SET {_EMPTY} WHERE ? IN (id, needs)", row[:1])
            return found.groups

    def keep(self, name: str, data: bytes) -> None:
        """Notes that a file of the folder is about to be written; until it is, the one that is there is known too."""
        with self._guard():
            known = (self._meta(f"file {name}") or "").split()[-1:]
            self._set(f"file {name}", " ".join([*known, _digest(data)]))

    def check_file(self, name: str) -> None:
        """Raises InputError where a file of the folder is not one that was written."""
        with self._guard():
            path, known = self._path.with_name(name), self._meta(f"file {name}")
            if self._meta("schema") == OLD or (known is None and not path.is_file()):
                return
            if known is None or not path.is_file() or _digest(path.read_bytes()) not in known.split():
                raise InputError(f"{str(path)!r} is not as it was written; give the command that wrote it again")

    def _upgrade(self, plan: str) -> None:
        """Seals the rows of a ledger that is older than checksums, as they are."""
        warnings.warn(f"{self._old}; it has checksums from now on", OnnxsubWarning, stacklevel=5)
        self._bound(plan)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("ALTER TABLE units ADD COLUMN checksum BLOB")
            self._db.execute(f"UPDATE units SET checksum = {_STORED} WHERE state IN ('done', 'failed')")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?), ('plan', ?)", (SCHEMA, plan))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _sound(self) -> None:
        """A file of tables and indices in order, and nothing in it that acts by itself."""
        odd = self._db.execute(
            "SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'"
        ).fetchone()
        if odd is not None:
            self._refuse(f"has the {odd[0]} {one_line(odd[1], 40)!r}, which no ledger has")
        (sound,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if sound != "ok":
            self._refuse(f"is damaged: {one_line(sound, 120)}")

    def _refuse_rows(self, altered: list[tuple[Any, ...]]) -> None:
        if not altered:
            return
        named = "; ".join(f"{kind} of sample {sample} of {model}" for _, kind, sample, model in altered[:_SHOWN])
        more = f" and {len(altered) - _SHOWN:,} more" if len(altered) > _SHOWN else ""
        self._refuse(
            f"has rows that are not as they were written: {one_line(named, 160)}{more}",
            "go on with the run and --retry-failed to do them again, or restore the file",
        )

    @property
    def _old(self) -> str:
        return f"{str(self._path)!r} is from before rows had checksums: whether they were altered since cannot be told"

    def _bound(self, plan: str) -> None:
        self._plan = plan.encode()
        self._empty = hashlib.blake2b(self._plan, digest_size=16)

    def _row(self, *values: Any) -> bytes:
        return row_checksum(self._empty, values)

    def _refuse(self, what: str, do: str = "restore it or choose another --run") -> None:
        raise InputError(f"{str(self._path)!r} {what}; {do}")

    def _meta(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _set(self, key: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _named(key: UnitKey) -> str:
    model, sample, kind, *rest = key
    more = [str(r) for r in rest if r not in ("", -1.0)]
    return one_line(" ".join([f"the unit {kind} of sample {sample} of {model}", *more]), 120)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
