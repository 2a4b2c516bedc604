"""Tables of several runs: figures over all samples side by side, and what has become of each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxsub.evaluate.by_sample import SampleDistances, known
from onnxsub.evaluate.numbers import NONE, Digits
from onnxsub.evaluate.spread import DistanceSpread
from onnxsub.evaluate.summary import Line
from onnxsub.report.distance_tables import spread_table
from onnxsub.report.robustness_tables import Figures
from onnxsub.report.table import Table, ordered

__all__ = ["Member", "against_table", "changed_table", "members_table", "runs_spread", "verdicts_table"]


@dataclass(frozen=True)
class Member:
    """One network (and verifier) of one run.

    Attributes:
        label: what it is called beside the others. model: the network.
        samples, lines, spread: see `onnxsub.report.evaluation.Distances`; their `model` is the label.
    """

    label: str
    model: str
    samples: tuple[SampleDistances, ...]
    lines: tuple[Line, ...]
    spread: tuple[DistanceSpread, ...]

    @property
    def by_index(self) -> dict[int, SampleDistances]:
        """Its samples by position in the data."""
        return {s.index: s for s in self.samples}


def runs_spread(members: Sequence[Member], digits: Digits) -> Table:
    """Mean and quantiles of every distance, run by run."""
    spread = [x for m in members for x in m.spread]
    groups = {(x.model, x.verifier): x.model for x in spread}
    table = spread_table(spread, dict.fromkeys(groups.values(), digits), groups)
    return Table(table.title, table.note, ("run", *table.heads[1:]), table.numeric, table.cells)


def against_table(first: Member, others: Sequence[Member], digits: Digits) -> Table:
    """Of the samples that a run shares with the first one: which are surely nearer, surely farther, or neither."""
    cells = []
    own = first.by_index
    for other in others:
        both = [(own[s.index], s) for s in other.samples if s.index in own]
        ended = [(a, b) for a, b in both if known(a.status) and known(b.status)]
        nearer = sum(_surely_less(b, a) for a, b in ended)
        farther = sum(_surely_less(a, b) for a, b in ended)
        exact = [
            b.d_bnd_upper - a.d_bnd_upper
            for a, b in ended
            if a.status == b.status == "exact" and a.d_bnd_upper is not None and b.d_bnd_upper is not None
        ]
        mean = float(np.mean(exact)) if exact else 0.0
        shown = digits.near(mean)
        sign = "+" if mean > 0 and shown.strip("0.") else ""  # what is rounded to 0 has no sign
        change = f"{sign}{shown} ({len(exact):,} exact)" if exact else NONE
        wrong = sum(b.status == "misclassified" and a.status != "misclassified" for a, b in both)
        cells.append((other.label, f"{len(both):,}", f"{len(ended):,}", f"{nearer:,}", f"{farther:,}", change, f"{wrong:,}"))
    heads = ("run", "samples in both", "finished in both", "nearer", "farther", "d_bnd, mean change", "newly misclassified")
    note = (
        f"Against {first.label}, sample by sample. Nearer: the distance is surely smaller, its bracket lies below the other one; "
        "farther: surely larger. All others have brackets that overlap, or the same distance."
    )
    return Table(f"Distances against {first.label}", note, heads, (False, *[True] * 6), tuple(cells))


def _surely_less(a: SampleDistances, b: SampleDistances) -> bool:
    return a.d_bnd_upper is not None and b.d_bnd_lower is not None and a.d_bnd_upper < b.d_bnd_lower


def members_table(members: Sequence[Member], digits: Digits) -> Table:
    """Every sample with the distance that each run has for it."""
    found = [m.by_index for m in members]
    indices = list(dict.fromkeys(s.index for m in members for s in m.samples))

    def near(index: int) -> tuple[float, float, int]:
        return min(own[index].near for own in found if index in own)

    def change(index: int) -> float:
        ends = [own[index].near[0] for own in (found[0], found[-1]) if index in own]
        return ends[1] - ends[0] if len(ends) == 2 and np.isfinite(ends).all() else 0.0

    cells = []
    for index in indices:
        here = [own.get(index) for own in found]
        labels = dict.fromkeys(str(s.label) for s in here if s is not None and s.label is not None)
        ends = (NONE if s is None else digits.bracket(s.status, s.d_bnd_lower, s.d_bnd_upper) for s in here)
        cells.append((str(index), ", ".join(labels) or NONE, *ends))
    heads = ("sample", "class", *(m.label for m in members))
    note = "d_bnd (L∞, input units) in each run: one number where exact, else both ends, rounded outwards; 0 if misclassified."
    table = Table("Samples side by side", note, heads, (True, True, *[True] * len(members)), tuple(cells))
    orders: dict[str, Callable[[int], Any]] = {"nearest first": near, "by position in the data": lambda index: index}
    if len(members) > 1:
        orders[f"most lost in {members[-1].label} first"] = lambda index: (change(index), near(index))
        orders[f"most gained in {members[-1].label} first"] = lambda index: (-change(index), near(index))
    return ordered(table, indices, orders)


def verdicts_table(rows: Sequence[Figures]) -> Table:
    """Counts and estimate of each robustness run."""
    cells = tuple(
        (
            x.model, x.metric, f"{x.eps:g}",
            *(f"{n:,}" for n in (x.samples, x.proved, x.violated, x.undecided, x.misclassified)),
            _ends(x.estimate_lower, x.estimate_upper), _ends(x.interval_lower, x.interval_upper),
        )
        for x in rows
    )  # fmt: skip
    heads = ("run", "metric", "eps", "samples", "proved", "violated", "undecided", "misclassified", "estimate", "interval")
    note = "Estimate: on the samples, what is undecided taken as violated and as satisfied. Interval: for all inputs of this kind."
    return Table("Runs side by side", note, heads, (False, False, *[True] * 8), cells)


def changed_table(verdicts: Mapping[str, Mapping[int, str]]) -> Table:
    """The samples whose verdict is not the same in every run."""
    indices = dict.fromkeys(i for own in verdicts.values() for i in own)
    unlike = [i for i in indices if len({own[i] for own in verdicts.values() if i in own}) > 1]
    cells = tuple((str(i), *(own.get(i, NONE) for own in verdicts.values())) for i in unlike)
    shared = sum(all(i in own for own in verdicts.values()) for i in indices)
    note = f"Of {shared:,} samples that every run has looked at, {len(unlike):,} have another verdict in some run."
    table = Table("Samples with different verdicts", note, ("sample", *verdicts), (True, *[False] * len(verdicts)), cells)
    first, *_, last = verdicts

    def lost(i: int) -> tuple[bool, int]:
        return verdicts[first].get(i) != "proved" or verdicts[last].get(i) == "proved", i

    return ordered(table, unlike, {f"proved in {first}, not in {last}, first": lost, "by position in the data": lambda i: i})


def _ends(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return NONE
    return f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"
