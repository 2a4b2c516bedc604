r"""The losses of all regimes, each with its formula and source.

`f` are the logits, `x0` an image, `y` its label, `B = {x in [0, 1] : |x - x0|_inf <= eps}`, `p = softmax(f)`, CE the cross entropy.

    base             CE(f(x0), y)
    adversarial      CE(f(x), y), x by PGD on CE                               Madry et al. 2018, eq. 2.1
    augment-uniform  mean of CE over x0 and two uniform points of B            Casadio et al. 2022 (data augmentation)
    augment-fgsm     mean of CE over x0 and two points of one FGSM step of     the same; Goodfellow et al. 2015; the random
                     length eps, each from a uniform point of B                start is that of Wong et al. 2020
    certified        k CE(f(x0), y) + (1 - k) CE(w, y), w the worst logits     Gowal et al. 2018 (IBP); k falls from 1 to 1/2
                     by intervals: the lower end for y, else the upper         while the radius climbs
    a property       alpha CE(f(x0), y) + beta C(x), x by PGD on e             Casadio et al. 2022; Fischer et al. 2019 (DL2)

For a property, `e(x)` says by how much `x` violates it and C is how DL2 translates `e <= 0` and `e < 0`:

    C = max(e, 0), and for the strict one C = max(e, 0) + XI [e = 0]

    cr               e = max_{t != y} f_t(x) - f_y(x), strict
    sr               e = |f(x) - f(x0)|_p - delta
    scr              e = eta - p_y(x)
    lr               e = |f(x) - f(x0)|_inf - L |x - x0|_inf
    confidence       e = max_k |p_k(x) - p_k(x0)| - gamma

So `C(x) = 0` exactly where the property holds at `x` (the properties are those of `onnxsub.metrics.local`; `lr` without the
room for rounding that a replay leaves). The gradient flows through `f(x)` and `f(x0)`. PGD climbs e and not C: where C is 0 it has
no slope.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear

from onnxsub.errors import InputError
from onnxsub.metrics.local import (
    ClassificationRobustness,
    ConfidenceRobustness,
    LipschitzRobustness,
    LocalProperty,
    StandardRobustness,
    StrongClassificationRobustness,
)
from onnxsub.metrics.local.standard import NORMS
from onnxsub.zoo.attacks import perturb
from onnxsub.zoo.recipe import Phase, Recipe

__all__ = ["XI", "Loss", "attack_constraint", "constraint_loss", "excess", "interval_logits", "loss_of"]

XI = 1e-3
"""Loss of a strict constraint exactly at its boundary."""

_BESIDE = (StandardRobustness, LipschitzRobustness, ConfidenceRobustness)
"""Properties that compare with the output at the sample."""

Loss = Callable[[nn.Sequential, Tensor, Tensor, float, Phase, torch.Generator], Tensor]
"""`(net, x, y, radius, phase, rng)` to a number; `x` `(N, ...)` in [0, 1], `radius` that of this step."""


def excess(prop: LocalProperty, net: nn.Module, x: Tensor, x0: Tensor, y: Tensor, start: Tensor | None = None) -> Tensor:
    """`e` of every row: `(N, ...)` to `(N,)`; above 0 where the row violates the property.

    Args:
        start: `f(x0)`, where it is known already; only some properties look at it.

    Raises:
        InputError: there is no loss for the property.
    """
    logits: Tensor = net(x)
    if start is None and isinstance(prop, _BESIDE):
        start = net(x0)
    match prop:
        case ClassificationRobustness():
            own = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
            return logits.masked_fill(own, -torch.inf).amax(1) - logits[own]
        case StrongClassificationRobustness():
            return prop.eta - logits.softmax(1).gather(1, y[:, None])[:, 0]
        case StandardRobustness():
            assert start is not None
            norm: Tensor = torch.linalg.vector_norm(logits - start, NORMS[prop.norm], dim=1)
            return norm - prop.delta
        case LipschitzRobustness():
            moved = (x - x0).flatten(1).abs().amax(1)
            assert start is not None
            return (logits - start).abs().amax(1) - prop.lipschitz * moved
        case ConfidenceRobustness():
            assert start is not None
            return (logits.softmax(1) - start.softmax(1)).abs().amax(1) - prop.gamma
    raise InputError(f"property {prop.name} has no loss; choose another regime")


def constraint_loss(prop: LocalProperty, e: Tensor) -> Tensor:
    """C of every row: 0 exactly where the property holds."""
    loss = e.clamp(min=0)
    if isinstance(prop, ClassificationRobustness):  # the one that excludes its boundary
        loss = loss + XI * (e == 0)
    return loss


def attack_constraint(
    prop: LocalProperty, net: nn.Module, x: Tensor, y: Tensor, radius: float, steps: int, size: float, rng: torch.Generator
) -> Tensor:
    """The end of PGD on `e` in the ball of `radius` round every row of `x`; see `perturb`."""
    start = None
    if isinstance(prop, _BESIDE):
        with torch.no_grad():  # the point does not move it: once for all steps
            start = net(x)
    return perturb(net, x, y, radius, steps, size, rng, climb=lambda point: excess(prop, net, point, x, y, start).sum())


def interval_logits(net: nn.Sequential, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Interval of every output over boxes `(N, ...)`, layer by layer (in float32: for training, not for proofs)."""
    for module in net:
        if isinstance(module, nn.Linear | nn.Conv2d):
            middle, half, weight = (lower + upper) / 2, (upper - lower) / 2, module.weight.abs()
            middle = module(middle)
            if isinstance(module, nn.Linear):
                half = linear(half, weight)
            else:
                half = conv2d(half, weight, None, module.stride, module.padding)
            lower, upper = middle - half, middle + half
        else:  # every other module of `build` is monotone
            lower, upper = module(lower), module(upper)
    return lower, upper


