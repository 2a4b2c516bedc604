"""A network shaped like ResNet-18 for images of 32x32: 47,104 Relu units, 4,096 pooling windows, random weights.

    python -m benchmarks.networks_resnet18 resnet18.onnx

The stem halves twice (a convolution of 7x7, a pooling of 3x3), as for large images; batch normalisation is folded into the weights.
It stands for the size of what users have, so that limits can be tried on it; its answers mean nothing. One seed, one file.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["ResNet18", "write"]

UNITS = 47_104
WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two convolutions beside the identity, or beside a convolution of 1x1 where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1)
        self.second = nn.Conv2d(after, after, 3, 1, 1)
        self.shortcut = nn.Identity() if before == after and stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class ResNet18(nn.Module):
    """Four stages of two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTHS[0], 7, 2, 3)
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks, before = [], WIDTHS[0]
        for number, width in enumerate(WIDTHS):
            blocks += [Block(before, width, 1 if number == 0 else 2), Block(width, width, 1)]
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.pool(torch.relu(self.stem(x))))
        return self.last(y.mean(dim=(2, 3)))


def write(path: Path) -> int:
    """Writes the network; returns the number of its Relu units."""
    torch.manual_seed(0)
    network = ResNet18().eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                layer.weight *= 0.7  # residual sums would grow without batch normalisation
                nn.init.normal_(layer.bias, std=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about the exporter that needs no further package
        torch.onnx.export(
            network, (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False, opset_version=13, input_names=["image"],
            output_names=["logits"], dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip
    from onnxsub.lower import lower
    from onnxsub.model import load_model

    return lower(load_model(path)).units


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit("give the path of the file to be written")
    units = write(Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {units:,} units")
    return 0 if units == UNITS else 1


if __name__ == "__main__":
    sys.exit(main())
