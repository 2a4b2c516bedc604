"""The table of the reference experiment."""

from __future__ import annotations

from collections.abc import Callable

from onnxsub.evaluate.numbers import NONE
from onnxsub.evaluate.summary import Line

__all__ = ["PAPER_HEADS", "PAPER_NOTE", "paper_cells"]

PAPER_HEADS = (
    "error, mean ± sd", "certain", "attack", "pruning per run, s", "run with, s", "run without, s", "runs", "speed-up",
    "equal within",
)  # fmt: skip

PAPER_NOTE = (
    "Error: |d_hat - d_bnd| / d_bnd of the distances by the protocol (the smallest radius that was not verified) over the counted "
    "samples; an undecided radius is not verified, so a d_bnd may be too small. Certain: the same over the samples on which no "
    "undecided run ended the smallest such radius, and how many. Attack: the same bisection, answered by the attack in place of a "
    "solver. Seconds per solver run ± sd, pooled over the runs (with / without, of how many samples) at radii that the network "
    "itself was asked about, of samples that have runs on both sides; pruning: all seconds of it by the number of runs. Speed-up: "
    "without by with and pruning. Equal within: the largest radius on which act is provably the network on some sample (mean)."
)


def paper_cells(x: Line, percent: Callable[[float | None], str], seconds: Callable[[float | None], str]) -> tuple[str, ...]:
    """The cells under `PAPER_HEADS`."""

    def pooled(mean: float | None, sd: float | None) -> str:
        return seconds(mean) if sd is None else f"{seconds(mean)} ± {seconds(sd)}"

    equal = NONE if x.equal_radius is None else f"{x.equal_radius:.2g} ({x.equal_radius_mean:.2g})"
    return (
        percent(x.difference) if x.sd is None else f"{percent(x.difference)} ± {percent(x.sd)}",
        f"{percent(x.certain_difference)} ({x.certain:,})", percent(x.attack_difference), seconds(x.run_prune_s),
        pooled(x.run_hat_s, x.run_hat_sd), pooled(x.run_bnd_s, x.run_bnd_sd), f"{x.runs_hat:,} / {x.runs_bnd:,} ({x.paired:,})",
        NONE if x.run_speed_up is None else f"{x.run_speed_up:.3g}x", equal,
    )  # fmt: skip

