"""A property by its name and parameters, as a command line has them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from onnxsub.errors import OptionError
from onnxsub.metrics.local.base import LocalProperty
from onnxsub.metrics.local.classification import ClassificationRobustness
from onnxsub.metrics.local.confidence import ConfidenceRobustness
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.standard import StandardRobustness
from onnxsub.metrics.local.strong import StrongClassificationRobustness

__all__ = ["PARAMETERS", "PROPERTIES", "make_property"]

PROPERTIES: Mapping[str, type[LocalProperty]] = MappingProxyType(
    {
        "cr": ClassificationRobustness,
        "sr": StandardRobustness,
        "scr": StrongClassificationRobustness,
        "lr": LipschitzRobustness,
        "confidence": ConfidenceRobustness,
    }
)

_PARAMETER = {"sr": "delta", "scr": "eta", "lr": "lipschitz", "confidence": "gamma"}

PARAMETERS: Mapping[str, str] = MappingProxyType({**{v: k for k, v in _PARAMETER.items()}, "norm": "sr"})
"""Parameter -> the property that has it."""


def make_property(
    name: str,
    eps: float,
    *,
    delta: float | None = None,
    eta: float | None = None,
    lipschitz: float | None = None,
    gamma: float | None = None,
    norm: str | float = "inf",
) -> LocalProperty:
    """The property `name` with radius `eps`.

    Args:
        delta: of `sr`. eta: of `scr`. lipschitz: of `lr`. gamma: of `confidence`. `cr` has none.
        norm: of the outputs, for `sr`: `inf`, `1` or `2`.

    Raises:
        InputError: unknown name; a parameter that is missing, belongs to another property, or is impossible.
    """
    if name not in PROPERTIES:
        raise OptionError(f"--property {name!r} is unknown; choose one of {', '.join(PROPERTIES)}")
    own = None if name == "cr" else _PARAMETER[name]
    given = {"delta": delta, "eta": eta, "lipschitz": lipschitz, "gamma": gamma}
    for parameter, value in given.items():
        if value is not None and parameter != own:
            whose = next(p for p, a in _PARAMETER.items() if a == parameter)
            raise OptionError(f"--{parameter} belongs to property {whose}, not to {name}; leave it out or give --property {whose}")
    written = str(norm) if isinstance(norm, str) else f"{norm:g}"
    if name != "sr" and written != "inf":
        raise OptionError(f"--norm belongs to property sr, not to {name}; leave it out")
    if own is None:
        return ClassificationRobustness(eps)
    value = given[own]
    if value is None:
        raise OptionError(f"property {name} needs --{own}; give it")
    match name:
        case "sr":
            return StandardRobustness(eps, value, written)
        case "scr":
            return StrongClassificationRobustness(eps, value)
        case "lr":
            return LipschitzRobustness(eps, value)
        case "confidence":
            return ConfidenceRobustness(eps, value)
        case _:
            raise ValueError(f"property {name!r} has a parameter and nothing here makes it")
