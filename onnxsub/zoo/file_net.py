"""A model file as a torch module whose weights can be trained, and the trained weights back into the file.

What is trained: the constant weights and biases of Gemm, MatMul and Conv, and a constant that an Add adds behind a MatMul.
Everything else (statistics of a BatchNormalization, constants that several nodes read, quantised weights) stays as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs
import torch
from onnx import ModelProto, NodeProto
from torch import Tensor, nn

from onnxsub.anchors import fit_shape
from onnxsub.errors import InputError, ModelError
from onnxsub.model import Model, load_model
from onnxsub.network import Network
from onnxsub.ops.base import Array, Operator, Shape
from onnxsub.ops.conv import Conv
from onnxsub.ops.dense import Dense
from onnxsub.ops.elementwise import Scale
from onnxsub.query import analysis_network, two_classes
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime
from onnxsub.surgery import edit
from onnxsub.zoo.export import TOLERANCE

__all__ = ["as_module", "images_for", "images_from", "with_weights"]


@dataclass(frozen=True, eq=False)
class _Place:
    """A constant of the file that is trained: attribute `name` of the operator that writes tensor `output`.

    In the file it is input `position` of the node, of `shape`, where it is `1 / factor` times the attribute, and that transposed.
    """

    output: str
    name: str
    position: int
    shape: Shape
    factor: float = 1.0
    transposed: bool = False

    def in_file(self, value: Array) -> Array:
        """The constant as the file has it, float64."""
        value = value.astype(np.float64) / self.factor
        return np.ascontiguousarray(value.T if self.transposed else value).reshape(self.shape)


class _Feed(nn.Module):
    """Images `(N, C, H, W)` in [0, 1] as the model's inputs in un-normalised units."""

    def __init__(self, shape: Shape, wanted: Shape, interval: tuple[float, float]) -> None:
        super().__init__()
        numbers = np.arange(int(np.prod(shape))).reshape(shape)
        order = fit_shape(numbers, wanted, "an image").reshape(-1)
        self._order = None if (order == numbers.reshape(-1)).all() else torch.from_numpy(order.copy())
        self._wanted = wanted
        self._low, self._high = interval

    def back(self, x: Tensor) -> Tensor:
        """The inverse: inputs `(N, ...)` as flat images `(N, C * H * W)`."""
        flat = (x.flatten(1) - self._low) / (self._high - self._low)
        return flat if self._order is None else flat[:, self._order.argsort()]

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        if self._order is not None:
            flat = flat[:, self._order.to(x.device)]
        return (self._low + (self._high - self._low) * flat).reshape(len(x), *self._wanted)


class _FileNet(nn.Module):
    """The network of a file; `weights` are what its operators compute with."""

    def __init__(self, network: Network, places: list[_Place]) -> None:
        super().__init__()
        self._network = network
        self._names = [(place.output, place.name) for place in places]
        values = (getattr(network.producers[output], name) for output, name in self._names)
        self.weights = nn.ParameterList([nn.Parameter(torch.tensor(v, dtype=torch.float32)) for v in values])

    def forward(self, x: Tensor) -> Tensor:
        for (output, name), weight in zip(self._names, self.weights, strict=True):
            # what `Operator.tensor` would make of the constant, once per type and device
            self._network.producers[output].cached((name, x.dtype, x.device), partial(_itself, weight))
        return self._network.forward(x)


def _itself(weight: Tensor) -> Tensor:
    return weight


def as_module(model: Model, space: InputSpace, shape: Shape, classes: int) -> nn.Sequential:
    """`model` for images of `shape` `(C, H, W)` in [0, 1] with labels below `classes`; two logits at least.

    Raises:
        InputError: images or labels do not fit; the file holds no weights that can be trained. UnsupportedOperatorError.
    """
    network = analysis_network(model, space)
    if classes > network.classes:
        known = network.classes
        raise InputError(f"{model.where} has {known} classes, the images have labels up to {classes - 1}; check the labels")
    places = _places(model, network)
    if not places:
        raise InputError(
            f"{model.where} holds no weights that can be trained: constants of Gemm, MatMul or Conv in float32 or float64, each "
            "read by one node; give the model before it was quantised"
        )
    return nn.Sequential(_Feed(shape, network.input_shape, space.interval), _FileNet(network, places))


