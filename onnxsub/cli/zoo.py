"""`onnxsub zoo list`, `onnxsub zoo train`, `onnxsub zoo export`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxsub.cli.exits import Exit
from onnxsub.cli.option_types import BudgetType, SeedType
from onnxsub.cli.options import Command, output_options
from onnxsub.cli.output import Output
from onnxsub.cli.points import check_writable
from onnxsub.cli.suggest import SuggestingGroup
from onnxsub.cli.zoo_bayes import command as bayes
from onnxsub.cli.zoo_finetune import finetune
from onnxsub.cli.zoo_prune import command as prune
from onnxsub.errors import OptionError
from onnxsub.results import VERSION
from onnxsub.zoo.recipe import RECIPES, Recipe, budget_text, default_recipe, model_name
from onnxsub.zoo.regimes import RADIUS, REGIMES, Regime, make_regime

if TYPE_CHECKING:
    from onnxsub.zoo.card import Card
    from onnxsub.zoo.images import ImageSet

__all__ = ["command"]


@dataclass(frozen=True)
class _Listing:
    """What `zoo list` prints as JSON."""

    keys: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"schema": "onnxsub.zoo-list/1", "version": VERSION, **self.keys}


class _InOrder(SuggestingGroup):
    """Lists its commands in the order of their use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group("zoo", cls=_InOrder, epilog="Example: onnxsub zoo list models")
def command() -> None:
    """Networks to verify: architectures A to G, clean and adversarial training, ONNX files with a card.

    First use: onnxsub zoo list; onnxsub zoo train C --dataset mnist --adv 0.3
    """


@command.command(
    "list",
    short_help="Architectures, data sets, trainings; networks in a folder.",
    cls=Command,
    epilog="Example: onnxsub zoo list models",
)
@click.argument("folder", metavar="[FOLDER]", default="")
@output_options
def list_(folder: str, out: Output) -> int:
    """Architectures, data sets and trainings; with FOLDER, the networks in it that have a card."""
    if folder:
        return _list_cards(folder, out)
    from onnxsub.zoo.architectures import ARCHITECTURES
    from onnxsub.zoo.datasets import DATASETS, cache_folder
    from onnxsub.zoo.recipe import BUDGETS

    shapes = {"1x28x28": (1, 28, 28), "3x32x32": (3, 32, 32)}
    architectures = [
        {
            "name": a.name,
            "layers": a.summary,
            "parameters": {name: a.parameters(shape) for name, shape in shapes.items()},
            "units": {name: a.units(shape) for name, shape in shapes.items()},
        }
        for a in ARCHITECTURES.values()
    ]
    datasets = [
        {"name": d.name, "shape": list(d.shape), "train": d.train, "test": d.test, "budgets": list(BUDGETS[d.name]), "by": d.source}
        for d in DATASETS.values()
    ]
    rows = [
        (d.name, f"{'x'.join(map(str, d.shape))}, {d.train:,} + {d.test:,} images ({d.source}); trainings: clean, adversarial "
         + ", ".join(budget_text(b) for b in BUDGETS[d.name] if b))
        for d in DATASETS.values()
    ]  # fmt: skip
    rows.append(("cache", str(cache_folder())))
    table = [("architecture", *(f"{what} {name}" for name in shapes for what in ("parameters", "units")))]
    for a in ARCHITECTURES.values():
        counts = [f"{n:,}" for shape in shapes.values() for n in (a.parameters(shape), a.units(shape))]
        table.append((f"{a.name}  {a.summary}", *counts))
    out.result(_Listing({"architectures": architectures, "datasets": datasets}), rows, table)
    return Exit.DONE


