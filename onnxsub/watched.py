"""Runs of onnxruntime that end: no loops and functions of the file's own, and a deadline.

`InferenceSession.run` returns to nobody while it works, neither to a deadline nor to Ctrl-C. So a first run, and every later one of
a network that took long, is made in a thread of its own, and is told to end where it lasts too long.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from onnx import GraphProto, ModelProto

from onnxsub.errors import ModelError
from onnxsub.limits import limits
from onnxsub.model import Model
from onnxsub.reading.graphs import keep_only

__all__ = ["Watched", "has_programs", "only_live", "refuse_programs"]

_QUICK = 0.02
"""Seconds of a run above which the next one is watched too."""
_GRACE = 2.0
"""Seconds for a run to end after it was told to; it looks up between two nodes."""


def refuse_programs(model: Model) -> None:
    """Raises UnsupportedOperatorError where the logits pass a loop, a branch or a function that the file defines.

    A kilobyte can ask for 2^29 nodes by functions of functions, or for 10^9 turns of a loop, and onnxruntime would go through them.
    """
    functions = {f"{f.domain}.{f.name}" for f in model.source.functions}
    for node in model.nodes:
        values = [v for value in node.attributes.values() for v in (value if isinstance(value, list) else [value])]
        if node.op_type in functions or any(isinstance(v, GraphProto) for v in values):
            raise node.refuse("it is not in the operator table (docs/adding_an_op.md says how to add it)")


def has_programs(proto: ModelProto) -> bool:
    """Whether a file defines functions, loops or branches, used or not."""
    return bool(proto.functions) or any(a.HasField("g") or a.graphs for node in proto.graph.node for a in node.attribute)


def only_live(proto: ModelProto, output: str) -> None:
    """Leaves what `output` depends on, in place: what leads nowhere is not to be gone through for nothing."""
    keep_only(proto.graph, output)
    del proto.functions[:]


class Watched:
    """How long the runs of one session take, and their deadline."""

    def __init__(self) -> None:
        self._slow = True

    def __call__(self, session: Any, tensor: str, feed: dict[str, Any], where: str) -> list[Any]:
        """`session.run([tensor], feed)`. Raises ModelError where it outlasts the limit, and what the run raises."""
        began = time.perf_counter()
        if not self._slow:
            found: list[Any] = session.run([tensor], feed)
        else:
            found = _run_apart(session, tensor, feed, where)
        self._slow = time.perf_counter() - began > _QUICK
        return found


def _run_apart(session: Any, tensor: str, feed: dict[str, Any], where: str) -> list[Any]:
    import onnxruntime

    options = onnxruntime.RunOptions()
    done = threading.Event()
    found: list[Any] = []
    raised: list[Exception] = []

    def work() -> None:
        try:
            found.extend(session.run([tensor], feed, options))
        except Exception as error:
            raised.append(error)
        finally:
            done.set()

    most = limits().inference
    threading.Thread(target=work, daemon=True).start()
    ended = False
    try:
        ended = done.wait(min(most, threading.TIMEOUT_MAX))
    finally:
        if not ended:  # too long, or Ctrl-C
            options.terminate = True
            done.wait(_GRACE)
    if not ended:
        raise ModelError(
            f"{where}: one inference takes more than the limit of {most:g} s; if the file is to be trusted, "
            f"raise it: --limits inference={4 * most:g}"
        )
    if raised:
        raise raised[0]
    return found
