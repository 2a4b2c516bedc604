"""The distances of a run as tables: how they are spread over the samples, and every sample by itself."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from onnxsub.evaluate.by_sample import SampleDistances, SubstituteDistances, known
from onnxsub.evaluate.numbers import NONE, Digits
from onnxsub.evaluate.spread import FIGURES, DistanceSpread, spread_rows
from onnxsub.evaluate.tables import cell
from onnxsub.report.table import Table, ordered

__all__ = ["digits_of", "reference_table", "samples_csv", "samples_table", "spread_table"]

_FIGURES = {
    "mean ± sd": "mean", "smallest": "min", "10 %": "q10", "25 %": "q25", "median": "median", "75 %": "q75", "90 %": "q90",
    "largest": "max",
}  # fmt: skip

Key = Callable[[SampleDistances], Any]


def digits_of(samples: Sequence[SampleDistances]) -> Digits:
    """The decimals of all distances of some samples."""
    return Digits.of(s.d_adv if s.d_bnd_upper is None else s.d_bnd_upper for s in samples)


def spread_table(spread: Sequence[DistanceSpread], digits: Mapping[str, Digits], groups: Mapping[tuple[str, str], str]) -> Table:
    """Mean and quantiles of every distance over the samples.

    Args:
        digits: of each group. groups: (network, verifier) -> what the two are called together.
    """
    cells = []
    for key, group in groups.items():
        for row in spread_rows([x for x in spread if (x.model, x.verifier) == key], digits[group]):
            figures = dict(zip(FIGURES, row[2:], strict=True))
            figures["mean"] += "" if figures["sd"] == NONE else f" ± {figures['sd']}"
            cells.append((group, *row[:2], *(figures[name] for name in _FIGURES.values())))
    note = (
        "L∞, input units, over the samples whose search has ended; misclassified ones are left out. Where it says 9 of 10, one has "
        "no figure: no boundary in the domain, or nothing that bounds it within the limits. Quantiles lie on the straight line "
        "between two samples."
    )
    heads = ("network", "distance", "samples", *_FIGURES)
    return Table("Distances over the samples", note, heads, (False, False, *[True] * (len(_FIGURES) + 1)), tuple(cells))


def samples_table(group: str, gamma: float, samples: Sequence[SampleDistances], digits: Digits) -> Table:
    """Every sample with all of its distances at one gamma, the nearest first."""
    methods = list(dict.fromkeys(x.method for s in samples for x in s.substitutes if x.gamma == gamma))
    published = any(s.reference is not None for s in samples)
    certified = any(s.certified_lower is not None for s in samples)
    heads = ["sample", "class", "d_bnd", "d_adv"]
    for method in methods:
        heads += [f"d_hat {method}", *([f"certified by {method}"] if certified else [])]
    heads += ["reference", "reference beside d_bnd"] if published else []
    cells = []
    for s in samples:
        row = [str(s.index), classes(s), digits.bracket(s.status, s.d_bnd_lower, s.d_bnd_upper), digits.near(s.d_adv)]
        for method in methods:
            x = at(s, method, gamma)
            row.append(NONE if x is None else digits.bracket(x.status if x.asked else "", x.d_hat_lower, x.d_hat_upper))
            row += [NONE if x is None else digits.low(x.certified_lower)] if certified else []
        row += [digits.near(s.reference), _beside(s)] if published else []
        cells.append(tuple(row))
    note = (
        "L∞, input units. d_bnd: distance of the network, one number where it is exact, else the two ends that are known, rounded "
        "outwards; d_adv: of the attack; d_hat: of the substitute"
        + ("; certified: the lower end that the substitute proves of the network, rounded down." if certified else ".")
        + (" Reference beside d_bnd: how far it lies from the bracket, relative to it; 0 is within." if published else "")
    )
    numeric = (True, False, *[True] * (len(heads) - 2))
    table = Table(f"{group}: samples at gamma {gamma:g}", note, tuple(heads), numeric, tuple(cells), group=group)
    orders: dict[str, Key] = {"nearest first": lambda s: s.near, "by position in the data": lambda s: s.index}
    if any(s.status == "bracket" for s in samples):
        orders["widest bracket first"] = lambda s: (-_width(s), s.near)
    if any(_farthest(s, gamma) is not None for s in samples):
        orders["d_hat farthest from d_bnd first"] = lambda s: (-(_farthest(s, gamma) or 0.0), s.near)
    if published:
        orders["reference farthest first"] = lambda s: (-abs(s.reference_difference or 0.0), s.reference is None, s.near)
    return ordered(table, samples, orders)


def reference_table(samples: Sequence[SampleDistances], groups: Mapping[tuple[str, str], str]) -> Table | None:
    """How the references agree with the brackets; None where there are none."""
    cells = []
    for key, group in groups.items():
        both = [s for s in samples if (s.model, s.verifier) == key and s.reference_difference is not None]
        apart = [abs(s.reference_difference or 0.0) for s in both]
        if both:
            below, above = (sum(side * (s.reference_difference or 0.0) > 0 for s in both) for side in (-1, 1))
            spread = (f"{100 * sum(apart) / len(apart):.3g} %", f"{100 * max(apart):.3g} %")
            cells.append((group, f"{len(both):,}", f"{len(both) - below - above:,}", f"{below:,}", f"{above:,}", *spread))
    if not cells:
        return None
    note = (
        "Beside the bracket of d_bnd: how far a reference lies below its lower end or above its upper end, relative to the "
        "reference. Published values are rounded, and so lie beside an exact distance by a little."
    )
    heads = ("network", "samples with both", "within", "below", "above", "beside, mean", "beside, largest")
    return Table("References", note, heads, (False, *[True] * 6), tuple(cells))


def samples_csv(samples: Sequence[SampleDistances]) -> str:
    """One line per network, verifier and sample, unrounded; the substitutes side by side. Empty where nothing is known."""
    of_sample = [f.name for f in fields(SampleDistances) if f.name != "substitutes"]
    own = [f.name for f in fields(SubstituteDistances) if f.name not in ("method", "gamma")]
    kinds = list(dict.fromkeys((x.method, x.gamma) for s in samples for x in s.substitutes))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*of_sample, "reference_difference", *(f"{m}_{g:g}_{name}" for m, g in kinds for name in own)])
    for s in samples:
        row = [cell(getattr(s, name)) for name in of_sample]
        beside = [x for m, g in kinds for x in [at(s, m, g)]]
        writer.writerow([*row, s.reference_difference, *("" if x is None else getattr(x, name) for x in beside for name in own)])
    return text.getvalue()


def at(sample: SampleDistances, method: str, gamma: float) -> SubstituteDistances | None:
    """The substitute of a sample by a method at a gamma."""
    return next((x for x in sample.substitutes if (x.method, x.gamma) == (method, gamma)), None)


def classes(sample: SampleDistances) -> str:
    """The class that is defended, and the class of the nearest adversarial point."""
    if sample.label is None:
        return NONE
    if sample.status == "misclassified":
        return f"{sample.label}, taken for {sample.predicted}"
    return str(sample.label) if sample.adversarial_label is None else f"{sample.label} to {sample.adversarial_label}"


def _beside(sample: SampleDistances) -> str:
    d = sample.reference_difference
    return NONE if d is None else "0" if not d else f"{100 * d:+.3g} %"


def _width(sample: SampleDistances) -> float:
    if not known(sample.status) or sample.status == "none":
        return -1.0
    return math.inf if sample.d_bnd_upper is None else sample.d_bnd_upper - (sample.d_bnd_lower or 0.0)


def _farthest(sample: SampleDistances, gamma: float) -> float | None:
    """The largest relative difference of a d_hat, where it and d_bnd are exact."""
    if sample.status != "exact" or not sample.d_bnd_upper:
        return None
    found = [x.d_hat_upper for x in sample.substitutes if x.gamma == gamma and x.status == "exact" and x.d_hat_upper is not None]
    return max((abs(hat / sample.d_bnd_upper - 1) for hat in found), default=None)
