"""What a training optimises: a regime and its parameters, as data. No torch; the losses are in `losses.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from onnxsub.errors import OptionError

if TYPE_CHECKING:
    from onnxsub.metrics.local.base import LocalProperty

__all__ = ["CONSTRAINTS", "RADIUS", "REGIMES", "Regime", "make_regime"]

CONSTRAINTS: Mapping[str, Mapping[str, Any]] = {
    "cr": {},
    "sr": {"delta": 10.0, "norm": "inf"},
    "scr": {"eta": 0.52},
    "lr": {"lipschitz": 10.0},
    "confidence": {"gamma": 0.5},
}
"""Property -> its parameters as published (Casadio et al. 2022), and a half for `confidence`."""

REGIMES = ("base", "adversarial", "augment-uniform", "augment-fgsm", "certified", *CONSTRAINTS)
"""`base` and `adversarial` are the trainings of the zoo: clean, and on attacked images only."""

RADIUS = 0.1
"""Of the ball, where none is given."""

_WEIGHTS = {"alpha": 1.0, "beta": 0.2}


@dataclass(frozen=True)
class Regime:
    """A regime beyond `base` and `adversarial`, which a recipe says with its budget alone.

    Attributes:
        name: one of `REGIMES`.
        alpha, beta: weights of the cross entropy and of the constraint's loss. None where there is no constraint.
        delta, eta, lipschitz, gamma, norm: of the property that is the constraint; None for others.
    """

    name: str
    alpha: float | None = None
    beta: float | None = None
    delta: float | None = None
    eta: float | None = None
    lipschitz: float | None = None
    gamma: float | None = None
    norm: str | None = None

    def __post_init__(self) -> None:
        if self.name not in REGIMES[2:]:
            raise OptionError(f"there is no regime {self.name!r}; choose one of {', '.join(REGIMES)}")
        for weight in (self.alpha, self.beta):
            if weight is not None and not (math.isfinite(weight) and weight >= 0):
                raise OptionError(f"a weight of {weight:g} is not possible; give --alpha and --beta that are not negative")
        if self.constrained:
            self.constraint(0.0)  # checks the parameters

    @property
    def constrained(self) -> bool:
        """Whether a property's violation is part of the loss."""
        return self.name in CONSTRAINTS

    @property
    def attacks(self) -> bool:
        """Whether gradient steps on the images are part of it."""
        return self.constrained or self.name == "augment-fgsm"

    def constraint(self, eps: float) -> LocalProperty:
        """The property with radius `eps`. Raises OptionError where a parameter is impossible or not the property's."""
        from onnxsub.metrics.local.make import make_property  # brings torch

        own = {"delta": self.delta, "eta": self.eta, "lipschitz": self.lipschitz, "gamma": self.gamma}
        return make_property(self.name, eps, norm=self.norm or "inf", **own)

    def to_json(self) -> dict[str, Any]:
        """What is set, as plain values."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


def make_regime(name: str, **given: float | str | None) -> Regime | None:
    """The regime `name` with its usual parameters, where `given` does not say others; None for `base` and `adversarial`.

    Raises:
        OptionError: there is no such regime, or it has no such parameter.
    """
    usual = {**_WEIGHTS, **CONSTRAINTS[name]} if name in CONSTRAINTS else {}
    said = {key: value for key, value in given.items() if value is not None}
    if name in REGIMES and (extra := sorted(said.keys() - usual.keys())):
        raise OptionError(f"--{extra[0]} is no parameter of regime {name}; leave it out")
    if name in REGIMES[:2]:
        return None
    return Regime(name, **{**usual, **said})
