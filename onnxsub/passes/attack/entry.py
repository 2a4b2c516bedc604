"""The attack on a query's model, and on any network in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxsub.budget import Budget
from onnxsub.network import Network
from onnxsub.ops.base import Array
from onnxsub.passes.attack.attacker import Attacker, Progress
from onnxsub.passes.attack.polish import Confirm
from onnxsub.passes.attack.result import AttackOptions, AttackResult
from onnxsub.region import InputSpace

if TYPE_CHECKING:
    from onnxsub.query import Query

__all__ = ["attack", "attack_network"]


def attack(
    query: Query, options: AttackOptions | None = None, *, budget: Budget | None = None, progress: Progress | None = None
) -> AttackResult:
    """The smallest `|x - x0|_inf` found with `f_t(x) > f_y(x)` for some t of the query's targets, x in the domain, confirmed by
    onnxruntime on the file.

    Args:
        budget: of what the attack serves; `options.timeout` is a part of it. Where it ends, the best point so far is the answer.
        progress: called with the share done and a line that says the best radius so far.

    Raises:
        InputError: options that cannot be used (no such device, start points of another shape or outside the domain).
    """
    return Attacker.of(query, options, budget=budget, progress=progress).run()


def attack_network(
    network: Network,
    x0: Array,
    label: int,
    space: InputSpace,
    options: AttackOptions | None = None,
    confirm: Confirm | None = None,
    *,
    target: int | None = None,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> AttackResult:
    """`attack` on any network of un-normalised inputs, such as a substitute in memory.

    Args:
        confirm: `(N, *shape)` float32 to (worst margin, its class); default: the network itself in float64.
        target: the one class t that counts; None: every other class does.
    """
    return Attacker(network, x0, label, space, options, confirm, target=target, budget=budget, progress=progress).run()
