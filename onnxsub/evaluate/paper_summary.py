"""The figures of the reference experiment's table: pooled over solver runs, each with what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnxsub.evaluate.row import Row
from onnxsub.evaluate.solver_runs import sd_of

__all__ = ["paper_figures"]


def paper_figures(rows: Sequence[Row]) -> Mapping[str, Any]:
    """The fields of `onnxsub.evaluate.summary.Line` that only the reference experiment has, of the rows of one line."""
    paired = [r for r in rows if r.timed_bnd and r.timed_hat and r.time_prune is not None]
    runs_bnd, run_bnd_s, run_bnd_sd = _pooled([(r.timed_bnd, r.run_s_bnd, r.run_sd_bnd) for r in paired])
    runs_hat, run_hat_s, run_hat_sd = _pooled([(r.timed_hat, r.run_s_hat, r.run_sd_hat) for r in paired])
    prune = math.fsum(r.time_prune or 0.0 for r in paired) / runs_hat if runs_hat else None
    certain = [r for r in rows if r.certain_bnd and r.certain_hat and r.protocol_bnd and r.protocol_hat is not None]
    apart = [abs((r.protocol_hat or 0.0) / (r.protocol_bnd or 1.0) - 1) for r in certain]
    equal = [r.equal_radius for r in rows if r.equal_radius is not None]
    with_pruning = None if run_hat_s is None or prune is None else run_hat_s + prune
    return {
        "paired": len(paired),
        "runs_bnd": runs_bnd,
        "runs_hat": runs_hat,
        "run_bnd_s": run_bnd_s,
        "run_hat_s": run_hat_s,
        "run_bnd_sd": run_bnd_sd,
        "run_hat_sd": run_hat_sd,
        "run_prune_s": prune,
        "run_speed_up": run_bnd_s / with_pruning if run_bnd_s is not None and with_pruning else None,
        "certain": len(certain),
        "certain_difference": math.fsum(apart) / len(apart) if apart else None,
        "equal_radius": max(equal, default=None),
        "equal_radius_mean": math.fsum(equal) / len(equal) if equal else None,
    }


def _pooled(groups: list[tuple[int | None, float | None, float | None]]) -> tuple[int, float | None, float | None]:
    """Number, mean and standard deviation (n - 1) of all values of groups of which these three are known."""
    known = [(n, mean, sd or 0.0) for n, mean, sd in groups if n and mean is not None]
    total = sum(n for n, _, _ in known)
    if not total:
        return 0, None, None
    centre = math.fsum(n * mean for n, mean, _ in known) / total
    squares = math.fsum((n - 1) * sd**2 + n * (mean - centre) ** 2 for n, mean, sd in known)
    return total, centre, sd_of(squares, total)
