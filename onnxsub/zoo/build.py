"""An architecture as a torch module, with first weights that depend on the seed alone."""

from __future__ import annotations

import torch
from torch import nn

from onnxsub.ops.base import Shape
from onnxsub.zoo.architectures import Architecture, Conv

__all__ = ["build", "weighted"]


def build(arch: Architecture, shape: Shape, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """`arch` for inputs of `shape` (per sample), on the CPU, float32; torch's own first weights (Kaiming uniform).

    The caller's random numbers are left as they are.
    """
    modules: list[nn.Module] = []
    flat = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer, given in arch.layers(shape, classes):
            if isinstance(layer, Conv):
                modules.append(nn.Conv2d(given[0], layer.channels, layer.kernel, layer.stride, layer.padding))
            else:
                if not flat:
                    modules.append(nn.Flatten())
                    flat = True
                modules.append(nn.Linear(layer.weight_shape(given)[1], layer.units))
            modules.append(nn.ReLU())
    return nn.Sequential(*modules[:-1])


def weighted(net: nn.Sequential) -> list[nn.Conv2d | nn.Linear]:
    """The layers of `net` that have weights, in order."""
    return [module for module in net if isinstance(module, nn.Conv2d | nn.Linear)]