def images_for(model: Model, space: InputSpace, x: Array) -> Array:
    """What the file itself is fed for images `x` `(N, C, H, W)` in [0, 1]: float32, `(N, *input_shape)`."""
    fed: Array = _Feed(x.shape[1:], model.input_shape, space.interval)(torch.from_numpy(x)).numpy()
    return space.normalise(fed)


def images_from(model: Model, space: InputSpace, x: Array, shape: Shape) -> Array:
    """The inverse of what comes before the normalisation in `images_for`: inputs `(N, ...)` as images `(N, *shape)` in [0, 1]."""
    back = _Feed(shape, model.input_shape, space.interval).back(torch.from_numpy(x)).clamp(0, 1)
    return np.ascontiguousarray(back.numpy().reshape(-1, *shape), dtype=np.float32)


def with_weights(model: Model, net: nn.Sequential, space: InputSpace, shape: Shape) -> ModelProto:
    """The file with the weights of `net`, which `as_module` made of it.

    Raises:
        ModelError: onnxruntime and torch do not agree on it.
    """
    inner = net[1]
    assert isinstance(inner, _FileNet)
    places = _places(model, analysis_network(model, space))
    values = [p.in_file(w.detach().cpu().numpy()) for p, w in zip(places, inner.weights, strict=True)]

    def change(graph: gs.Graph) -> None:
        nodes = {node.outputs[0].name: node for node in graph.nodes}
        for place, value in zip(places, values, strict=True):
            node = nodes[place.output]
            old = node.inputs[place.position]
            kind = old.values.dtype if isinstance(old, gs.Constant) else old.inputs[0].attrs["value"].values.dtype
            name = old.name if isinstance(old, gs.Constant) else f"{old.name}.tuned"
            node.inputs[place.position] = gs.Constant(name, value.astype(kind))
        graph.cleanup()

    proto = edit(model.source, change)
    x = np.random.default_rng(0).random((8, *shape), dtype=np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x)).numpy()
    found = two_classes(Runtime(load_model(proto, model.reading)).logits(images_for(model, space, x)))
    apart = float(np.abs(found - wanted).max())
    if not apart <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):
        raise ModelError(f"onnxruntime and torch differ by {apart:.2g} on the trained network; please report this")
    return proto


def _places(model: Model, network: Network) -> list[_Place]:
    graph = model.source.graph
    readers = Counter(name for node in graph.node for name in node.input)
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type in (1, 11)}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and attribute.t.data_type in (1, 11):
                shapes[node.output[0]] = tuple(attribute.t.dims)
    returned = {value.name for value in graph.output}
    own = {name: shape for name, shape in shapes.items() if readers[name] == 1 and name not in returned}
    products = {node.output[0] for node in graph.node if node.op_type == "MatMul"}
    found = []
    for node in graph.node:
        op = network.producers.get(node.output[0]) if node.output else None
        if op is not None:
            found += [p for p in _of_node(node, op, own, products) if np.size(getattr(op, p.name)) == int(np.prod(p.shape))]
    return found


def _of_node(node: NodeProto, op: Operator, own: dict[str, Shape], products: set[str]) -> list[_Place]:
    """Constants of one node that stand in its operator element by element, but for a factor."""
    attributes = {a.name: a for a in node.attribute}

    def at(position: int, name: str, factor: float = 1.0, *, transposed: bool = False) -> list[_Place]:
        given = node.input[position] if position < len(node.input) else ""
        return [_Place(op.output, name, position, own[given], factor, transposed)] if given in own and factor else []

    match op:
        case Dense() if node.op_type == "Gemm":
            alpha, beta = (float(attributes[n].f) if n in attributes else 1.0 for n in ("alpha", "beta"))
            straight = "transB" in attributes and bool(attributes["transB"].i)
            bias = [] if op.bias is None else at(2, "bias", beta)
            return at(1, "weight", alpha, transposed=not straight) + bias
        case Dense() if node.op_type == "MatMul" and op.weight.ndim == 2:
            return at(1, "weight", transposed=True)
        case Conv() if node.op_type == "Conv":
            return at(1, "weight") + ([] if op.bias is None else at(2, "bias"))
        case Scale() if node.op_type == "Add" and op.scale is None and products & set(node.input):
            return at(0, "shift") + at(1, "shift")
    return []
