"""The distances of a run at a terminal: mean and quantiles, and the samples that are nearest to a decision boundary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxsub.evaluate.by_sample import SampleDistances
from onnxsub.evaluate.numbers import NONE, Digits
from onnxsub.evaluate.spread import FIGURES, DistanceSpread, spread_rows

__all__ = ["distance_tables"]

_SHOWN = 10
_HEADS = ("mean", "median", "10 %", "25 %", "75 %", "90 %", "largest")
_COLUMNS = tuple(2 + FIGURES.index(name) for name in ("mean", "median", "q10", "q25", "q75", "q90", "max"))

Lines = list[tuple[str, ...]]


def distance_tables(samples: Sequence[SampleDistances], spread: Sequence[DistanceSpread]) -> Iterator[Lines]:
    """Per network and verifier: how each distance is spread, then the nearest samples one by one."""
    groups = dict.fromkeys((s.model, s.verifier) for s in samples)
    models, verifiers = ({key[i] for key in groups} for i in (0, 1))
    for model, verifier in groups:
        own = [s for s in samples if (s.model, s.verifier) == (model, verifier)]
        named = [*([model] if len(models) > 1 else []), *([verifier] if len(verifiers) > 1 else [])]
        of = f", {', '.join(named)}" if named else ""
        digits = Digits.of(s.d_adv if s.d_bnd_upper is None else s.d_bnd_upper for s in own)
        rows = spread_rows([x for x in spread if (x.model, x.verifier) == (model, verifier)], digits)
        if rows:
            yield [(f"distance{of}", "samples", *_HEADS), *((*row[:2], *(row[i] for i in _COLUMNS)) for row in rows)]
        yield _nearest(own, digits, of)


def _nearest(samples: Sequence[SampleDistances], digits: Digits, of: str) -> Lines:
    """The nearest ones; of several substitutes d_hat of the last gamma, which prunes most."""
    shown = sorted(samples, key=lambda s: s.near)[:_SHOWN]
    gamma = max(x.gamma for s in samples for x in s.substitutes)
    methods = list(dict.fromkeys(x.method for s in samples for x in s.substitutes))
    published = any(s.reference is not None for s in samples)
    what = f"nearest {len(shown)} of {len(samples):,} samples" if len(shown) < len(samples) else "sample"
    heads = [f"d_hat {m} {gamma:g}" for m in methods] + ["reference"] * published
    table: Lines = [(f"{what}{of}", "class", "d_bnd", "certified", "d_adv", *heads)]
    for s in shown:
        of_method = {x.method: x for x in s.substitutes if x.gamma == gamma}
        hats = [digits.bracket(x.status, x.d_hat_lower, x.d_hat_upper) for m in methods if (x := of_method[m])]
        towards = "" if s.adversarial_label is None else f" to {s.adversarial_label}"
        found = digits.bracket(s.status, s.d_bnd_lower, s.d_bnd_upper)
        table.append((
            str(s.index), NONE if s.label is None else f"{s.label}{towards}", found, digits.low(s.certified_lower),
            digits.near(s.d_adv), *hats, *([digits.near(s.reference)] * published),
        ))  # fmt: skip
    return table
