"""What a run is about, as the run folder sees it: its units, how one becomes a task, what an outcome settles, what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from onnxsub.evaluate.ledger import Ledger, Unit, UnitKey
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.task import Attacked, Outcome

__all__ = ["Job", "Plain", "Watch"]

Summary_co = TypeVar("Summary_co", covariant=True)


class Watch(Protocol):
    """Told of every unit that is settled; says when no more are needed."""

    def note(self, settled: Iterable[Unit]) -> None:
        """Units that have been settled."""
        ...

    @property
    def enough(self) -> bool:
        """Whether the units that are settled suffice, so that the rest need not be done."""
        ...

    def wants(self, under_way: int, jobs: int) -> bool:
        """Whether one more unit should begin, beside so many that are under way on so many workers."""
        ...


class Job(Protocol[Summary_co]):
    """A run, apart from its folder, its engine and its limits. What it says must not depend on the order in which units end.

    Attributes:
        plan: models, samples, settings. kinds: of its units; each has its function in `onnxsub.evaluate.work.WORK`.
        limit: seconds after which a unit is killed, where the user names none; None: never.
    """

    @property
    def plan(self) -> Plan[Any]: ...

    @property
    def kinds(self) -> tuple[str, ...]: ...

    @property
    def limit(self) -> float | None: ...

    def check(self, *, here: bool) -> None:
        """Raises what every unit would raise. `here`: the units are done on this machine, with what is installed on it."""
        ...

    def units(self) -> Iterable[UnitKey]:
        """The units, in the order in which they are to be done."""
        ...

    def label(self, row: int) -> int | None:
        """The class to defend at a row of the samples; None: the predicted one."""
        ...

    def block(self, unit: Unit) -> tuple[int, ...]:
        """The positions of all samples of a unit that is about several, the first one first; else none."""
        ...

    def attacked(self, unit: Unit, ledger: Ledger, shape: tuple[int, ...]) -> Attacked | None:
        """What the unit that this one needs has found."""
        ...

    def followers(self, unit: Unit, outcome: Outcome) -> Mapping[str, Mapping[str, Any]]:
        """Kind -> result of the units that need this one and are settled by its outcome, without any work."""
        ...

    def watch(self, units: Iterable[Unit]) -> Watch | None:
        """A watch that knows the units so far; None where all units are needed."""
        ...

    def conclude(self, ledger: Ledger, folder: Path) -> Summary_co:
        """Writes the results of the units that are settled, and sums them up."""
        ...


class Plain:
    """What most jobs do not have: units about several samples, units that need others, an end before the last unit."""

    def block(self, unit: Unit) -> tuple[int, ...]:
        """No unit is about several samples."""
        return ()

    def attacked(self, unit: Unit, ledger: Ledger, shape: tuple[int, ...]) -> Attacked | None:
        """No unit needs another one."""
        return None

    def followers(self, unit: Unit, outcome: Outcome) -> Mapping[str, Mapping[str, Any]]:
        """No unit is settled by another one."""
        return {}

    def watch(self, units: Iterable[Unit]) -> Watch | None:
        """All units are needed."""
        return None
