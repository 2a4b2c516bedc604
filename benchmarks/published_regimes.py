"""What the published study of regimes did under the names `augment-fgsm` and `adversarial`, and what our regimes of these names do.

    python -m benchmarks.published_regimes --data FILE.npz --run DIR [--epochs 100] [--only NAME,...]

784-100-10 on Fashion-MNIST by the recipe `published`. Read from the program of Casadio et al. 2022 (github.com/aisec-private/
training-with-constraints, commit 9f03fbd: `createFGSMAugmentedDatasets.py`, `mainPGD.py`), written anew:

    base         clean training.
    fgsm-test    clean training on the training images and on images made before it: one step of FGSM on -f_y from the image itself,
                 of 0.05 and of 0.1, against `base`; kept are those of rightly classified images that change their class. The
                 program makes them from the TEST images (`train=False`), so that an accuracy on these says nothing.
    fgsm-train   the same from the training images.
    adversarial  ours: cross entropy at the end of ten steps of 0.025 that climb the cross entropy.
    sr-attack    cross entropy at the end of ten steps of 0.025 that climb min(|f(x) - f(x0)|, 10), the attack of regime `sr`: it
                 looks for a far output, not for another class, and rests at distance 10.
    sr-attack-50 the same in 50 steps of 0.01, as the program does it.

Prints the accuracy on the test images, and on the first 500 of them under attack at 0.1 (40 steps, three starts). A finished line
is kept in DIR; a training goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import load_note, table
from onnxsub.metrics.local import StandardRobustness
from onnxsub.zoo import train as training
from onnxsub.zoo.attacks import perturb
from onnxsub.zoo.card import measure
from onnxsub.zoo.images import ImageSet, Labelled, read_npz
from onnxsub.zoo.losses import excess
from onnxsub.zoo.recipe import Phase, Recipe, default_recipe

EPS, DELTA = 0.1, 10.0
NAMES = ("base", "fgsm-test", "fgsm-train", "adversarial", "sr-attack", "sr-attack-50")


def fgsm_images(net: nn.Module, data: Labelled, radii: tuple[float, ...] = (0.05, 0.1)) -> Labelled:
    """One step on -f_y of every radius; kept are those of rightly classified images that change their class."""
    x, y = training.on_unit_scale(torch.from_numpy(data.x)), torch.from_numpy(data.y)
    made, labels = [], []
    for rows in torch.arange(len(y)).split(1000):
        point = x[rows].requires_grad_(True)
        logits = net(point)
        (slope,) = torch.autograd.grad(-logits.gather(1, y[rows, None]).sum(), point)
        right = logits.argmax(1) == y[rows]
        for radius in radii:
            moved = (point.detach() + radius * slope.sign()).clamp(0, 1)
            with torch.no_grad():
                kept = right & (net(moved).argmax(1) != y[rows])
            made.append(moved[kept])
            labels.append(y[rows][kept])
    return Labelled(torch.cat(made).numpy(), torch.cat(labels).numpy())


def with_more(data: ImageSet, more: Labelled) -> ImageSet:
    """The training images and `more`."""
    x = (data.train.x / np.float32(255)).astype(np.float32)
    return replace(data, train=Labelled(np.concatenate([x, more.x]), np.concatenate([data.train.y, more.y])))


def sr_attacked(net: nn.Sequential, x: Tensor, y: Tensor, radius: float, phase: Phase, rng: torch.Generator) -> Tensor:
    """Cross entropy at the end of an attack on the distance of the outputs, which rests at DELTA."""
    prop = StandardRobustness(radius, delta=DELTA, norm="inf")
    with torch.no_grad():
        start = net(x)

    def climb(point: Tensor) -> Tensor:
        return excess(prop, net, point, x, y, start).clamp(max=0).sum()

    point = perturb(net, x, y, radius, phase.steps, phase.size * radius, rng, climb=climb)
    return torch.nn.functional.cross_entropy(net(point), y)


def recipe_of(name: str, epochs: int | None) -> Recipe:
    """The recipe `published`, clean or attacked."""
    attacked = name in ("adversarial", "sr-attack", "sr-attack-50")
    recipe = default_recipe("fashion-mnist", "fc100", EPS if attacked else 0.0, name="published", epochs=epochs)
    return replace(recipe, phases=(Phase(recipe.epochs, 50, 0.1),)) if name == "sr-attack-50" else recipe


def line(name: str, data: ImageSet, folder: Path, epochs: int | None) -> dict[str, float]:
    """Train and measure."""
    ours: Callable[..., object] = training.loss_of
    if name.startswith("sr-attack"):
        training.loss_of = lambda recipe: sr_attacked
    images, made = data, 0
    if name.startswith("fgsm"):
        base = training.train(recipe_of("base", epochs), data, folder / "base.pt")
        assert data.test is not None
        more = fgsm_images(base, data.test if name == "fgsm-test" else data.train)
        images, made = with_more(data, more), len(more)
    recipe = recipe_of(name, epochs)
    net = training.train(recipe, images, folder / f"{name}.pt")
    training.loss_of = ours  # type: ignore[assignment]
    found = measure(net, recipe, data, attacked=500)
    assert found is not None
    (under,) = (f["accuracy"] for f in found["under_attack"] if f["radius"] == EPS)
    return {"images": len(images.train), "made": made, "epochs": recipe.epochs, "accuracy": found["accuracy"], "attacked": under}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--only", default=",".join(NAMES[:-1]))
    args = parser.parse_args()
    data = read_npz([args.data], "fashion-mnist")
    args.run.mkdir(parents=True, exist_ok=True)
    lines = []
    for name in args.only.split(","):
        path = args.run / f"{name}.json"
        if not path.exists():
            path.write_text(json.dumps(line(name, data, args.run, args.epochs)))
        found = json.loads(path.read_text())
        counts = (f"{found[k]:,}" for k in ("images", "made", "epochs"))
        lines.append((name, *counts, *(f"{100 * found[k]:.2f}" for k in ("accuracy", "attacked"))))
        print(*lines[-1], flush=True)
    print(table(("regime", "training images", "made", "epochs", "accuracy %", "attacked %"), lines))
    print(load_note())


if __name__ == "__main__":
    main()
