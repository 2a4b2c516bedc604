"""Networks of the shapes that people use for images, with random weights: they stand for a size, their answers mean nothing.

    python -m benchmarks.networks_large resnet18 224 FILE.onnx [--pool max]

| name | units at 224 x 224 | parameters |
|---|---|---|
| `resnet18` | 2,308,096 | 11 million |
| `resnet50` | 9,608,704 | 24 million |
| `vgg16` | 13,555,712 | 138 million |
| `mobilenet` (depthwise convolutions, Hardswish, squeeze and excite) | 3,335,136 | 1 million |

`--pool` says how they pool inside: `average` (the default), or `max` as published. Batch normalisation is folded into the weights.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.networks_resnet18 import ResNet18

__all__ = ["NETWORKS", "write"]


class Bottleneck(nn.Module):
    """ResNet-50's block: 1x1, 3x3, 1x1 beside a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 1)
        self.second = nn.Conv2d(width, width, 3, stride, 1)
        self.third = nn.Conv2d(width, 4 * width, 1)
        same = before == 4 * width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.relu(self.third(y) + self.shortcut(x))


class Squeeze(nn.Module):
    """Squeeze and excite: every channel times a factor that the means of all of them say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, max(channels // 4, 8), 1), nn.Conv2d(max(channels // 4, 8), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(x.mean(dim=(2, 3), keepdim=True)))))


class Inverted(nn.Module):
    """MobileNetV3's block: 1x1 up, depthwise, squeeze and excite or none, 1x1 down, beside the identity where shapes agree."""

    def __init__(self, before: int, wide: int, after: int, stride: int, *, squeeze: bool) -> None:
        super().__init__()
        self.squeeze = Squeeze(wide) if squeeze else nn.Identity()
        self.up = nn.Conv2d(before, wide, 1)
        self.depth = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide)
        self.down = nn.Conv2d(wide, after, 1)
        self.same = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(self.squeeze(nn.functional.hardswish(self.depth(nn.functional.hardswish(self.up(x))))))
        return x + y if self.same else y


class Mean(nn.Module):
    """The mean over space."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def pooling(kind: str, kernel: int, stride: int, padding: int = 0) -> nn.Module:
    return nn.MaxPool2d(kernel, stride, padding) if kind == "max" else nn.AvgPool2d(kernel, stride, padding)


def resnet18(size: int, pool: str) -> nn.Module:
    network = ResNet18()
    network.pool = pooling(pool, 3, 2, 1)
    return network


def resnet50(size: int, pool: str) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), pooling(pool, 3, 2, 1)]
    before = 64
    for number, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            layers.append(Bottleneck(before, width, 2 if number and not block else 1))
            before = 4 * width
    return nn.Sequential(*layers, Mean(), nn.Linear(before, 10))


def vgg16(size: int, pool: str) -> nn.Module:
    layers: list[nn.Module] = []
    before = 3
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, width, 3, 1, 1), nn.ReLU()]
            before = width
        layers.append(pooling(pool, 2, 2))
    wide = 4096
    flat = before * (size // 32) ** 2
    layers += [nn.Flatten(), nn.Linear(flat, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, 10)]
    return nn.Sequential(*layers)


def mobilenet(size: int, pool: str) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish()]
    before = 16
    for wide, after, stride, squeeze in (
        (16, 16, 1, 0), (64, 24, 2, 0), (72, 24, 1, 0), (72, 40, 2, 1), (120, 40, 1, 1),
        (240, 80, 2, 0), (200, 80, 1, 0), (480, 112, 1, 1), (672, 160, 2, 1), (960, 160, 1, 1),
    ):  # fmt: skip
        layers.append(Inverted(before, wide, after, stride, squeeze=bool(squeeze)))
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, 960, 1), nn.Hardswish(), Mean(), nn.Linear(960, 10))


NETWORKS = {"resnet18": resnet18, "resnet50": resnet50, "vgg16": vgg16, "mobilenet": mobilenet}


def write(name: str, size: int, path: Path, pool: str = "average") -> None:
    """Writes one of them for images of `size` x `size`: one seed, one file."""
    torch.manual_seed(0)
    network = NETWORKS[name](size, pool).eval()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                layer.weight *= 0.7 if name.startswith("resnet") else 1.0  # residual sums would grow
                nn.init.normal_(layer.bias, std=0.05)
            elif isinstance(layer, nn.Linear) and name == "vgg16":
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about the exporter that needs no further package
        torch.onnx.export(
            network, (torch.zeros(1, 3, size, size),), str(path), dynamo=False, opset_version=14, input_names=["image"],
            output_names=["logits"], dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(NETWORKS))
    parser.add_argument("size", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--pool", choices=["average", "max"], default="average")
    args = parser.parse_args()
    write(args.name, args.size, args.file, args.pool)
    from onnxsub.lower import lower
    from onnxsub.model import load_model

    network = lower(load_model(args.file))
    print(f"{args.file}: {network.units:,} units, {network.multiplications:,} multiplications")


if __name__ == "__main__":
    main()
