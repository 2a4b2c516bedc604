"""The upper end that `--refine` gives the original, against strong attacks.

    python -m benchmarks.refine                         wk17a: original.upper against the published exact distances
    python -m benchmarks.refine --attacks --network salman_mnist_cnn_small_NOR --anchors 20

With --attacks: against the best of foolbox's FMN (L-inf, 1000 steps; `pip install foolbox`) and our own attack with ten times the
steps. `ratio` is original.upper over that; 1 or less: refinement found the nearer point. FMN's points are replayed with
onnxruntime and count only if they are adversarial there.
"""

from __future__ import annotations

import argparse
import math
import time
import warnings
from dataclasses import replace

import numpy as np
import torch

from benchmarks.common import DATA, exact_rows, images_for, load_note, median
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import Query, make_query
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits


def fmn(query: Query) -> float:
    """Distance of the nearest adversarial point that foolbox's L-inf FMN attack finds from the anchor in 1000 steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import foolbox

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return query.network.forward(x)

    bounds = (query.space.lower, query.space.upper)
    model = foolbox.PyTorchModel(Module().eval(), bounds=bounds, device="cpu")
    x = torch.as_tensor(np.array(query.x0))[None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, points, _ = foolbox.attacks.LInfFMNAttack(steps=1000)(model, x, torch.tensor([query.label]), epsilons=None)
    found = points.detach().numpy()
    return float(query.radius(found)[0]) if query.margins(found)[0][0] > 0 else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="wk17a")
    parser.add_argument("--anchors", type=int, default=20)
    parser.add_argument("--skip", type=int, default=0, help="images to leave out first, to share the work between processes")
    parser.add_argument("--attacks", action="store_true")
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--gamma", type=float, default=0.99)
    args = parser.parse_args()
    images, labels = images_for(args.network)
    truth = {} if args.attacks else dict(exact_rows())
    wanted = list(truth) if truth else range(args.skip, len(images))
    via = PruneOptions(select=SelectOptions(gamma=args.gamma))
    options = DistanceOptions(Limits(timeout=args.timeout), via=via, refine=True)
    print(f"{args.network}, lin:{args.gamma} --refine, {args.timeout:g} s each; {load_note()}")
    ratios, times = [], []
    for index in wanted:
        query = make_query(DATA / "nets" / f"{args.network}.onnx", images[index], int(labels[index]))
        if query.misclassified:
            continue
        start = time.perf_counter()
        result = distance(query, options)
        seconds = time.perf_counter() - start
        assert result.original is not None
        assert result.substitute is not None
        upper, first = result.original.upper, result.substitute["d_adv"]
        rounds = result.substitute["refinements"]
        text = f"index {index:3d}  d_adv {first:.6f}  upper {upper:.6f}  refinements {rounds}  {seconds:5.1f} s"
        if truth:
            best = truth[index]
            text += f"  lower/true {result.original.lower / best:.4f}"
        else:
            long = attack(query, replace(AttackOptions(), steps=10 * AttackOptions().steps)).d_adv
            other = fmn(query)
            best = min(long, other)
            text += f"  ten times the steps {long:.6f}  FMN {other:.6f}"
        ratios.append(upper / best)
        times.append(seconds)
        print(f"{text}  ratio {ratios[-1]:.5f}", flush=True)
        if len(ratios) == args.anchors:
            break
    print(f"mean ratio {np.mean(ratios):.5f}, worst {max(ratios):.5f}; median {median(times):.1f} s, worst {max(times):.1f} s")


if __name__ == "__main__":
    main()
