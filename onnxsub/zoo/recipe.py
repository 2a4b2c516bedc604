"""How a network of the zoo is trained: the recipe as data, and the recipes by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxsub.errors import InputError, OptionError
from onnxsub.zoo.architectures import architecture
from onnxsub.zoo.regimes import Regime

__all__ = ["BUDGETS", "RECIPES", "Phase", "Recipe", "budget_text", "default_recipe", "model_name", "recipe_from_json"]

BUDGETS: Mapping[str, tuple[float, ...]] = {
    "mnist": (0.0, 0.1, 0.3),
    "fashion-mnist": (0.0, 0.1),
    "cifar10": (0.0, 2 / 255, 8 / 255),
}
"""Data set -> budgets that its recipes were made for; 0 is clean training. Other budgets are taken too."""


@dataclass(frozen=True)
class Phase:
    """A part of a training, with its own attack.

    Attributes:
        epochs: how long.
        steps: gradient steps of the attack on every batch; 0 for clean images. 1 is the fast attack from a random start.
        size: of one step, as a share of the budget.
    """

    epochs: int
    steps: int = 0
    size: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise OptionError(f"a training of {self.epochs} epochs is none; give 1 or more")
        if self.steps < 0:
            raise InputError(f"{self.steps} attack steps are not possible; give 0 or more")
        if self.steps and not (math.isfinite(self.size) and self.size > 0):
            raise InputError(f"an attack step of {self.size:g} budgets is not possible; give a positive share")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the images, the machine and the torch build.

    The loss is that of the regime (`losses.py`). The optimiser is Adam with decoupled weight decay; the rate climbs linearly from 0
    to `rate` over the share `climb` of the training and falls linearly to 0 (the cyclic rate of Wong et al. 2020); with a `climb`
    of 0 it stays. The budget climbs linearly to `budget` over the first `warm_up` epochs.

    Attributes:
        data: name of the data set. architecture: as `architecture` takes it. budget: radius of the ball in input units; 0 for
            clean training.
        phases: one after the other. batch: images per step. rate, climb, decay, warm_up: see above.
        augment: random shifts of up to 4 pixels and left-right flips.
        seed: of the first weights, the order of the images, shifts and starts of attacks.
        regime: None for clean training and, with a budget, for training on attacked images only.
        start: what says which weights it starts from, those of a file (`tune.py`); `architecture` is a name only then. None: first
            weights by the seed.
    """

    data: str
    architecture: str
    budget: float
    phases: tuple[Phase, ...]
    batch: int = 100
    rate: float = 5e-3
    climb: float = 0.4
    decay: float = 0.0
    warm_up: int = 0
    augment: bool = False
    seed: int = 0
    regime: Regime | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        if self.start is None:
            object.__setattr__(self, "architecture", architecture(self.architecture).name)
        if not (math.isfinite(self.budget) and self.budget >= 0):
            raise OptionError(f"a budget of {self.budget:g} is not possible; give 0 for clean training, or a positive radius")
        if self.regime is not None and not self.budget:
            raise OptionError(f"regime {self.regime.name} needs a radius; give a positive --eps")
        attacks = bool(self.budget) if self.regime is None else self.regime.attacks
        if not self.phases or any(bool(phase.steps) != attacks for phase in self.phases):
            raise InputError("a training with an attack needs its steps in every phase, a clean one none; change one of them")
        for name, value, low in (("batch", self.batch, 1), ("seed", self.seed, 0), ("warm-up", self.warm_up, 0)):
            if value < low:
                raise OptionError(f"{name} {value} is not possible; give {low} or more")
        if not (math.isfinite(self.rate) and self.rate > 0 and self.decay >= 0 and 0 <= self.climb < 1):
            raise InputError("the learning rate must be positive, the decay not negative, the climb between 0 and 1; change them")

    @property
    def epochs(self) -> int:
        """Of all phases together."""
        return sum(phase.epochs for phase in self.phases)

    def phase(self, epoch: int) -> Phase:
        """The phase that the epoch `0 <= epoch < epochs` belongs to."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        raise IndexError(epoch)

    def rate_at(self, done: float) -> float:
        """Learning rate when the share `done` of all steps is behind: `rate * min(done / climb, (1 - done) / (1 - climb))`."""
        if not self.climb:
            return self.rate
        return self.rate * min(done / self.climb, (1 - done) / (1 - self.climb))

    def budget_at(self, epoch: float) -> float:
        """Radius of the attack after `epoch` epochs: `budget * min(1, epoch / warm_up)`."""
        return self.budget * min(1.0, epoch / self.warm_up) if self.warm_up else self.budget

    def to_json(self) -> dict[str, Any]:
        """As plain values, for cards and checkpoints."""
        keys = {**asdict(self), "phases": [asdict(phase) for phase in self.phases]}
        for name in ("regime", "start"):  # what has none is written as before there were any
            if keys[name] is None:
                del keys[name]
        return keys if self.regime is None else {**keys, "regime": self.regime.to_json()}


def recipe_from_json(keys: Mapping[str, Any]) -> Recipe:
    """The inverse of `Recipe.to_json`. Raises InputError when keys are missing or unknown."""
    try:
        regime = Regime(**keys["regime"]) if "regime" in keys else None
        return Recipe(**{**keys, "phases": tuple(Phase(**phase) for phase in keys["phases"]), "regime": regime})
    except (KeyError, TypeError) as error:
        raise InputError(f"this recipe is not of this version of onnxsub ({error}); train again") from error


def budget_text(budget: float) -> str:
    """`8/255` where the budget is a whole number of grey values, else its digits: `0.3`."""
    grey = round(budget * 255)
    if 0 < grey < 255 and budget == grey / 255:
        return f"{grey}/255"
    return f"{budget:g}" if float(f"{budget:g}") == budget else repr(budget)


def model_name(recipe: Recipe) -> str:
    """`mnist-c-clean`, `mnist-c-adv0.3`, `cifar10-c-adv8-255`, `mnist-fc30-sr0.1`: the stem of its files."""
    kind = "adv" if recipe.regime is None else recipe.regime.name
    training = f"{kind}{budget_text(recipe.budget).replace('/', '-')}" if recipe.budget else "clean"
    return f"{recipe.data}-{recipe.architecture.lower().replace(':', '-')}-{training}"


@dataclass(frozen=True)
class _Plan:
    """What a named recipe says of one kind of images: the phases of a clean and of an adversarial training, and the optimiser."""

    clean: tuple[Phase, ...]
    attacked: tuple[Phase, ...]
    batch: int
    rate: float
    decay: float = 0.0
    warm_up: int = 5
    augment: bool = False
    climb: float = 0.4

    def phases(self, budget: float, regime: Regime | None) -> tuple[Phase, ...]:
        """Of a regime: with the attack, with one step of a whole budget (FGSM), or without."""
        if regime is not None and regime.name == "augment-fgsm":
            return (Phase(sum(phase.epochs for phase in self.clean), 1, 1.0),)
        attacks = bool(budget) if regime is None else regime.attacks
        return self.attacked if attacks else self.clean

    def slow_start(self, budget: float, regime: Regime | None, epochs: int) -> int:
        """Epochs over which the radius climbs: the plan's, half of all for intervals, none without a ball."""
        if regime is not None and regime.name == "certified":
            return epochs // 2
        return min(self.warm_up, epochs // 2) if budget else 0


# The fast attack finds the region, projected gradient descent makes it hold.
_PUBLISHED = _Plan((Phase(100),), (Phase(100, 10, 0.25),), 128, 1e-4, warm_up=0, climb=0.0)

_PLANS: Mapping[str, Mapping[str, _Plan]] = {
    "full": {
        "grey": _Plan((Phase(20),), (Phase(10, 1, 1.25), Phase(20, 7, 0.3)), 100, 5e-3),
        "colour": _Plan((Phase(60),), (Phase(30, 1, 1.25), Phase(30, 5, 0.4)), 128, 3e-3, 5e-2, augment=True),
    },
    "fast": {
        "grey": _Plan((Phase(4),), (Phase(5, 1, 1.25), Phase(2, 5, 0.4)), 128, 2e-3, warm_up=3),
        "colour": _Plan((Phase(25),), (Phase(20, 1, 1.25), Phase(5, 5, 0.4)), 128, 2e-3, 5e-2, augment=True),
    },
    # Casadio et al. 2022
    "published": {"grey": _PUBLISHED, "colour": _PUBLISHED},
}

RECIPES = tuple(_PLANS)
"""Names of recipes: `full` for C and smaller, `fast` where an epoch is long, `published` for the study of regimes."""


def default_recipe(
    data: str,
    arch: str,
    budget: float = 0.0,
    *,
    name: str = "full",
    regime: Regime | None = None,
    epochs: int | None = None,
    seed: int = 0,
) -> Recipe:
    """The recipe of the zoo for a data set (any name), an architecture, a budget and a regime.

    Args:
        name: one of `RECIPES`.
        regime: see `Recipe`.
        epochs: in place of the recipe's own number; phases keep their shares.

    Raises:
        OptionError: there is no such recipe or architecture, or a number is impossible.
    """
    if name not in _PLANS:
        raise OptionError(f"there is no recipe {name!r}; choose one of {', '.join(RECIPES)}")
    plan = _PLANS[name]["colour" if data.startswith("cifar") else "grey"]
    phases = plan.phases(budget, regime)
    if epochs is not None:
        phases = _stretched(phases, epochs)
    return Recipe(
        data=data,
        architecture=arch,
        budget=budget,
        phases=phases,
        batch=plan.batch,
        rate=plan.rate,
        climb=plan.climb,
        decay=plan.decay,
        warm_up=plan.slow_start(budget, regime, sum(phase.epochs for phase in phases)),
        augment=plan.augment,
        seed=seed,
        regime=regime,
    )


def _stretched(phases: tuple[Phase, ...], epochs: int) -> tuple[Phase, ...]:
    """`phases` with `epochs` epochs in all, in about their shares; a phase that gets none is left out."""
    total, begun, ended = sum(p.epochs for p in phases), 0, 0
    stretched: list[Phase] = []
    for phase in phases:
        begun += phase.epochs
        until = round(epochs * begun / total)
        if until > ended:
            stretched.append(Phase(until - ended, phase.steps, phase.size))
        ended = until
    return tuple(stretched) or (Phase(epochs, phases[-1].steps, phases[-1].size),)
