"""Recipe of `digits.onnx`: the network that the demo, the README and the tests use.

    python models/train_digits.py [--out FOLDER]

Data: the UCI handwritten digits that come with scikit-learn, 1797 images of 1x8x8, grey values 0..16 scaled to [0, 1];
three quarters train, one quarter test (stratified, seed 0). Network: Conv 8 k3, Conv 16 k3 stride 2, Dense 64, Dense 10, with
ReLU between them: 832 units. Training: Adam, half of every batch replaced by adversarial points of projected gradient
descent (radius 0.12), so that the distances to the decision boundary are not tiny (Madry et al. 2018).

Writes digits.onnx, digits_anchors.npz (ten test images that the network gets right, one of each class), digits_seven.npy and
digits_seven.png (one of them), and prints the figures that models/README.md states. One thread and a fixed seed: the same
torch build on the same processor gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

SEED = 0
EPOCHS = 60
BATCH = 64
RADIUS = 0.12
STEPS = 7
SHOWN = 7  # the class of the single image


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels; images `(N, 1, 8, 8)` float32 in [0, 1]."""
    digits = load_digits()
    x = (digits.images / 16.0).astype(np.float32)[:, None]
    split = train_test_split(x, digits.target.astype(np.int64), test_size=0.25, random_state=SEED, stratify=digits.target)
    x_train, x_test, y_train, y_test = (torch.from_numpy(a) for a in split)
    return x_train, y_train, x_test, y_test


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def adversarial(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Projected gradient ascent on the loss inside the ball of `RADIUS` and the domain."""
    point = (x + torch.empty_like(x).uniform_(-RADIUS, RADIUS)).clamp(0, 1)
    for _ in range(STEPS):
        point.requires_grad_(True)
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(net(point), y), point)
        point = point.detach() + 0.4 * RADIUS * gradient.sign()
        point = torch.minimum(torch.maximum(point, x - RADIUS), x + RADIUS).clamp(0, 1)
    return point.detach()


def train(net: nn.Module, x: Tensor, y: Tensor) -> None:
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, epochs=EPOCHS, steps_per_epoch=-(-len(x) // BATCH))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            xb, yb = x[rows], y[rows]
            half = len(rows) // 2
            xb = torch.cat([adversarial(net, xb[:half], yb[:half]), xb[half:]])
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(xb), yb).backward()
            optimiser.step()
            schedule.step()


def to_onnx(net: nn.Sequential) -> onnx.ModelProto:
    """The trained network as ONNX: opset 13, IR 8, dynamic batch axis, input `image`, output `logits`."""
    initializers = [
        numpy_helper.from_array(value.detach().numpy(), name)
        for i, layer in enumerate(("conv1", "conv2", "dense1", "dense2"))
        for name, value in zip((f"{layer}.weight", f"{layer}.bias"), net[(0, 2, 5, 7)[i]].parameters(), strict=True)
    ]
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["z1"], "conv1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["z1"], ["h1"], "relu1"),
        helper.make_node(
            "Conv", ["h1", "conv2.weight", "conv2.bias"], ["z2"], "conv2", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["z2"], ["h2"], "relu2"),
        helper.make_node("Flatten", ["h2"], ["flat"], "flatten", axis=1),
        helper.make_node("Gemm", ["flat", "dense1.weight", "dense1.bias"], ["z3"], "dense1", transB=1),
        helper.make_node("Relu", ["z3"], ["h3"], "relu3"),
        helper.make_node("Gemm", ["h3", "dense2.weight", "dense2.bias"], ["logits"], "dense2", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        initializers, doc_string="UCI digits, 8x8 grey values in [0, 1], ten classes",
    )  # fmt: skip
    model = helper.make_model(graph, producer_name="onnxsub models/train_digits.py", opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the bundled digits network.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: beside this file)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    x_train, y_train, x_test, y_test = data()
    net = network()
    train(net, x_train, y_train)

    with torch.no_grad():
        right = net(x_test).argmax(1) == y_test
    robust = net(adversarial(net, x_test, y_test)).argmax(1) == y_test
    content = to_onnx(net).SerializeToString(deterministic=True)
    (out / "digits.onnx").write_bytes(content)

    rows = [int(torch.nonzero(right & (y_test == k))[0]) for k in range(10)]
    np.savez(out / "digits_anchors.npz", x=x_test[rows].numpy(), y=y_test[rows].numpy())
    shown = x_test[rows[SHOWN], 0].numpy()
    np.save(out / "digits_seven.npy", shown[None, None])
    # 8-bit: the nearest of 256 grey values, hence not the same point as the .npy to the last bit
    Image.fromarray(np.round(shown * 255).astype(np.uint8)).save(out / "digits_seven.png")
    print(f"test accuracy   {float(right.float().mean()):.2%} of {len(x_test)}")
    print(f"under attack    {float(robust.float().mean()):.2%} at radius {RADIUS}")
    print(f"sha256          {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
