"""The study of accuracy against robustness: does a more accurate network stand more, and do pruning and averaging matter.

Every network of a grid is trained, pruned or sampled, written as a file with a card, and attacked on as many test images as the
wanted error takes. Three figures per network, each with its interval:

    class       share of images whose predicted class the attack could not change
    softmax     share of images of which it could not change a probability by more than 1/2
    change      mean of the largest change of a probability that it found

Attacks do not prove: the true shares may be lower, the true mean higher. The grid says by which attack the shares are found:
`batch` is a run of `onnxsub robustness` over all networks (the folder `runs/`), which has engines, a ledger and a report of its
own, `fast` some ascents (`ascend`), a tenth of the work and weaker. The change is found by these in both cases.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxsub.errors import DivergedError, InputError, OptionError
from onnxsub.evaluate.drive import RunOptions
from onnxsub.evaluate.many.settings import ManySettings
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.samples import PREDICTED, Choice, read_samples
from onnxsub.files import write_atomic
from onnxsub.lower import lower
from onnxsub.metrics.intervals import clopper_pearson, hoeffding_interval, require_samples
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.results import VERSION
from onnxsub.runtime import Runtime
from onnxsub.study.steps import Steps
from onnxsub.study.tradeoff_grid import Grid, Member
from onnxsub.zoo.attacks import perturb
from onnxsub.zoo.checkpoint import Checkpoint
from onnxsub.zoo.images import ImageSet, Labelled
from onnxsub.zoo.iterative import pruned
from onnxsub.zoo.pipeline import exported, trained, write_model
from onnxsub.zoo.posterior import posterior
from onnxsub.zoo.train import on_unit_scale

__all__ = ["MEASURES", "TradeoffResult", "ascend", "prepare", "study_tradeoff"]

MEASURES: Mapping[str, str] = {
    "class": "share whose class stands", "softmax": "share with no softmax change above 0.5", "change": "1 - mean softmax change",
}  # fmt: skip
"""Figures of a network, each the larger the more robust, and their words."""

HALF = 0.5  # a change of a probability that counts
_STEPS, _STARTS = 20, 2  # of `ascend`
_ATTACKED = 100  # test images of the attack that a card speaks of
_COMMAND = "onnxsub study tradeoff"

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class TradeoffResult:
    """What the study found.

    Attributes:
        data: name of the images. grid: that was asked. images: test images that were attacked.
        networks: `name`, `kind`, the values of the grid, `parameters`, `accuracy`, `test_images`, `seconds` of making it, and for
            each of `MEASURES` `{"value", "lower", "upper"}`; of a Bayesian one `rhat` and `accepted`.
        diverged: names of those without figures.
    """

    data: str
    grid: Grid
    images: int
    networks: tuple[Mapping[str, Any], ...] = field(default=())
    diverged: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.study-tradeoff/1`."""
        return {
            "schema": "onnxsub.study-tradeoff/1", "version": VERSION, "data": self.data, "grid": self.grid.to_json(),
            "images": self.images, "networks": list(self.networks), "diverged": list(self.diverged),
        }  # fmt: skip


def prepare(
    data: ImageSet, grid: Grid, folder: Path, *, part: tuple[int, int] = (1, 1), progress: Report | None = None
) -> tuple[dict[str, Any], ...]:
    """The networks of the grid as files with cards, and what is known of each; what the folder holds of them is not done again.

    Args:
        part: `(i, n)`: every n-th network from the i-th on, so that n processes share the work in one folder.

    Raises:
        InputError: there are no test images, or too few; the folder is of another study. OptionError: no such part.
        MissingDependencyError: Pyro is not installed, and the grid has Bayesian networks. OutputError.
    """
    steps, data = _opened(data, grid, folder)
    i, n = part
    if not 1 <= i <= n:
        raise OptionError(f"--part {i}/{n} is none; give for example 1/8 to 8/8")
    mine = grid.members[i - 1 :: n]
    found = []
    for k, member in enumerate(mine):

        def say(share: float, text: str, k: int = k, name: str = member.name) -> None:
            if progress is not None:
                progress((k + share) / len(mine), f"{name}: {text}")

        say(0.0, "begins")
        found.append(steps.once(f"network/{member.name}", partial(_made, member, data, grid, folder, say)))
    return tuple(found)