def loss_of(recipe: Recipe) -> Loss:
    """The loss that a recipe's regime says."""
    regime = recipe.regime
    if regime is None:
        return _attacked if recipe.budget else _clean
    match regime.name:
        case "augment-uniform" | "augment-fgsm":
            return _augmented
        case "certified":
            return _certified(recipe.budget)
    assert regime.alpha is not None
    assert regime.beta is not None
    return _constrained(regime.constraint(recipe.budget), regime.alpha, regime.beta)


def _clean(net: nn.Sequential, x: Tensor, y: Tensor, radius: float, phase: Phase, rng: torch.Generator) -> Tensor:
    return cross_entropy(net(x), y)


def _attacked(net: nn.Sequential, x: Tensor, y: Tensor, radius: float, phase: Phase, rng: torch.Generator) -> Tensor:
    return cross_entropy(net(perturb(net, x, y, radius, phase.steps, phase.size * radius, rng)), y)


def _augmented(net: nn.Sequential, x: Tensor, y: Tensor, radius: float, phase: Phase, rng: torch.Generator) -> Tensor:
    # without a step the point is the random start itself
    more = [perturb(net, x, y, radius, phase.steps, phase.size * radius, rng) for _ in range(2)]
    return cross_entropy(net(torch.cat([x, *more])), y.repeat(3))


def _certified(budget: float) -> Loss:
    def loss(net: nn.Sequential, x: Tensor, y: Tensor, radius: float, phase: Phase, rng: torch.Generator) -> Tensor:
        lower, upper = interval_logits(net, (x - radius).clamp(min=0), (x + radius).clamp(max=1))
        own = torch.nn.functional.one_hot(y, lower.shape[1]).bool()
        k = 1 - radius / (2 * budget)
        return k * cross_entropy(net(x), y) + (1 - k) * cross_entropy(torch.where(own, lower, upper), y)

    return loss


def _constrained(prop: LocalProperty, alpha: float, beta: float) -> Loss:
    def loss(net: nn.Sequential, x: Tensor, y: Tensor, radius: float, phase: Phase, rng: torch.Generator) -> Tensor:
        point = attack_constraint(prop, net, x, y, radius, phase.steps, phase.size * radius, rng)
        start = net(x)
        violation = constraint_loss(prop, excess(prop, net, point, x, y, start)).mean()
        return alpha * cross_entropy(start, y) + beta * violation

    return loss
