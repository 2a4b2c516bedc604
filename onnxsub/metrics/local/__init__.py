"""Properties of a network on the ball round one anchor: what each says, decided exactly, attacked, sampled."""

from __future__ import annotations

from onnxsub.metrics.local.base import Counterexamples, LocalProperty, Measured
from onnxsub.metrics.local.classification import ClassificationRobustness
from onnxsub.metrics.local.confidence import ConfidenceRobustness
from onnxsub.metrics.local.decide import attack_local, decide_local
from onnxsub.metrics.local.extreme import Extreme, extreme_local
from onnxsub.metrics.local.gradient_attack import GRADIENT_ATTACKS, approximate_local, check_gradient_attack, gradient_attack
from onnxsub.metrics.local.lipschitz import LipschitzRobustness
from onnxsub.metrics.local.make import PROPERTIES, make_property
from onnxsub.metrics.local.sample import sample_local
from onnxsub.metrics.local.standard import StandardRobustness
from onnxsub.metrics.local.strong import StrongClassificationRobustness
from onnxsub.metrics.local.verdict import LocalOptions, LocalVerdict

__all__ = [
    "GRADIENT_ATTACKS",
    "PROPERTIES",
    "ClassificationRobustness",
    "ConfidenceRobustness",
    "Counterexamples",
    "Extreme",
    "LipschitzRobustness",
    "LocalOptions",
    "LocalProperty",
    "LocalVerdict",
    "Measured",
    "StandardRobustness",
    "StrongClassificationRobustness",
    "approximate_local",
    "attack_local",
    "check_gradient_attack",
    "decide_local",
    "extreme_local",
    "gradient_attack",
    "make_property",
    "sample_local",
]