def study_tradeoff(
    data: ImageSet, grid: Grid, folder: Path, options: RunOptions | None = None, *, progress: Report | None = None
) -> TradeoffResult:
    """Make the networks, attack them, correlate; what `folder` holds of it is not done again.

    Args:
        options: how the attacks on the networks are shared out.

    Raises:
        InputError, OptionError, MissingDependencyError, OutputError: as `prepare`.
        KeyboardInterrupt: the attacks were interrupted; the same call goes on.
    """
    steps, data = _opened(data, grid, folder)
    whole = progress or (lambda share, text: None)
    made = prepare(data, grid, folder, progress=lambda share, text: whole(0.6 * share, text))
    good = [record for record in made if not record["diverged"]]
    assert data.test is not None
    attacked = data.test.first(grid.images)
    shares: dict[str, dict[str, Any]] = {record["name"]: {} for record in good}
    groups = (("networks", "confidence"), ("means", "sr")) if grid.attack == "batch" else ()
    for at, (group, prop) in enumerate(groups):
        names = [record["name"] for record in good if (record["kind"] == "bayes") == (group == "means")]
        if names:

            def say(share: float, text: str, at: int = at) -> None:
                whole(0.6 + 0.15 * (at + share), f"attacks: {text}")

            shares |= _attacked(folder, group, prop, names, attacked, grid, options or RunOptions(), say)
    networks = []
    for k, record in enumerate(good):
        whole(0.9 + 0.1 * k / len(good), f"{record['name']}: ascents")
        ascended = steps.once(f"ascents/{record['name']}", partial(_ascended, record, folder, attacked, grid))
        networks.append({**record, **ascended, **shares[record["name"]]})
    return TradeoffResult(data.name, grid, len(attacked), tuple(networks), tuple(r["name"] for r in made if r["diverged"]))


def _opened(data: ImageSet, grid: Grid, folder: Path) -> tuple[Steps, ImageSet]:
    """The folder, and the images that the grid trains on."""
    if data.test is None:
        raise InputError(f"data set {data.name!r} has no test images, which a study needs; name them with --test-array")
    require_samples(len(data.test), grid.error, grid.confidence)
    data = replace(data, train=data.train.first(grid.train))
    files = {"train_sha256": data.train.sha256, "test_sha256": data.test.sha256}  # type: ignore[union-attr]  # seen above
    return Steps(folder, {**grid.to_json(), "data": data.name, **files}), data


def _made(member: Member, data: ImageSet, grid: Grid, folder: Path, say: Report) -> dict[str, Any]:
    """Train, prune or sample a network, write it, and say what is known of it."""
    known: dict[str, Any] = {"name": member.name, "kind": member.kind, **member.values}
    stem = folder / member.name
    more: dict[str, Any] = {}
    try:
        if member.kind == "bayes":
            found = posterior(
                member.posterior(data.name, grid.seed), data, folder / "chains" / member.name, members=member.values["members"],
                attacked=_ATTACKED, command=_COMMAND, progress=say,
            )  # fmt: skip
            proto, card = found.proto, found.card
            more = {"rhat": found.mixing.to_json(), "accepted": [chain.accepted for chain in found.chains]}
        else:
            base = member.base() if member.kind == "pruned" else member
            state = _trained(base, data, grid, folder, say)
            if member.kind == "pruned":
                proto, card = pruned(state, data, member.pruning, stem, attacked=_ATTACKED, command=_COMMAND, progress=say)
            else:
                proto, card = exported(state, data)
    except DivergedError:
        return {**known, "diverged": True}
    write_model(proto, card, stem.with_name(f"{stem.name}.onnx"))
    keys = card.to_json()
    figures = keys["figures"]
    return {
        **known, "diverged": False, "parameters": keys["architecture"]["parameters"], "accuracy": figures["accuracy"],
        "test_images": figures["test_images"], "seconds": keys["training"]["seconds"], **more,
    }  # fmt: skip


def _trained(member: Member, data: ImageSet, grid: Grid, folder: Path, say: Report) -> Checkpoint:
    """The finished training of a network without pruning; the pruned ones of the same begin with it."""
    path = folder / f"{member.name}.pt"
    return trained(member.recipe(data.name, grid.seed), data, path, command=_COMMAND, attacked=_ATTACKED, progress=say)


