"""What an attack may spend, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsub.device import check_device
from onnxsub.errors import InputError
from onnxsub.ops.base import Array
from onnxsub.results import VERSION
from onnxsub.shown import Shown, Sight, number

__all__ = ["METHODS", "AttackOptions", "AttackResult"]

METHODS = ("auto", "pgd", "fgsm")


@dataclass(frozen=True)
class AttackOptions:
    """What the attack may spend.

    Attributes:
        method: `pgd`, `fgsm` (one gradient, then the smallest radius along its sign), `auto` (both).
        steps: gradient steps of one descent.
        restarts: descents in one batch, shared out over the promising targets.
        rounds: batches at most; a batch that gains less than 0.1 % ends it.
        effort: share of all that, and of the classes that are tried, in (0, 1]; `affordable` states one for large networks.
        seed: of the random starts. One seed gives one result on one device and number of threads.
        timeout: seconds, None for no limit; the best point so far is returned. A part of the budget of what the attack serves.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: of torch, at most: small networks get one. None: torch's own setting.
        upper: largest radius to look in; None for the whole domain.
        start: points to begin from besides the random ones, `(N, *shape)` or `(*shape)`.
    """

    method: str = "auto"
    steps: int = 60
    restarts: int = 32
    rounds: int = 3
    effort: float = 1.0
    seed: int = 0
    timeout: float | None = None
    device: str = "cpu"
    threads: int | None = None
    upper: float | None = None
    start: Array | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"attack method {self.method!r} is unknown; choose one of {', '.join(METHODS)}")
        for name in ("steps", "restarts", "rounds"):
            if getattr(self, name) < 1:
                raise InputError(f"attack: {name} is {getattr(self, name)}; give at least 1")
        if not 0 < self.effort <= 1:
            raise InputError(f"attack: effort is {self.effort}; give a share of the usual work, above 0 and at most 1")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"attack: threads is {self.threads}; give at least 1")
        if self.timeout is not None and not self.timeout > 0:
            raise InputError(f"attack: timeout is {self.timeout}; give a positive number of seconds")
        if self.upper is not None and not self.upper > 0:
            raise InputError(f"attack: the largest radius is {self.upper}; give a positive number")
        check_device(self.device, "attack")

    def to_json(self) -> dict[str, Any]:
        """The settings, without the start points."""
        names = ("method", "steps", "restarts", "rounds", "effort", "seed", "timeout", "device", "threads", "upper")
        return {n: getattr(self, n) for n in names} | {"start": 0 if self.start is None else len(self.start)}


@dataclass(frozen=True, eq=False, repr=False)
class AttackResult(Shown):
    """What the attack found.

    Attributes:
        found: whether there is an adversarial point.
        d_adv: `|x_adv - x0|_inf` in float64; inf where nothing was found, 0 where the anchor itself is misclassified.
        x_adv: float32, per-sample shape, un-normalised, inside the domain.
        adversarial_label: its class.
        margin: `max_t f_t - f_y` at `x_adv` (under onnxruntime for a file); positive: strictly adversarial.
        time_s: seconds per stage and `total`.
        evaluations: points that the network was evaluated at.
        timed_out: whether a limit of time, or of the budget that it is a part of, ended it.
        stage: what that cut short: `anchor`, `probe`, `fgsm`, `start`, `scout`, `descend`, `polish` or `confirm`; None: nothing.
        sight: anchor and point for notebooks, where the public call put them.
    """

    found: bool
    d_adv: float
    x_adv: Array | None
    adversarial_label: int | None
    margin: float
    time_s: Mapping[str, float]
    evaluations: int
    timed_out: bool
    settings: Mapping[str, Any]
    head: Mapping[str, Any] = field(default_factory=dict, repr=False)
    stage: str | None = None
    sight: Sight | None = None

    @property
    def line(self) -> str:
        if not self.found:
            return "nothing found"
        return f"d_adv {number(self.d_adv)}, class {self.adversarial_label}, margin {number(self.margin)}"

    def to_json(self) -> dict[str, Any]:
        """The document `onnxsub.attack/1`."""
        return {
            "schema": "onnxsub.attack/1",
            "version": VERSION,
            **self.head,
            "settings": dict(self.settings),
            "found": self.found,
            "d_adv": self.d_adv,
            "adversarial_label": self.adversarial_label,
            "margin": self.margin,
            "evaluations": self.evaluations,
            "timed_out": self.timed_out,
            "stage": self.stage,
            "time_s": dict(self.time_s),
        }
