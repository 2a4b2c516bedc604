"""`onnxsub zoo bayes`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable

__all__ = ["command"]


@dataclass(frozen=True)
class _Answer:
    """What is printed as JSON."""

    keys: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.keys


@click.command(
    "bayes",
    short_help="Sample a Bayesian network, write it as one ONNX file.",
    cls=Command,
    epilog="Example: onnxsub zoo bayes mlp:64 --dataset mnist --images 5000 --run chains -o bayes.onnx",
)
@click.argument("arch", metavar="ARCH")
@click.option("--dataset", metavar="NAME", help="mnist, fashion-mnist or cifar10: downloaded once; with --data any name.")
@click.option("--data", "files", multiple=True, metavar="FILE", help="Images from an .npz in place of a download; may be repeated.")
@click.option("--images", type=int, metavar="N", help="Training images, the first ones.  [default: all]")
@click.option("--prior", type=float, metavar="S", help="Deviation of a weight, times 1/sqrt(inputs of its layer).  [default: 1]")
@click.option("--step", type=float, metavar="E", help="Length of a leapfrog step at the start.  [default: 0.05]")
@click.option("--steps", type=int, metavar="N", help="Of a trajectory, at that length.  [default: 30]")
@click.option("--no-adapt", is_flag=True, help="Keep the step in the warm-up.")
@click.option("--warm-up", type=int, metavar="N", help="Trajectories that are thrown away.  [default: 50]")
@click.option("--samples", type=int, metavar="N", help="Per chain.  [default: 100]")
@click.option("--chains", type=int, metavar="N", help="[default: 4]")
@click.option("--seed", type=SeedType(), metavar="N", help="Of everything random.  [default: 0]")
@click.option("--members", type=int, default=20, show_default=True, metavar="K", help="Networks in the file.")
@click.option("--attacked", type=int, metavar="N", help="Test images that are attacked, the first ones.  [default: all]")
@click.option("--run", "folder", required=True, metavar="DIR", help="Folder of the chains; the same command goes on in it.")
@click.option("-o", "--output", metavar="FILE", help="The network; its card lies beside it.  [default: DATA-ARCH-hmc.onnx]")
@output_options
def command(
    arch: str,
    dataset: str | None,
    files: tuple[str, ...],
    images: int | None,
    no_adapt: bool,
    members: int,
    attacked: int | None,
    folder: str,
    output: str | None,
    out: Output,
    **given: Any,
) -> int:
    """Sample the weights of ARCH (zoo list) by Hamiltonian Monte Carlo and write the mean of the softmaxes of K of them as ONNX.

    Says how many trajectories were accepted and whether the chains agree (R-hat of the predictions). Needs the extra `bayes`.
    """
    if dataset is None and not files:
        raise click.UsageError("no images: say which images: --dataset mnist, or --data FILE.npz")
    from onnxsub.zoo.bayes import BayesRecipe, hamiltonian
    from onnxsub.zoo.datasets import load_dataset
    from onnxsub.zoo.images import ImageSet, read_npz
    from onnxsub.zoo.pipeline import write_model
    from onnxsub.zoo.posterior import MIXED, posterior

    name = dataset or Path(files[0]).stem
    chosen = {key: value for key, value in given.items() if value is not None}
    recipe = replace(BayesRecipe(name, arch), **chosen, adapt=not no_adapt)
    output = output or f"{recipe.model_name}.onnx"
    for path, endings in ((output, (".onnx",)), (str(Path(output).with_suffix(".json")), (".json",))):
        check_writable(path, endings)
    hamiltonian()
    words = [f"--{k.replace('_', '-')} {v}" for k, v in (("images", images), *sorted(chosen.items())) if v is not None]
    words += ["--no-adapt"] if no_adapt else []
    source = f"--dataset {dataset}" if dataset else f"--data {Path(files[0]).name}"
    again = " ".join([f"onnxsub zoo bayes {arch} {source}", *words, f"--members {members}"])
    with out.progress() as report:
        data = read_npz(files, name) if files else load_dataset(name, progress=report)
        data = ImageSet(data.name, data.train.first(images), data.test, data.sources)
        found = posterior(recipe, data, Path(folder), members=members, attacked=attacked, command=again, progress=report)
    card = write_model(found.proto, found.card, output)
    keys = found.card.to_json()
    mixing, figures = found.mixing, keys["figures"]
    steps = ", ".join(f"{chain.step:.3g}" for chain in found.chains)
    rows = [
        ("network", f"{keys['name']}: the mean of {members} x {keys['architecture']['layers']}"),
        ("images", f"{recipe.data}, {len(data.train):,} for training"),
        ("samples", f"{recipe.chains} chains of {recipe.samples:,} after {recipe.warm_up:,} thrown away; steps of {steps}"),
        ("accepted", ", ".join(f"{chain.accepted:.0%}" for chain in found.chains)),
        ("R-hat", f"{mixing.largest:.3f} at most, {mixing.most:.3f} for 99 of 100 predictions, median {mixing.median:.3f}"),
        ("accuracy", "not measured: there are no test images" if figures is None
         else f"{figures['accuracy']:.2%} of {figures['test_images']:,} test images"),
        ("written", output),
        ("card", str(card)),
    ]  # fmt: skip
    out.result(_Answer({**keys, "written": {"model": output, "card": str(card), "run": folder}}), rows)
    if not mixing.mixed:
        out.note(
            f"the chains do not agree: {mixing.share:.1%} of the predictions have an R-hat above {MIXED:g}; "
            "take more --samples or a longer --warm-up"
        )
    return Exit.DONE
