"""What a gate asks for, checked when made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from onnxsub.errors import OptionError
from onnxsub.evaluate.robustness.settings import RobustnessSettings

__all__ = ["MAX_DROP", "METRICS", "NODES", "GateOptions"]

METRICS = ("satisfaction", "security", "distance")

NODES = 2000
"""Nodes of the search per sample, where neither these nor seconds are given: about ten seconds of a small convolutional network."""

MAX_DROP = 0.02
"""Of `max_drop`, where a baseline is given and nothing else is said."""


@dataclass(frozen=True)
class GateOptions:
    """What is measured, and what of it passes.

    Attributes:
        eps: radius of the ball round each sample, in un-normalised input units.
        metric: `satisfaction` (the share that is proved robust), `security` (the share on which an attack fails), `distance` (the
            mean distance to another class).
        max_drop: how much less than the baseline the new model may have: of a share, the difference of the shares; of distances,
            the part of the baseline's mean that is gone. None: 0.02 where there is a baseline.
        significance: a drop fails only where the exact paired test also gives a p-value of at most this; None: the drop decides
            alone.
        min_proved: smallest share of samples that must be proved. min_distance: smallest mean distance.
        fail_on_undecided: what the undecided samples leave open is a failure.
        nodes: of the search per sample. timeout: seconds per sample, which makes verdicts depend on the machine. With neither,
            `nodes` is 2000.
        verifier: as for a single decision; None: `bab`.
        confidence: of the intervals. seed, threads, domain, mean, std, output, input_shape: see `RobustnessSettings`.
    """

    eps: float
    metric: str = "satisfaction"
    max_drop: float | None = None
    significance: float | None = None
    min_proved: float | None = None
    min_distance: float | None = None
    fail_on_undecided: bool = False
    nodes: int | None = None
    timeout: float | None = None
    verifier: str | None = None
    confidence: float = 0.95
    seed: int = 0
    threads: int = 1
    domain: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    output: str | None = None
    input_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise OptionError(f"--metric {self.metric!r} is unknown; choose one of {', '.join(METRICS)}")
        for option, value in (("--max-drop", self.max_drop), ("--min-proved", self.min_proved)):
            if value is not None and not 0 <= value <= 1:
                raise OptionError(f"{option} {value:g} is no share; give a number between 0 and 1, such as 0.02 for 2 %")
        if self.significance is not None and not 0 < self.significance < 1:
            raise OptionError(f"--significance {self.significance:g} must lie strictly between 0 and 1, such as 0.05")
        if self.min_distance is not None and not (math.isfinite(self.min_distance) and self.min_distance >= 0):
            raise OptionError(f"--min-distance {self.min_distance:g} is no distance; give a finite number that is not negative")
        if self.min_proved is not None and self.metric == "security":
            raise OptionError("--min-proved asks for proofs, and --metric security only attacks; leave one of them out")
        if self.min_distance is not None and self.metric != "distance":
            raise OptionError("--min-distance belongs to --metric distance; add that, or give --min-proved")
        if self.nodes is None and self.timeout is None and self.metric != "security":
            object.__setattr__(self, "nodes", NODES)
        _ = self.settings

    @property
    def by_machine(self) -> bool:
        """Whether a verdict may depend on the speed of the machine."""
        return self.timeout is not None

    @cached_property
    def settings(self) -> RobustnessSettings:
        """Of the run of each model. Raises InputError."""
        return RobustnessSettings(
            metric="pointwise" if self.metric == "distance" else self.metric, eps=self.eps, confidence=self.confidence,
            verifier=self.verifier, timeout=self.timeout, nodes=self.nodes, seed=self.seed, threads=self.threads,
            domain=self.domain, mean=self.mean, std=self.std, output=self.output, input_shape=self.input_shape,
        )  # fmt: skip
