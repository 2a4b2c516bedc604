"""The attack: the smallest radius at which a strictly adversarial point was found, an upper bound `d_adv` of the distance.

One file per way of searching: `fgsm` (one sign), `descent` (projected gradients with a radius per row), `polish` (back along the
boundary, and the replay that confirms), `walk` (from given points), `tangent` (Newton steps). `attacker` runs them in stages.
"""

from __future__ import annotations

from onnxsub.passes.attack.attacker import Attacker
from onnxsub.passes.attack.entry import attack, attack_network
from onnxsub.passes.attack.polish import AdversarialPoint
from onnxsub.passes.attack.result import AttackOptions, AttackResult
from onnxsub.passes.attack.walk import walk_back

__all__ = ["AdversarialPoint", "AttackOptions", "AttackResult", "Attacker", "attack", "attack_network", "walk_back"]
