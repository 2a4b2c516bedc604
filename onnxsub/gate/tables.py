"""The tables of a gate, as the page, the Markdown summary and the terminal show them."""

from __future__ import annotations

from collections.abc import Sequence

from onnxsub.gate.pairs import Pair
from onnxsub.gate.result import GateResult, witness_distance
from onnxsub.report.table import Table

__all__ = ["changed_table", "checks_table", "verdicts_table"]

_NONE = "-"


def checks_table(result: GateResult) -> Table:
    """What had to hold, and whether it does."""
    cells = tuple((c.name, c.outcome, c.said) for c in result.checks)
    return Table("Checks", _rule(result), ("check", "outcome", "figures"), (False, False, False), cells)


def _rule(result: GateResult) -> str:
    if all(not (p.new.open or (p.old is not None and p.old.open)) for p in result.pairs):
        return "Every sample is decided, for both models." if result.old is not None else "Every sample is decided."
    return (
        "What the baseline guarantees must still be guaranteed. A check fails only if it fails with every undecided sample of the "
        "new model read in its favour, and passes only with all of them read against it; else it is undecided. "
        "Samples that both models leave undecided have not changed."
    )


def verdicts_table(result: GateResult) -> Table:
    """Samples by verdict, of both models."""
    new = result.counts("new")
    old = None if result.old is None else result.counts("old")
    heads = ("verdict", *(["baseline"] if old is not None else []), "new model")
    cells = tuple((name, *([f"{old.get(name, 0):,}"] if old is not None else []), f"{count:,}") for name, count in new.items())
    note = f"Of {len(result.pairs):,} samples, at radius {result.options.eps:g}."
    return Table("Samples by verdict", note, heads, (False, *[True] * (len(heads) - 1)), cells)


def changed_table(title: str, pairs: Sequence[Pair], most: int) -> Table:
    """Samples that were lost or won, at most so many."""
    reasons = any(p.new.open for p in pairs[:most])
    cells = tuple(
        (
            str(p.index), _shown(p.label), _NONE if p.old is None else p.old.verdict, p.new.verdict, _shown(p.new.row.predicted),
            _far(p), *([p.new.row.reason or "" if p.new.open else ""] if reasons else []),
        )
        for p in pairs[:most]
    )  # fmt: skip
    heads = ("sample", "class", "baseline", "new model", "predicted", "counterexample at", *(["why undecided"] if reasons else []))
    left = f" {len(pairs) - most:,} more are not shown." if len(pairs) > most else ""
    note = f"Sample: its position in the data. Distances are L∞, in input units.{left}"
    return Table(title, note, heads, (True, True, False, False, True, True, *([False] if reasons else [])), cells)


def _shown(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _far(pair: Pair) -> str:
    seen = pair.new if pair.new.broken or pair.old is None else pair.old
    distance = witness_distance(seen)
    return _NONE if distance is None else f"{distance:.4g}"