def _attacked(
    folder: Path, group: str, prop: str, names: Sequence[str], images: Labelled, grid: Grid, options: RunOptions, say: Report
) -> dict[str, dict[str, Any]]:
    """Name -> the shares that stand, of the class and of the softmax, with their intervals.

    Args:
        prop: what says of these files that a probability changes: of their outputs, or of the softmax of these.
    """
    file = folder / "attacked.npy"
    if not file.exists():
        _save(on_unit_scale(torch.from_numpy(images.x)).numpy(), file)
    bound = {"delta": HALF} if prop == "sr" else {"gamma": HALF}
    shared = {**bound, "confidence": grid.confidence, "seed": grid.seed}
    settings = ManySettings(("security",), ("cr", prop), (grid.eps,), shared=shared)
    samples = read_samples(file, Choice(), None, PREDICTED)
    plan = Plan.of(tuple(str(folder / f"{name}.onnx") for name in names), samples, settings)
    run = robustness(plan, folder / "runs" / group, options, progress=say)
    if run.interrupted:
        raise KeyboardInterrupt
    if not run.finished:
        raise InputError(f"the attacks in {str(folder / 'runs' / group)!r} are not finished; run the same command again")
    for reason, count in run.failures.items():
        raise InputError(f"{count} attacks in {str(folder / 'runs' / group)!r} failed: {reason}; run it with --retry-failed")
    found: dict[str, dict[str, Any]] = {}
    for cell in run.cells:
        m = cell.measure
        assert m.interval is not None  # of a run that is finished
        figures = {"value": m.lower, "lower": m.interval.lower, "upper": m.interval.upper}
        found.setdefault(cell.model, {})["class" if cell.settings.prop == "cr" else "softmax"] = figures
    return found


def _ascended(record: Mapping[str, Any], folder: Path, images: Labelled, grid: Grid) -> dict[str, dict[str, float]]:
    """All figures by `ascend`, each with its interval."""
    model = load_model(folder / f"{record['name']}.onnx")
    stands, change = ascend(model, images, grid.eps, means=record["kind"] == "bayes", seed=grid.seed)
    mean = hoeffding_interval(float(1 - change.mean()), len(change), grid.confidence)
    found = {"change": {"value": float(1 - change.mean()), "lower": mean.lower, "upper": mean.upper}}
    for name, kept in (("class", stands), ("softmax", change <= HALF)):
        share = clopper_pearson(int(kept.sum()), len(kept), grid.confidence)
        found[name] = {"value": float(kept.mean()), "lower": share.lower, "upper": share.upper}
    return found


def ascend(model: Model, images: Labelled, eps: float, *, means: bool, seed: int = 0) -> tuple[Array, Array]:
    """A quick attack on all images at once: which predicted classes stand, and the largest change of a probability found, `(N,)`.

    Projected sign gradients up the margin of another class and up the change itself, some random starts each; both figures are
    read off all ends, by onnxruntime on the file.

    Args:
        means: the file's outputs are probabilities.
    """
    network, runtime = lower(model), Runtime(model)
    x, y = on_unit_scale(torch.from_numpy(images.x)), torch.from_numpy(images.y)

    def probabilities(f: torch.Tensor) -> torch.Tensor:
        return f if means else f.softmax(1)

    def real(points: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(runtime.logits(points.numpy()).astype(np.float64))

    begun = real(x)
    own = torch.nn.functional.one_hot(begun.argmax(1), begun.shape[1]).bool()
    with torch.no_grad():
        p0 = probabilities(network.forward(x))

    def margin(point: torch.Tensor) -> torch.Tensor:
        f = network.forward(point)
        return (f.masked_fill(own, -torch.inf).amax(1) - f[own]).sum()

    def change(point: torch.Tensor) -> torch.Tensor:
        return (probabilities(network.forward(point)) - p0).abs().amax(1).sum()

    rng = torch.Generator().manual_seed(seed)
    stands, largest = torch.ones(len(x), dtype=torch.bool), torch.zeros(len(x), dtype=torch.float64)
    for climb in (margin, change) * _STARTS:
        ends = real(perturb(torch.nn.Identity(), x, y, eps, _STEPS, 2.5 * eps / _STEPS, rng, climb=climb))
        stands &= ends.argmax(1) == begun.argmax(1)
        largest = torch.maximum(largest, (probabilities(ends) - probabilities(begun)).abs().amax(1))
    return stands.numpy(), largest.clamp(max=1).numpy()


def _save(x: Array, file: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, x)
    write_atomic(file, buffer.getvalue())