@command.command(
    "train",
    short_help="Train, measure clean and under attack, write as ONNX.",
    cls=Command,
    epilog="Example: onnxsub zoo train C --dataset mnist --adv 0.3",
)
@click.argument("arch", metavar="ARCH")
@click.option("--dataset", metavar="NAME", help="mnist, fashion-mnist or cifar10: downloaded once; with --data any name.")
@click.option("--data", "files", multiple=True, metavar="FILE", help="Images from an .npz in place of a download; may be repeated.")
@click.option("--array", default="x_train", show_default=True, metavar="NAME", help="Training images in FILE.")
@click.option("--labels", default="y_train", show_default=True, metavar="NAME", help="Their labels.")
@click.option("--test-array", default="x_test", show_default=True, metavar="NAME", help="Test images in FILE, if there are any.")
@click.option("--test-labels", default="y_test", show_default=True, metavar="NAME", help="Their labels.")
@click.option("--adv", type=BudgetType(), default="0", metavar="EPS", help="Adversarial training at this radius: 0.3, or 8/255.")
@click.option("--regime", type=click.Choice(REGIMES), help="What the loss is.  [default: adversarial with --adv, else base]")
@click.option("--eps", type=BudgetType(), metavar="EPS", help=f"Radius of the regime's ball.  [default: {RADIUS:g}]")
@click.option("--alpha", type=float, metavar="A", help="Weight of the cross entropy beside a constraint.  [default: 1]")
@click.option("--beta", type=float, metavar="B", help="Weight of the constraint's loss.  [default: 0.2]")
@click.option("--delta", type=float, metavar="D", help="Of regime sr.  [default: 10]")
@click.option("--eta", type=float, metavar="E", help="Of regime scr.  [default: 0.52]")
@click.option("--lipschitz", type=float, metavar="L", help="Of regime lr.  [default: 10]")
@click.option("--gamma", type=float, metavar="G", help="Of regime confidence.  [default: 0.5]")
@click.option("--norm", type=click.Choice(["inf", "1", "2"]), help="Of the outputs, in regime sr.  [default: inf]")
@click.option("--recipe", "named", type=click.Choice(RECIPES), default=RECIPES[0], show_default=True, help="Named recipe.")
@click.option("--epochs", type=int, metavar="N", help="[default: the recipe's]")
@click.option("--batch", type=int, metavar="N", help="Images per step.  [default: the recipe's]")
@click.option("--rate", type=float, metavar="R", help="Highest learning rate.  [default: the recipe's]")
@click.option("--attacked", type=int, metavar="N", help="Test images that are attacked, the first ones.  [default: all]")
@click.option("--seed", type=SeedType(), default=0, show_default=True, metavar="N", help="Of everything random.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where torch computes.")
@click.option("--threads", type=int, metavar="N", help="[default: all cores]")
@click.option("--checkpoint", metavar="FILE", help="State of the training.  [default: beside the output, .pt]")
@click.option("--restart", is_flag=True, help="Forget the checkpoint.")
@click.option("-o", "--output", metavar="FILE", help="The network; its card lies beside it.  [default: DATA-ARCH-TRAINING.onnx]")
@output_options
def train(
    arch: str,
    dataset: str | None,
    files: tuple[str, ...],
    array: str,
    labels: str,
    test_array: str,
    test_labels: str,
    adv: float,
    regime: str | None,
    eps: float | None,
    named: str,
    epochs: int | None,
    batch: int | None,
    rate: float | None,
    attacked: int | None,
    seed: int,
    device: str,
    threads: int | None,
    checkpoint: str | None,
    restart: bool,
    output: str | None,
    out: Output,
    **parameters: Any,
) -> int:
    """Train ARCH (zoo list), measure it clean and under attack, and write it as ONNX with a card.

    A training that was interrupted goes on where it was when the same command is run again, and gives the same weights.
    """
    if dataset is None and not files:
        raise click.UsageError("no images: say which images: --dataset mnist, or --data FILE.npz")
    if threads is not None and threads < 1:
        raise OptionError(f"--threads {threads} is not possible; give 1 or more, or leave it out for all cores")
    name = dataset or Path(files[0]).stem
    chosen, budget = _regime(adv, regime, eps, parameters)
    recipe = default_recipe(name, arch, budget, name=named, regime=chosen, epochs=epochs, seed=seed)
    recipe = replace(recipe, batch=recipe.batch if batch is None else batch, rate=recipe.rate if rate is None else rate)
    output = output or f"{model_name(recipe)}.onnx"
    checkpoint = checkpoint or str(Path(output).with_suffix(".pt"))
    for path, endings in ((output, (".onnx",)), (str(Path(output).with_suffix(".json")), (".json",)), (checkpoint, (".pt",))):
        check_writable(path, endings)
    if restart:
        Path(checkpoint).unlink(missing_ok=True)

    import torch

    from onnxsub.zoo.pipeline import exported, trained, write_model

    if threads is not None:
        torch.set_num_threads(threads)
    arrays = {"array": array, "labels": labels, "test-array": test_array, "test-labels": test_labels}
    again = _again(recipe, named, dataset, files, arrays)
    again += "" if attacked is None else f" --attacked {attacked}"
    with out.progress() as report:
        data = _images(name, files, (array, labels), (test_array, test_labels), report)
        try:
            state = trained(recipe, data, checkpoint, command=again, device=device, attacked=attacked, progress=report)
        except KeyboardInterrupt:
            if Path(checkpoint).exists():
                out.note(f"{checkpoint} holds the training so far; run the same command again and it goes on")
            raise
        proto, card = exported(state, data)
    card_file = write_model(proto, card, output)
    _say(card, {"model": output, "card": str(card_file), "checkpoint": checkpoint}, out)
    return Exit.DONE


