"""Nodes that are read as the functions of `functions.py`, and HardSigmoid, which is a Clip of an affine function."""

from __future__ import annotations

import numpy as np

from onnxsub.ops.base import Operator
from onnxsub.ops.bent import Bent
from onnxsub.ops.broadcast import only_variable
from onnxsub.ops.clip import Clip
from onnxsub.ops.elementwise import Scale
from onnxsub.ops.functions import Elu, Gelu, HardSwish, Mish, Softplus, Swish
from onnxsub.ops.node import Node

__all__ = [
    "read_celu", "read_elu", "read_gelu", "read_hard_sigmoid", "read_hard_swish", "read_mish", "read_selu", "read_softplus",
    "read_swish",
]  # fmt: skip


def read_elu(node: Node) -> tuple[Operator, ...]:
    """Elu: `alpha (exp(z) - 1)` below 0."""
    return (Elu(**node.common(), amplitude=float(node.attributes.get("alpha", 1.0))),)


def read_selu(node: Node) -> tuple[Operator, ...]:
    """Selu: `gamma` times an Elu."""
    alpha = float(node.attributes.get("alpha", 1.67326319217681884765625))
    gamma = float(node.attributes.get("gamma", 1.05070102214813232421875))
    if gamma == 0:
        raise node.refuse("its gamma is 0")
    return (Elu(**node.common(), above=gamma, amplitude=gamma * alpha),)


def read_celu(node: Node) -> tuple[Operator, ...]:
    """Celu: `alpha (exp(z / alpha) - 1)` below 0."""
    alpha = float(node.attributes.get("alpha", 1.0))
    if not alpha > 0:
        raise node.refuse(f"its alpha is {alpha}; only positive ones are read")
    return (Elu(**node.common(), amplitude=alpha, rate=alpha),)


def _spelled(node: Node, kind: type[Bent], names: tuple[str, ...] = (), **fields: object) -> tuple[Operator, ...]:
    """A function with those of its numbers that a file spelled out (`spelled.py`), and `times` what that multiplies it by."""
    fields |= {name: float(node.attributes[name]) for name in names if name in node.attributes}
    if "times" not in node.attributes:
        return (kind(**node.common(), **fields),)  # type: ignore[arg-type]
    raw = f"{node.outputs[0]}:function"
    unit = kind(**{**node.common(), "output": raw}, **fields)  # type: ignore[arg-type]
    factor = np.full((1,) * len(unit.out_shape), float(node.attributes["times"]))
    return (unit, Scale(**{**node.common(), "inputs": (raw,)}, scale=factor))


def read_softplus(node: Node) -> tuple[Operator, ...]:
    """Softplus."""
    return _spelled(node, Softplus, ("beta", "apart"))


def read_gelu(node: Node) -> tuple[Operator, ...]:
    """Gelu of opset 20, exact or with tanh."""
    kind = str(node.attributes.get("approximate", "none"))
    if kind not in ("none", "tanh"):
        raise node.refuse(f"approximate = {kind!r}")
    return _spelled(node, Gelu, ("rate", "cubic"), tanh=kind == "tanh")


def read_swish(node: Node) -> tuple[Operator, ...]:
    """Swish of opset 24."""
    alpha = float(node.attributes.get("alpha", 1.0))
    if not alpha > 0:
        raise node.refuse(f"its alpha is {alpha}; only positive ones are read")
    return _spelled(node, Swish, alpha=alpha)


def read_mish(node: Node) -> tuple[Operator, ...]:
    """Mish of opset 18."""
    return _spelled(node, Mish)


def read_hard_swish(node: Node) -> tuple[Operator, ...]:
    """HardSwish of opset 14."""
    return _spelled(node, HardSwish, ("alpha", "beta"))


def read_hard_sigmoid(node: Node) -> tuple[Operator, ...]:
    """HardSigmoid: `min(max(alpha z + beta, 0), 1)`, a Clip of an affine function."""
    source, output = only_variable(node), node.outputs[0]
    shape = node.sample_shape(source)
    inner = f"{output}:affine"
    names = {"op_type": node.op_type, "node": node.name, "in_shapes": (shape,), "out_shape": shape}
    alpha, beta = float(node.attributes.get("alpha", 0.2)), float(node.attributes.get("beta", 0.5))
    scale, shift = (np.full((1,) * len(shape), v) for v in (alpha, beta))
    line = Scale(**names, inputs=(source,), output=inner, scale=scale, shift=shift)  # type: ignore[arg-type]
    return (line, Clip(**names, inputs=(inner,), output=output, lo=0.0, hi=1.0))  # type: ignore[arg-type]
