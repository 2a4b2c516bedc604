"""Every network of the data folder: loads, and the operator table agrees with onnxruntime on 20 images.

    python -m benchmarks.networks

The bar: max |onnxsub - onnxruntime| <= 1e-4 (1 + max |logit|), for all.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from benchmarks.common import DATA, images_for, space_of
from onnxsub.model import load_model
from onnxsub.query import analysis_network, two_classes
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime


def main() -> int:
    good = 0
    paths = sorted((DATA / "nets").glob("*.onnx"))
    print(f"{'network':34} {'units':>6} {'max |diff|':>11} {'bar':>9}  accuracy of 20")
    for path in paths:
        x, y = images_for(path.stem)
        model = load_model(path)
        space = InputSpace(**space_of(path.stem))  # type: ignore[arg-type]
        network = analysis_network(model, space)
        expected = two_classes(Runtime(model, threads=1).logits(space.normalise(x[:20])))
        with torch.no_grad():
            got = network.forward(torch.as_tensor(x[:20])).numpy()
        difference, bar = np.abs(got - expected).max(), 1e-4 * (1 + np.abs(expected).max())
        good += bool(difference <= bar)
        right = int((expected.argmax(1) == y[:20]).sum())
        print(f"{path.stem:34} {network.units:6d} {difference:11.2e} {bar:9.1e}  {right}")
    print(f"{good} of {len(paths)} within the bar")
    return 0 if good == len(paths) else 1


if __name__ == "__main__":
    sys.exit(main())