command.add_command(finetune)


@command.command(
    "export",
    short_help="Write a finished training as ONNX.",
    cls=Command,
    epilog="Example: onnxsub zoo export mnist-c-clean.pt --batch 1 -o mnist-c-clean.onnx",
)
@click.argument("checkpoint", metavar="CHECKPOINT")
@click.option("--batch", type=click.Choice(["N", "1"]), default="N", show_default=True, help="Rows: any number, or one.")
@click.option("--clamp", type=click.Choice(["clip", "relu"]), default="clip", show_default=True, help="How a clamp is written.")
@click.option("-o", "--output", metavar="FILE", help="The network; its card lies beside it.  [default: CHECKPOINT.onnx]")
@output_options
def export(checkpoint: str, batch: str, clamp: str, output: str | None, out: Output) -> int:
    """Write a finished training as ONNX: opset 13, IR 8, images in [0, 1] in, logits out, the same values as torch."""
    output = output or str(Path(checkpoint).with_suffix(".onnx"))
    for path, endings in ((output, (".onnx",)), (str(Path(output).with_suffix(".json")), (".json",))):
        check_writable(path, endings)
    from onnxsub.zoo.checkpoint import read_checkpoint
    from onnxsub.zoo.pipeline import exported, write_model

    proto, card = exported(read_checkpoint(checkpoint), one_row=batch == "1", relus=clamp == "relu")
    card_file = write_model(proto, card, output)
    _say(card, {"model": output, "card": str(card_file), "checkpoint": checkpoint}, out)
    return Exit.DONE


command.add_command(bayes)
command.add_command(prune)


def _images(name: str, files: tuple[str, ...], train: tuple[str, str], test: tuple[str, str], report: Any) -> ImageSet:
    from onnxsub.zoo.datasets import load_dataset
    from onnxsub.zoo.images import read_npz

    return read_npz(files, name, train=train, test=test) if files else load_dataset(name, progress=report)


