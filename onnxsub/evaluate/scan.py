"""One look at every row of a ledger: its units, which of its rows are not as they were written, how many there are of each kind."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from onnxsub.evaluate.unit import Group, UnitKey

__all__ = ["OUTCOME", "VALUES", "Scan", "row_checksum"]

VALUES = "id, model, sample, kind, method, gamma, verifier, needs"
OUTCOME = "state, reason, seconds, result, point, anchor"
_COLUMNS = f"{VALUES}, {OUTCOME}, checksum, deaths, attempts"

_SETTLED = ("done", "failed")
_LOT = 4096  # rows that are looked at together
_NO_POINTS = f", {type(None)}, {type(None)}, 4, 4)NoneNone"  # how the text of a row without points ends


def row_checksum(plan: Any, row: tuple[Any, ...]) -> bytes:
    """The checksum of a row: of its key, its outcome and its points, all together with the plan's.

    Texts and numbers are told apart by how they are written, points by their lengths.

    Args:
        plan: a hash that has read the plan's checksum. row: `VALUES` and `OUTCOME`.
    """
    *plain, point, anchor = row
    found = plan.copy()
    if point is None and anchor is None:
        found.update(f"{repr(tuple(plain))[:-1]}{_NO_POINTS}".encode())
    else:
        parts = [part if isinstance(part, bytes) else repr(part).encode() for part in (point, anchor)]
        found.update(repr((*plain, type(point), type(anchor), *map(len, parts))).encode())
        for part in parts:
            found.update(part)
    digest: bytes = found.digest()
    return digest


@dataclass
class Scan:
    """What is found, row by row in their order.

    Args:
        plan: the checksum of the run's plan.

    Attributes:
        altered: `(id, kind, sample, model)` of rows that are not as they were written.
        wrong: the first unit that was wanted, and the one that is there in its place (None: none); None where they are the same.
    """

    plan: bytes
    altered: list[tuple[Any, ...]] = field(default_factory=list)
    wrong: tuple[UnitKey | None, UnitKey | None] | None = None

    def __post_init__(self) -> None:
        self._empty = hashlib.blake2b(self.plan, digest_size=16)
        self._units = self._empty.copy()
        self._groups: dict[tuple[Any, ...], list[Any]] = {}

    @property
    def units(self) -> str:
        """The checksum of the list of units."""
        return self._units.hexdigest()

    @property
    def groups(self) -> list[Group]:
        """See `Ledger.groups`."""
        return [Group.of(*key, *counted) for key, counted in self._groups.items()]

    def new(self, rows: list[tuple[Any, ...]]) -> None:
        """Notes new rows, `VALUES` of each."""
        self._units.update("".join(map(repr, rows)).encode())
        for key in rows:
            self._counted((*key[3:7], "pending"))[0] += 1

    def read(self, db: sqlite3.Connection, planned: Iterable[UnitKey] | None) -> Scan:
        """Looks at all rows.

        Args:
            planned: the units as they should be; None: that is not asked.
        """
        cursor = db.execute(f"SELECT {_COLUMNS} FROM units ORDER BY id")
        wanted = None if planned is None else iter(planned)
        while rows := cursor.fetchmany(_LOT):
            if wanted is not None and not self._as_planned(rows, list(islice(wanted, len(rows)))):
                return self
            self._look(rows)
        if wanted is not None and (missing := next(wanted, None)) is not None:
            self.wrong = missing, None
        return self

    def _as_planned(self, rows: list[tuple[Any, ...]], wanted: list[UnitKey]) -> bool:
        have = [row[1:7] for row in rows]
        if have == wanted:
            return True
        at = next((i for i, (a, b) in enumerate(zip(wanted, have, strict=False)) if a != b), len(wanted))
        self.wrong = (wanted[at] if at < len(wanted) else None), have[at]
        return False

    def _look(self, rows: list[tuple[Any, ...]]) -> None:
        texts = []
        for row in rows:
            id_, model, sample, kind, method, gamma, verifier, _, state, _, seconds, result, point, anchor, *rest = row
            checksum, deaths, tries = rest
            text = repr(row[:8])
            texts.append(text)
            counted = self._counted((kind, method, gamma, verifier, state))
            counted[0] += 1
            if state not in _SETTLED:
                sound = result is point is anchor is checksum is None
            else:
                if seconds and type(seconds) is float:  # of an altered row it may be anything
                    counted[1] += seconds
                    counted[2] += 1
                if point is anchor is None:  # as `row_checksum` has it
                    found = self._empty.copy()
                    found.update(f"{text[:-1]}, {repr(row[8:12])[1:-1]}{_NO_POINTS}".encode())
                    sound = found.digest() == checksum
                else:
                    sound = row_checksum(self._empty, row[:14]) == checksum
            if not (sound and type(deaths) is type(tries) is int and deaths >= 0):
                self.altered.append((id_, kind, sample, model))
        self._units.update("".join(texts).encode())

    def _counted(self, key: tuple[Any, ...]) -> list[Any]:
        counted = self._groups.get(key)
        if counted is None:
            counted = self._groups[key] = [0, 0.0, 0]
        return counted
