"""What decides the results of `onnxsub adversarial` in a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.settings import plain_settings
from onnxsub.metrics.adversarial import AdversarialOptions, Targets
from onnxsub.metrics.margin import MarginOptions
from onnxsub.reading import Reading
from onnxsub.region import InputSpace
from onnxsub.verifiers.options import BabOptions, Limits, MilpOptions

__all__ = ["PairSettings"]


@dataclass(frozen=True)
class PairSettings:
    """`AdversarialOptions` as plain values, which a `run.toml` holds.

    Attributes:
        eps, targets: as there. verifier, solver, tol, timeout, nodes, seed: of each pair. memory: bytes of branch and bound.
        threads: of one worker. domain, mean, std: see `onnxsub.region.InputSpace`.
    """

    SCHEMA: ClassVar[str] = "onnxsub.run-adversarial/1"
    COMMAND: ClassVar[str] = "adversarial"

    eps: float
    targets: str = "all"
    verifier: str = "bab"
    solver: str = "highs"
    tol: float = 1e-4
    timeout: float | None = None
    nodes: int | None = None
    seed: int = 0
    threads: int = 1
    memory: int = BabOptions.memory
    domain: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise OptionError(f"--threads {self.threads} is not possible; give 1 or more")
        _ = self.options

    @staticmethod
    def of(options: AdversarialOptions) -> PairSettings:
        """From options whose other parts are at their defaults."""
        m, space = options.margin, options.space
        settings = PairSettings(
            options.eps, str(options.targets), m.verifier, m.milp.solver, m.tol, m.limits.timeout, m.limits.nodes,
            m.limits.seed, m.limits.threads or 1, m.bab.memory, space.interval, space.mean, space.std,
        )  # fmt: skip
        if settings.options != replace(options, margin=replace(m, limits=replace(m.limits, threads=settings.threads))):
            raise InputError("options of a pair that a run.toml does not hold were changed; leave these at their defaults")
        return settings

    @property
    def space(self) -> InputSpace:
        """Domain and normalisation."""
        return InputSpace(self.domain[0], self.domain[1], self.mean, self.std)

    @property
    def reading(self) -> Reading:
        """As the files say."""
        return Reading()

    @property
    def options(self) -> AdversarialOptions:
        """What they stand for."""
        return AdversarialOptions(self.eps, Targets.parse(self.targets), self.margin(self.threads), self.space)

    def margin(self, threads: int) -> MarginOptions:
        """How a pair is solved with so many threads."""
        limits = Limits(timeout=self.timeout, nodes=self.nodes, threads=threads, seed=self.seed)
        milp = MilpOptions(solver=self.solver)
        return MarginOptions(limits, milp, bab=BabOptions(memory=self.memory), verifier=self.verifier, tol=self.tol)

    def to_json(self) -> dict[str, Any]:
        """Plain values under the names of the fields."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PairSettings:
        """What `to_json` gave; lists become tuples and what is missing is None. Raises InputError."""
        return PairSettings(**plain_settings(PairSettings, values))
