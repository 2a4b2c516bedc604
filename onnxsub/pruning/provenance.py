"""What `prune` writes into a substitute's metadata; `onnxsub.provenance` reads it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxsub.passes.select import Selection, SelectOptions
from onnxsub.provenance import PREFIX, numbers
from onnxsub.query import Query
from onnxsub.results import VERSION

if TYPE_CHECKING:
    from onnxsub.pruning.result import PruneOptions, Substitute

__all__ = ["provenance", "reached_gamma"]


def provenance(query: Query, options: PruneOptions, substitute: Substitute) -> dict[str, str]:
    """The metadata of a substitute that `prune` writes, keys with their prefix."""
    kept = sum(substitute.selection.kept_per_layer)
    gamma = reached_gamma(options.select, substitute.selection, query.network.units_and_windows)
    space = query.space.plain
    values = {
        "method": options.method,
        "gamma": repr(float(gamma)),
        "keep": str(kept),
        "rank": options.select.rank,
        "bounds": options.select.bounds_for(query.network.units_and_windows),
        "anchor.sha256": query.anchor_sha256,
        "model.sha256": query.model.sha256,
        "d_adv": repr(float(substitute.d_adv)),
        "label": str(query.label),
        "domain": numbers(space.hull),
        "mean": numbers(space.mean or ()),
        "std": numbers(space.std or ()),
        "radius": repr(float(substitute.eps)),
        "version": VERSION,
        "layout": options.layout or "",
    }
    units = query.space.units
    more = {
        "target": None if query.target is None else str(query.target),
        "domain.sha256": space.domain_sha256,
        "scale.sha256": None if units is None else units.sha256,
    }
    values |= {key: value for key, value in more.items() if value is not None}
    return {PREFIX + key: value for key, value in values.items()}


def reached_gamma(options: SelectOptions, selection: Selection, units: int) -> float:
    """The share of units that are pruned: gamma as it was asked for, or what there is where the time ended the selection."""
    if options.gamma is not None and selection.complete:
        return options.gamma
    return 1 - sum(selection.kept_per_layer) / units if units else 0.0
