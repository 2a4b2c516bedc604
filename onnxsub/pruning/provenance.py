"""What `prune` writes into a substitute's metadata; `onnxsub.provenance` reads it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxsub.provenance import PREFIX, numbers
from onnxsub.query import Query
from onnxsub.results import VERSION

if TYPE_CHECKING:
    from onnxsub.pruning.prune import PruneOptions, Substitute

__all__ = ["provenance"]


def provenance(query: Query, options: PruneOptions, substitute: Substitute) -> dict[str, str]:
    """The metadata of a substitute that `prune` writes, keys with their prefix."""
    kept = sum(substitute.selection.kept_per_layer)
    total = query.network.units
    share = 1 - kept / total if total else 0.0
    gamma = share if options.select.gamma is None else options.select.gamma
    space = query.space
    values = {
        "method": options.method,
        "gamma": repr(float(gamma)),
        "keep": str(kept),
        "rank": options.select.rank,
        "bounds": options.select.bounds,
        "anchor.sha256": query.anchor_sha256,
        "model.sha256": query.model.sha256,
        "d_adv": repr(float(substitute.d_adv)),
        "label": str(query.label),
        "domain": numbers((space.lower, space.upper)),
        "mean": numbers(space.mean or ()),
        "std": numbers(space.std or ()),
        "radius": repr(float(substitute.eps)),
        "version": VERSION,
        "layout": options.layout or "",
    }
    return {PREFIX + key: value for key, value in values.items()}
