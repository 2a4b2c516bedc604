"""A trained network as an ordinary ONNX file, node by node: opset 13, IR 8, images in [0, 1] in, logits out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from torch import nn

from onnxsub.errors import ModelError
from onnxsub.ops.base import Shape
from onnxsub.runtime import Runtime
from onnxsub.zoo.build import weighted
from onnxsub.zoo.recipe import Recipe, model_name

__all__ = ["METADATA", "TOLERANCE", "check_export", "layers_onnx", "to_onnx", "zoo_model"]

OPSET, IR = 13, 8
"""Old enough for every verifier known to read networks of this kind."""

METADATA = "onnxsub.zoo"
"""Key of the recipe in the file's metadata."""

TOLERANCE = 1e-5
"""Largest difference of the logits between torch and onnxruntime, as a share of the largest logit and at least of 1."""

_PLAIN: Mapping[type[nn.Module], tuple[str, str]] = {
    nn.ReLU: ("Relu", "relu"), nn.Tanh: ("Tanh", "tanh"), nn.Sigmoid: ("Sigmoid", "sigmoid"),
}  # fmt: skip


def to_onnx(net: nn.Sequential, shape: Shape, recipe: Recipe, *, one_row: bool = False) -> ModelProto:
    """The file of `net`: the graph of `layers_onnx`, which has the name of the recipe, and the recipe in the metadata.

    Args:
        net, shape, one_row: see `layers_onnx`.

    Raises:
        ModelError: `net` holds another kind of layer.
    """
    return zoo_model(layers_onnx(net, shape, model_name(recipe), one_row=one_row), recipe.to_json())


def layers_onnx(net: nn.Sequential, shape: Shape, name: str, *, one_row: bool = False) -> GraphProto:
    """`net` as ordinary nodes, one per layer, with their weights as initializers; input `image`, output `logits`.

    Args:
        net: what `build` gives, in float32.
        shape: of an input, per sample.
        name: of the graph.
        one_row: fix the batch axis to 1, for readers that want one; else it is open (`N`).

    Raises:
        ModelError: `net` holds another kind of layer.
    """
    rows = 1 if one_row else "N"
    nodes: list[NodeProto] = []
    initializers: list[TensorProto] = []
    counts: dict[str, int] = {}
    here = "image"

    def add(operator: str, kind: str, weights: nn.Conv2d | nn.Linear | None = None, **attributes: Any) -> None:
        nonlocal here
        counts[kind] = counts.get(kind, 0) + 1
        name = kind if kind == "flatten" else f"{kind}{counts[kind]}"
        inputs = [here]
        if weights is not None:
            for part, value in weights.named_parameters():
                initializers.append(numpy_helper.from_array(value.detach().cpu().numpy(), f"{name}.{part}"))
                inputs.append(f"{name}.{part}")
        here = f"{name}.out"
        nodes.append(helper.make_node(operator, inputs, [here], name, **attributes))

    for module in net:
        if isinstance(module, nn.Conv2d):
            window, strides, pads = list(module.kernel_size), list(module.stride), [int(p) for p in module.padding]
            add("Conv", "conv", module, kernel_shape=window, strides=strides, pads=pads * 2)
        elif isinstance(module, nn.Linear):
            add("Gemm", "dense", module, transB=1)
        elif isinstance(module, nn.Flatten):
            add("Flatten", "flatten", axis=1)
        elif isinstance(module, nn.AvgPool2d):
            window = [int(n) for n in module.kernel_size]  # type: ignore[union-attr]  # `build` gives both sides
            add("AveragePool", "mean", kernel_shape=window, strides=window)
        elif isinstance(module, nn.Hardtanh):
            ends = {"clip1.min": module.min_val, "clip1.max": module.max_val}
            initializers += [numpy_helper.from_array(np.array(v, dtype=np.float32), name) for name, v in ends.items()]
            add("Clip", "clip")
            nodes[-1].input.extend(ends)
        elif type(module) in _PLAIN:
            add(*_PLAIN[type(module)])
        else:
            raise ModelError(f"the zoo has no ONNX form of {type(module).__name__}; build the network with onnxsub.zoo.build")
    nodes[-1].output[0] = "logits"
    classes = weighted(net)[-1].weight.shape[0]
    return helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [rows, *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, classes])],
        initializers,
    )


def zoo_model(graph: GraphProto, recipe: Mapping[str, Any]) -> ModelProto:
    """A file with this graph, and with a recipe in its metadata."""
    model = helper.make_model(graph, producer_name="onnxsub zoo", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    helper.set_model_props(model, {METADATA: json.dumps(recipe, separators=(",", ":"))})
    return model


def check_export(proto: ModelProto, net: nn.Sequential, shape: Shape, scale: float = 1.0) -> float:
    """Largest difference between onnxruntime on the file and torch on `net`, over eight random images.

    Args:
        scale: the largest number that the file computes with, where that is above its logits.

    Raises:
        ModelError: it is above `TOLERANCE`, or onnxruntime does not take the file.
    """
    x = np.random.default_rng(0).random((8, *shape), dtype=np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    difference = float(np.abs(Runtime(proto).logits(x) - wanted).max())
    if not difference <= TOLERANCE * max(scale, float(np.abs(wanted).max())):
        raise ModelError(f"onnxruntime and torch differ by {difference:.2g} on the exported network; please report this")
    return difference
