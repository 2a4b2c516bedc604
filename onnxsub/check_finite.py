"""No NaN and no infinity among the weights of a model: nothing could be said about it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnxsub.errors import ModelError
from onnxsub.ops.base import Array
from onnxsub.ops.node import Node

__all__ = ["check_finite"]


def check_finite(nodes: Iterable[Node], where: str) -> None:
    """Raise ModelError for the first NaN or infinity among the constants and attributes of `nodes`.

    An infinite end of a Clip is not an error: it clips nothing there.
    """
    for node in nodes:
        ends = node.op_type == "Clip"
        for i, name in enumerate(node.inputs):
            value = node.constants.get(name)
            if value is not None:
                _finite(value, f"tensor {name!r}", node, where, ends and i > 0)
        for name, value in node.attributes.items():
            if isinstance(value, float | list | np.ndarray):
                _finite(np.asarray(value), f"attribute {name!r}", node, where, ends)


def _finite(value: Array, what: str, node: Node, where: str, infinite: bool) -> None:
    try:
        bad = np.isnan(value) if infinite else ~np.isfinite(value)
    except TypeError:  # strings and other things that cannot be NaN
        return
    if bad.any():
        raise ModelError(
            f"{where}: {what} of {node.op_type} (node {node.name!r}) holds {int(bad.sum())} values that are NaN or infinite; "
            "train or export the model again"
        )