def _say(card: Card, written: dict[str, str], out: Output) -> None:
    keys = card.to_json()
    figures, arch, recipe = keys["figures"], keys["architecture"], keys["recipe"]
    epochs, seconds = sum(phase["epochs"] for phase in recipe["phases"]), keys["training"]["seconds"]
    rows = [
        ("network", f"{keys['name']}: {arch['layers']}; {arch['parameters']:,} parameters, {arch['units']:,} units"),
        ("images", f"{keys['data']['name']}, {keys['data']['train']:,} for training"),
        ("training", f"{epochs} epochs, seed {recipe['seed']}, {seconds:.0f} s"),
        *[("note", note) for note in keys["notes"]],
    ]
    if figures is None:
        rows.append(("accuracy", "not measured: there are no test images"))
    else:
        rows.append(("accuracy", f"{figures['accuracy']:.2%} of {figures['test_images']:,} test images"))
        many = figures["attack"].get("images", figures["test_images"])
        of = "" if many == figures["test_images"] else f" (the first {many:,})"
        rows += [("under attack", f"{line}{of}") for line in _attacked(keys)]
    rows += [
        ("written", f"{written['model']}  (opset {keys['file']['opset']}, {keys['file']['bytes'] / 1024:.0f} kB)"),
        ("card", written["card"]),
        ("checkpoint", written["checkpoint"]),
    ]
    out.result(replace(card, keys={**keys, "written": written}), rows)


def _attacked(card: dict[str, Any]) -> list[str]:
    return [f"{f['accuracy']:.2%} at {budget_text(f['radius'])}" for f in card["figures"]["under_attack"]]


def _list_cards(folder: str, out: Output) -> int:
    from onnxsub.zoo.pipeline import read_cards

    cards = read_cards(folder)
    table = [("network", "units", "test images", "accuracy", "under attack")]
    for card in cards:
        figures = card["figures"]
        measured = ("", "", "") if figures is None else (
            f"{figures['test_images']:,}", f"{figures['accuracy']:.2%}", ", ".join(_attacked(card)),
        )  # fmt: skip
        table.append((card["path"], f"{card['architecture']['units']:,}", *measured))
    out.result(_Listing({"networks": cards}), [("networks", f"{len(cards)} with a card in {folder}")], table if cards else ())
    return Exit.DONE


def _regime(adv: float, regime: str | None, eps: float | None, parameters: dict[str, Any]) -> tuple[Regime | None, float]:
    """The regime and the radius that the options say."""
    if adv and (regime or eps is not None):
        raise click.UsageError("--adv is --regime adversarial with --eps; give one of the two")
    if regime is None and eps is not None:
        raise click.UsageError("--eps is the radius of a regime; give --regime too")
    regime = regime or ("adversarial" if adv else "base")
    if regime == "base" and eps:
        raise click.UsageError("regime base has no radius; leave out --eps")
    radius = adv or (0.0 if regime == "base" else RADIUS if eps is None else eps)
    if regime == "adversarial" and not radius:
        raise click.UsageError("regime adversarial needs a radius; give a positive --eps")
    return make_regime(regime, **parameters), radius


def _again(recipe: Recipe, named: str, dataset: str | None, files: tuple[str, ...], arrays: dict[str, str]) -> str:
    """The command that trains this again; files by their names, wherever they lie."""
    usual = default_recipe(recipe.data, recipe.architecture, recipe.budget, name=named, regime=recipe.regime)
    words = ["onnxsub", "zoo", "train", recipe.architecture]
    words += ["--dataset", dataset] if dataset else []
    for file in files:
        words += ["--data", Path(file).name]
    for option, value in arrays.items():
        where, _, part = option.rpartition("-")
        if files and value != f"{'x' if part == 'array' else 'y'}_{where or 'train'}":
            words += [f"--{option}", value]
    if recipe.regime is None:
        words += ["--adv", budget_text(recipe.budget)] if recipe.budget else []
    else:
        words += ["--regime", recipe.regime.name, "--eps", budget_text(recipe.budget)]
        default = make_regime(recipe.regime.name)
        for key, value in recipe.regime.to_json().items():
            if value != getattr(default, key):
                words += [f"--{key}", str(value)]
    words += ["--recipe", named] if named != RECIPES[0] else []
    for name in ("epochs", "batch", "rate", "seed"):
        value = getattr(recipe, name)
        if value != getattr(usual, name):
            words += [f"--{name}", f"{value!r}"]
    return shlex.join(words)
