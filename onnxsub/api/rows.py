"""What of an answer stands in a table."""

from __future__ import annotations

import math
from typing import Any

from onnxsub.passes.attack import AttackResult
from onnxsub.pruning.result import PruneResult
from onnxsub.verifiers.result import DistanceResult, VerifyResult

__all__ = ["attack_row", "distance_row", "prune_row", "verify_row"]


def distance_row(r: DistanceResult) -> dict[str, Any]:
    """Of a distance."""
    row: dict[str, Any] = {
        "status": r.status, "lower": known(r.lower), "upper": known(r.upper), "adversarial_label": r.adversarial_label,
    }  # fmt: skip
    if r.original is not None:
        o, s = r.original, r.substitute or {}
        row |= {"original_lower": known(o.lower), "original_upper": known(o.upper), "original_exact": o.exact}
        row |= {k: s.get(k) for k in ("d_adv", "method", "gamma", "keep", "units_total", "units_pruned")}
    return {**row, "nodes": r.nodes, "time_s": r.time_s["total"], "reason": r.reason}


def verify_row(r: VerifyResult) -> dict[str, Any]:
    """Of a decision."""
    w = r.witness if r.witness is not None and r.witness.confirmed else None
    found = {"adversarial_label": None if w is None else w.label, "distance": None if w is None else w.radius}
    return {"status": r.status, "eps": r.eps, **found, "nodes": r.nodes, "time_s": r.time_s["total"], "reason": r.reason}


def attack_row(r: AttackResult) -> dict[str, Any]:
    """Of an attack."""
    return {
        "status": "found" if r.found else "none-found", "d_adv": known(r.d_adv), "adversarial_label": r.adversarial_label,
        "margin": known(r.margin), "time_s": r.time_s["total"],
    }  # fmt: skip


def prune_row(r: PruneResult) -> dict[str, Any]:
    """Of a substitute."""
    keys = r.to_json()
    names = ("d_adv", "method", "gamma", "units_total", "units_pruned", "layout")
    error = max(r.preserves.values(), default=None)
    return {
        "status": "complete" if r.complete else "partial", **{k: keys[k] for k in names}, "preserves": error,
        "time_s": r.time_s["total"],
    }  # fmt: skip


def known(value: float) -> float | None:
    """None for what is infinite: nothing bounds it."""
    return value if math.isfinite(value) else None
