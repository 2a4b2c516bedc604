"""An architecture as a torch module, with first weights that depend on the seed alone."""

from __future__ import annotations

import torch
from torch import nn

from onnxsub.errors import OptionError
from onnxsub.ops.base import Shape
from onnxsub.zoo.architectures import Architecture, Conv, Pool

__all__ = ["build", "weighted", "without_clamp"]

_MOST = 2**29  # 2 GiB as float32
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def build(arch: Architecture, shape: Shape, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """`arch` for inputs of `shape` (per sample), on the CPU, float32; torch's own first weights (Kaiming uniform).

    The caller's random numbers are left as they are.

    Raises:
        OptionError: more than `_MOST` parameters, which no ONNX file holds.
    """
    if (count := arch.parameters(shape, classes)) > _MOST:
        raise OptionError(f"architecture {arch.name!r} has {count:,} parameters for inputs of {list(shape)}; give smaller sizes")
    modules: list[nn.Module] = []
    flat = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer, given in arch.layers(shape, classes):
            if isinstance(layer, Pool):
                modules.append(nn.AvgPool2d(layer.window(given)))
                continue
            if isinstance(layer, Conv):
                modules.append(nn.Conv2d(given[0], layer.channels, layer.kernel, layer.stride, layer.padding))
            else:
                if not flat:
                    modules.append(nn.Flatten())
                    flat = True
                modules.append(nn.Linear(layer.weight_shape(given)[1], layer.units))
            modules.append(_ACTIVATIONS[arch.activation]())
    clamp = [] if arch.clamp is None else [nn.Hardtanh(-arch.clamp, arch.clamp)]
    return nn.Sequential(*modules[:-1], *clamp)


def weighted(net: nn.Sequential) -> list[nn.Conv2d | nn.Linear]:
    """The layers of `net` that have weights, in order."""
    return [module for module in net if isinstance(module, nn.Conv2d | nn.Linear)]


def without_clamp(net: nn.Sequential) -> nn.Sequential:
    """The same function with ReLUs in place of a clamp at the end: `clip(z, -c, c) = relu(z + c) - relu(z - c) - c`.

    Two ReLUs per logit, for verifiers that know no other operator. A network without a clamp is given back as it is.
    """
    if not isinstance(net[-1], nn.Hardtanh):
        return net
    last, c = net[-2], net[-1].max_val
    assert isinstance(last, nn.Linear)  # `build` puts the clamp behind the logits
    n = last.out_features
    twice, difference = nn.Linear(last.in_features, 2 * n), nn.Linear(2 * n, n)
    with torch.no_grad():
        twice.weight.copy_(last.weight.repeat(2, 1))
        twice.bias.copy_(torch.cat([last.bias + c, last.bias - c]))
        difference.weight.copy_(torch.cat([torch.eye(n), -torch.eye(n)], dim=1))
        difference.bias.fill_(-c)
    return nn.Sequential(*list(net)[:-2], twice, nn.ReLU(), difference)
