"""The three invariants of the substitutes on every network of the data folder, in float32 under onnxruntime.

    python -m benchmarks.invariants [--networks wk17a,resnet_2b] [--anchors 5]

For each network, anchor, method, gamma and layout: |g - f| at the anchor; for `lin` at the adversarial point; for `act` at random
points at which no pruned unit has left its piece. The bar: <= 1e-4 (1 + max |logit|), all.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch

from benchmarks.common import DATA, images_for, load_note, space_of
from onnxsub.layouts import LAYOUTS, LayoutContext
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import attack
from onnxsub.passes.select import SelectOptions, margin_gradients, select
from onnxsub.passes.substitute import METHODS, lines, substitute
from onnxsub.query import Query, make_query, two_classes
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime

GAMMAS = (0.5, 0.9, 0.99)


def same_piece(query: Query, kept: dict[str, Array], radius: float, count: int = 64) -> Array:
    """Random points of shrinking balls at which every pruned unit is on the piece of the anchor."""
    rng = np.random.default_rng(0)
    scale = np.geomspace(1e-3, 1.0, count)[:, None] * radius
    flat = query.x0.reshape(1, -1) + scale * rng.uniform(-1, 1, (count, query.x0.size))
    x = np.clip(flat, query.space.lower, query.space.upper).astype(np.float32).reshape(count, *query.x0.shape)
    z = query.network.preactivations(torch.as_tensor(np.concatenate([query.x0[None], x]), dtype=torch.float64))
    stays = np.ones(count, dtype=bool)
    for op, values in zip(query.network.activations, z, strict=True):
        slope, offset = op.tangent(values[:1])
        exact = (op.forward(values[1:]) - (slope * values[1:] + offset)).abs() <= 1e-9 * (1 + values[1:].abs())
        stays &= (exact.numpy() | kept[op.output]).reshape(count, -1).all(axis=1)
    return x[stays]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="")
    parser.add_argument("--anchors", type=int, default=5)
    parser.add_argument("--rank", default=SelectOptions().rank)
    parser.add_argument("--layouts", default="inplace,compact")
    args = parser.parse_args()
    layouts = {name: LAYOUTS[name] for name in args.layouts.split(",")}
    names = args.networks.split(",") if args.networks else sorted(p.stem for p in (DATA / "nets").glob("*.onnx"))
    checks = failures = 0
    worst_of_all = 0.0
    print(f"{len(names)} networks, gamma {GAMMAS}, methods {METHODS}, layouts {tuple(layouts)}; {load_note()}")
    for name in names:
        start = time.perf_counter()
        images, labels = images_for(name)
        model = load_model(DATA / "nets" / f"{name}.onnx")
        space = InputSpace(**space_of(name))  # type: ignore[arg-type]
        raw = lower(model)
        done, index, worst, moved = 0, 0, 0.0, 0
        while done < args.anchors:
            query = make_query(model, images[index], int(labels[index]), space=space)
            index += 1
            if query.misclassified:
                continue
            done += 1
            found = attack(query)
            assert found.x_adv is not None
            assert found.adversarial_label is not None
            f = query.logits(np.stack([query.x0, found.x_adv]))
            limit = 1e-4 * (1 + np.abs(f).max())
            points = np.stack([query.x0, found.x_adv])
            gradients = margin_gradients(query.network, points, query.label, found.adversarial_label)
            ball = query.space.ball(query.x0, found.d_adv)
            context = LayoutContext.of(space, query.x0, found.d_adv, found.x_adv)
            for method in METHODS:
                chosen = lines(query.network, method, query.x0, found.x_adv)
                for gamma in GAMMAS:
                    options = SelectOptions(gamma=gamma, rank=args.rank)
                    kept = select(query.network, ball, chosen, options, gradients=gradients).kept
                    near = same_piece(query, dict(kept), found.d_adv) if method == "act" else points[:0]
                    at = np.concatenate([points[:1] if method != "lin" else points, near])
                    expected = query.logits(at)
                    for layout in layouts.values():
                        proto = layout(model, substitute(raw, chosen, kept), context)
                        runtime = Runtime(load_model(proto), threads=1)
                        got = two_classes(runtime.logits(query.space.normalise(at)))
                        difference = float(np.abs(got.astype(np.float64) - expected).max())
                        checks += 1
                        failures += difference > limit
                        worst = max(worst, difference / limit)
                        moved += len(near)
        worst_of_all = max(worst_of_all, worst)
        seconds = time.perf_counter() - start
        print(f"{name:34} worst {worst:8.1e} of the bar, {moved} points of one piece, {seconds:.0f} s", flush=True)
    print(f"{checks} checks, {failures} beyond the bar, worst {worst_of_all:.1e} of the bar")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
