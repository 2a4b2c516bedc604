"""Small networks of today's kinds, trained on the 8x8 digits of scikit-learn and exported by the tools that people use.

    python -m benchmarks.modern_networks FOLDER [--epochs 60] [--plain]

Needs torch with onnxscript (`torch.onnx.export`), scikit-learn and skl2onnx. Writes `vit`, `mobilenet`, `efficientnet`, `mlp_gelu`
and `sklearn_mlp` as `.onnx` files, and `digits.npz` with the test images in [0, 1] and their labels. Training adds a step of the
sign of the gradient to half of each batch (radius 0.05), as a user would who asks about robustness.

With `--plain`: smooth networks as older exporters write them (opset 13, no node newer than that), which other verifiers read too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "PLAIN"]

_RADIUS = 0.05


class Attention(nn.Module):
    """Multi-head self-attention over `(N, tokens, width)`, batch first throughout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = (f(x).reshape(n, t, self.heads, d // self.heads).transpose(1, 2) for f in (self.q, self.k, self.v))
        share = torch.softmax(q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5, -1)
        return self.out((share @ v).transpose(1, 2).reshape(n, t, d))


class VisionTransformer(nn.Module):
    """Patches of 2x2, 16 tokens of width 16, two blocks of two heads."""

    def __init__(self, width: int = 16, blocks: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.position = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList()
        for _ in range(blocks):
            mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            self.blocks.append(nn.ModuleList([nn.LayerNorm(width), Attention(width, 2), nn.LayerNorm(width), mlp]))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        for first, attention, second, mlp in self.blocks:  # type: ignore[misc]
            x = x + attention(first(x))
            x = x + mlp(second(x))
        return self.head(self.norm(x).mean(1))


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int, inner: int, function: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), function(), nn.Conv2d(inner, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.net(x)


class Inverted(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, projection, a residual where shapes allow."""

    def __init__(self, inner: int, outer: int, stride: int, function: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        wide = 3 * inner
        self.residual = stride == 1 and inner == outer
        self.net = nn.Sequential(
            nn.Conv2d(inner, wide, 1, bias=False), nn.BatchNorm2d(wide), function(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide), function(),
            Squeeze(wide, max(4, wide // 4), nn.ReLU, gate), nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x) if self.residual else self.net(x)


def _mobile(function: type[nn.Module], gate: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), function(), Inverted(8, 8, 1, function, gate),
        Inverted(8, 12, 2, function, gate), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


NETWORKS = {
    "vit": VisionTransformer,
    "mobilenet": lambda: _mobile(nn.Hardswish, nn.Hardsigmoid),
    "efficientnet": lambda: _mobile(nn.SiLU, nn.Sigmoid),
    "mlp_gelu": lambda: _mlp(nn.GELU),
}


def _mlp(function: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), function(), nn.Linear(32, 32), function(), nn.Linear(32, 10))


def _cnn(function: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), function(), nn.Conv2d(8, 16, 3, 2, 1), function(), nn.Flatten(), nn.Linear(64, 10)
    )


PLAIN = {
    "mlp_sigmoid": lambda: _mlp(nn.Sigmoid),
    "mlp_tanh": lambda: _mlp(nn.Tanh),
    "mlp_silu": lambda: _mlp(nn.SiLU),
    "mlp_gelu13": lambda: _mlp(nn.GELU),
    "cnn_tanh": lambda: _cnn(nn.Tanh),
    "efficientnet13": lambda: _mobile(nn.SiLU, nn.Sigmoid),
}
"""Networks of `--plain`."""


def _train(net: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, epochs * (len(x) // 64))
    loss = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for part in torch.randperm(len(x))[: 64 * (len(x) // 64)].reshape(-1, 64):
            image = x[part].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(net(image), y[part]), image)
            moved = (image + _RADIUS * gradient.sign()).clamp(0, 1).detach()
            moved[32:] = x[part][32:]
            optimiser.zero_grad()
            loss(net(moved), y[part]).backward()
            optimiser.step()
            schedule.step()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--plain", action="store_true", help="the smooth networks of opset 13 only")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1400], order[1400:]
    np.savez(args.folder / "digits.npz", x=images[test], y=labels[test])
    x, y = torch.from_numpy(images[train]), torch.from_numpy(labels[train])
    for name, make in (PLAIN if args.plain else NETWORKS).items():
        torch.manual_seed(0)
        net = make()
        _train(net, x, y, args.epochs)
        net.eval()
        with torch.no_grad():
            right = (net(torch.from_numpy(images[test])).argmax(1).numpy() == labels[test]).mean()
        if args.plain:
            torch.onnx.export(net, (x[:1],), str(args.folder / f"{name}.onnx"), dynamo=False, opset_version=13)
        else:
            torch.onnx.export(net, (x[:1],), args.folder / f"{name}.onnx", dynamo=True, external_data=False)
        print(f"{name}: {right:.3f} of the test images", flush=True)
    if not args.plain:
        _sklearn(args.folder, images, labels, train, test)
    return 0


def _sklearn(folder: Path, images: np.ndarray, labels: np.ndarray, train: np.ndarray, test: np.ndarray) -> None:
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    flat = images.reshape(len(images), -1)
    model = make_pipeline(StandardScaler(), MLPClassifier((32, 16), max_iter=300, random_state=0, alpha=1.0))
    model.fit(flat[train], labels[train])
    (folder / "sklearn_mlp.onnx").write_bytes(to_onnx(model, flat[:1]).SerializeToString())
    print(f"sklearn_mlp: {model.score(flat[test], labels[test]):.3f} of the test images")


if __name__ == "__main__":
    sys.exit(main())
