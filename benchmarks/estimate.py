"""Estimated widths against `fastlin`: order, error and time; and what a substitute ranked on either is worth.

    python -m benchmarks.estimate                      all of it
    python -m benchmarks.estimate --parts order        rank correlations on wk17a, E and resnet_2b
    python -m benchmarks.estimate --parts exact        `d_hat` on the rows of wk17a whose distance is published
    python -m benchmarks.estimate --parts best         `d_hat` on the first images of wk17a and _NOR against the best point known

`error` is `|d_hat / d - 1|`, d the published distance or the nearest adversarial point that anything found. Substitutes: `lin`,
gamma 0.99, ranked by influence. Times are of this machine and its load: use their ratios.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from statistics import mean

import numpy as np
from scipy.stats import spearmanr

from benchmarks.common import DATA, exact_rows, images_for, load_note, median, space_of
from benchmarks.prune import network_e
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Box
from onnxsub.passes.attack import AttackOptions, AttackResult, attack
from onnxsub.passes.estimate import DIRECTIONS, estimate_widths
from onnxsub.passes.select import SelectOptions
from onnxsub.propagate import compute_bounds
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.options import Limits

RANKED = ("fastlin-ibp", "estimate")


def model_of(name: str) -> Model:
    return load_model(network_e()) if name == "E" else load_model(DATA / "nets" / f"{name}.onnx")


def query_of(model: Model, name: str, index: int) -> Query:
    images, labels = images_for("cifar" if name == "E" else name)
    norm = space_of(name)
    label = None if name == "E" else int(labels[index])
    return make_query(model, images[index], label, space=InputSpace(mean=norm.get("mean"), std=norm.get("std")), threads=1)


def order(directions: int) -> None:
    """Spearman's correlation of all units' widths on the ball of the attack's radius, and of the worst layer."""
    print("\n| network | image | radius | all units | worst layer | widths, median ratio | estimate | fastlin |")
    print("|---|---|---|---|---|---|---|---|")
    for name, indices in (("wk17a", (0, 8)), ("resnet_2b", (2, 4, 6, 7)), ("E", (0,))):
        model = model_of(name)
        for index in indices:
            query = query_of(model, name, index)
            if query.misclassified:
                continue
            radius = attack(query, AttackOptions(threads=1)).d_adv
            ball = query.space.ball(query.x0, radius)
            estimated, seconds = _timed(lambda b=ball, q=query: estimate_widths(q.network, *b, directions=directions).pre)
            bounded, slow = _timed(lambda b=ball, q=query: compute_bounds(q.network, *b, "fastlin", output=False).pre)
            names = [op.output for op in query.network.activations]
            pairs = [[(p[n][1] - p[n][0]).flatten().double().numpy() for n in names] for p in (estimated, bounded)]
            layers = [float(spearmanr(a, b)[0]) for a, b in zip(*pairs, strict=True)]
            one, two = (np.concatenate(p) for p in pairs)
            print(
                f"| {name} | {index} | {radius:.4f} | {spearmanr(one, two)[0]:.3f} | {min(layers):.2f} | "
                f"{np.median(one / np.maximum(two, 1e-30)):.2f} | {seconds:.2f} s | {slow:.2f} s |",
                flush=True,
            )


def _timed(work: Callable[[], Mapping[str, Box]]) -> tuple[Mapping[str, Box], float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def measured(query: Query, found: AttackResult, bounds: str, timeout: float) -> tuple[float, float, bool]:
    """`d_hat`, the upper end that it leads to, and whether it is exact."""
    via = PruneOptions(select=SelectOptions(gamma=0.99, bounds=bounds))
    result = distance(query, DistanceOptions(Limits(timeout=timeout, threads=1), via=via), found=found)
    assert result.original is not None
    return result.upper, result.original.upper, result.status == "exact"


def exact(timeout: float) -> None:
    """The open exact rows of wk17a."""
    model = model_of("wk17a")
    errors: dict[str, list[float]] = {bounds: [] for bounds in RANKED}
    for index, truth in exact_rows():
        query = query_of(model, "wk17a", index)
        found = attack(query, AttackOptions(threads=1))
        for bounds in RANKED:
            d_hat, _, closed = measured(query, found, bounds, timeout)
            errors[bounds].append(abs(d_hat / truth - 1))
            error = 100 * errors[bounds][-1]
            print(f"  wk17a {index:3d} {bounds:11} d_hat {d_hat:.6f} error {error:.3f} % exact {closed}", flush=True)
    for bounds, e in errors.items():
        print(f"exact rows of wk17a, {bounds}: mean error {100 * mean(e):.3f} %, worst {100 * max(e):.3f} %")


def best(images: int, timeout: float) -> None:
    """The first images that are classified rightly."""
    for name in ("wk17a", "salman_mnist_cnn_small_NOR"):
        model = model_of(name)
        errors: dict[str, list[float]] = {bounds: [] for bounds in RANKED}
        index = -1
        while len(errors["estimate"]) < images:
            index += 1
            query = query_of(model, name, index)
            if query.misclassified:
                continue
            found = attack(query, AttackOptions(threads=1))
            answers = {bounds: measured(query, found, bounds, timeout) for bounds in RANKED}
            known = min(found.d_adv, *(upper for _, upper, _ in answers.values()))
            for bounds, (d_hat, _, _) in answers.items():
                errors[bounds].append(abs(d_hat / known - 1))
            words = ", ".join(f"{b} {100 * errors[b][-1]:.3f} %{'' if answers[b][2] else ' (open)'}" for b in RANKED)
            print(f"  {name} {index:3d} best {known:.6f}: {words}", flush=True)
        for bounds, e in errors.items():
            figures = ", ".join(f"{word} {100 * of(e):.3f} %" for word, of in (("mean", mean), ("median", median), ("worst", max)))
            print(f"{name}, {images} images, {bounds}: {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="order,exact,best")
    parser.add_argument("--directions", type=int, default=DIRECTIONS, help="of the part `order`")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--timeout", type=float, default=60.0)
    args = parser.parse_args()
    print(load_note())
    parts = args.parts.split(",")
    if "order" in parts:
        order(args.directions)
    if "exact" in parts:
        exact(args.timeout)
    if "best" in parts:
        best(args.images, args.timeout)


if __name__ == "__main__":
    main()
