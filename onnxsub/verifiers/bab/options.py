"""Options of branch and bound, checked when made."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from onnxsub.device import check_device
from onnxsub.errors import InputError

__all__ = ["BabOptions"]


@dataclass(frozen=True)
class BabOptions:
    """How the tree is searched. What is common to all verifiers of ours (limits, tolerance, seed) stands in `MilpOptions`.

    Attributes:
        memory: bytes that waiting nodes and one batch may take; beyond it the search goes depth-first.
        batch: nodes that are split together at most; on a GPU more, as far as memory allows (`Frame.at_once`).
        steps, root_steps: gradient steps for the multipliers of a child and of a root; children of large frames get
            half as many, where there are cuts four times as many.
        rate: size of these steps; slopes lie in [0, 1].
        look: candidates per score whose children are looked at before a node is split.
        tighten: most unstable units of a ball whose intervals are cut by `f_t >= f_y` before a tree is begun.
        narrow: most unstable units of a frame whose nodes get intervals of their own.
        dense: coefficients that the folded form of a ball may have; beyond, convolutions stay convolutions.
        slopes: gradient steps for the intervals of larger balls.
        dive: most open units of a target that is searched by linear programs first; 0: none is.
        leaf: most open units of a node that is handed to the solver; 0: none ever is.
        pairs: most pairs of units of a target that cuts are made for, by each of two sources (`pairs.py`); 0: none are.
        hard: nodes of a tree after which cuts are made.
        device: where bounds and nodes are computed, `cpu`, `cuda` or `cuda:N`; programs and waiting nodes stay on the processor.
    """

    memory: int = 4 * 2**30
    batch: int = 32
    steps: int = 10
    root_steps: int = 40
    rate: float = 0.1
    look: int = 8
    tighten: int = 4000
    narrow: int = 300
    dense: int = 1_400_000
    slopes: int = 8
    dive: int = 64
    leaf: int = 150
    pairs: int = 3000
    hard: int = 200
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.memory < 2**26:
            raise InputError(f"--memory {self.memory / 2**30:g} is too little; give at least 0.0625 (GiB)")
        for name in ("batch", "steps", "root_steps", "look", "hard"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)} must be at least 1")
        if min(self.narrow, self.dive, self.leaf, self.pairs) < 0:
            raise InputError("narrow, dive and leaf are numbers of units, pairs one of pairs, none of them negative")
        if not 0 < self.rate <= 1:
            raise InputError(f"rate {self.rate} must lie in (0, 1]")
        check_device(self.device, "branch and bound")

    @staticmethod
    def of_gib(memory: float, device: str = "cpu") -> BabOptions:
        """The options with that many GiB of memory.

        Raises:
            InputError: it is no number of GiB, or there is no such device.
        """
        if not math.isfinite(memory):
            raise InputError(f"--memory {memory} is not a number of GiB; give for example 4")
        return BabOptions(memory=int(memory * 2**30), device=device)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
