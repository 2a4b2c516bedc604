"""A random network of ResNet-18's shape, for clocks: 47,104 units on inputs of 32 x 32."""

from __future__ import annotations

from onnx import ModelProto

from tests.handmade import Net

__all__ = ["resnet18"]


def resnet18(width: int = 64, size: int = 32, seed: int = 0) -> ModelProto:
    """A 7 x 7 convolution and a pooling, four stages of two residual blocks whose channels double from `width` on, ten logits."""
    n = Net(3, size, size, seed=seed)

    def conv(x: str, c: int, channels: int, k: int, stride: int) -> str:
        weights = [n.weight(n.gauss(channels, c, k, k, fan=c * k * k)), n.weight(0.1 * n.rng.normal(size=channels))]
        return n.node("Conv", [x, *weights], strides=[stride] * 2, pads=[k // 2] * 4)

    x, c = n.node("Relu", [conv("x", 3, width, 7, 2)]), width
    x = n.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage in range(4):
        for block in range(2):
            channels, stride = width * 2**stage, 2 if stage and not block else 1
            y = n.node("Relu", [conv(x, c, channels, 3, stride)])
            y = conv(y, channels, channels, 3, 1)
            skip = x if (c, stride) == (channels, 1) else conv(x, c, channels, 1, stride)
            x, c = n.node("Relu", [n.node("Add", [y, skip])]), channels
    x = n.node("Flatten", [n.node("GlobalAveragePool", [x])])
    return n.model(n.gemm(x, c, 10), 10)
