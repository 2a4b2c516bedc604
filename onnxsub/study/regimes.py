"""The study of training regimes: accuracy, security over the radius, and what holds for sure, regime by regime.

Source: Casadio et al. 2022, "Neural Network Robustness as a Verification Property". Steps: one training per architecture and
regime; one attack per network; one decision per network of the smallest architecture, property and verifier, in blocks of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxsub.budget import check_whole
from onnxsub.errors import InputError, OptionError
from onnxsub.metrics.local import LocalOptions, LocalProperty, decide_local
from onnxsub.model import load_model, save_model
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.results import VERSION
from onnxsub.study.steps import Steps
from onnxsub.zoo.checkpoint import Checkpoint
from onnxsub.zoo.images import ImageSet, Labelled
from onnxsub.zoo.losses import attack_constraint, excess
from onnxsub.zoo.pipeline import exported, network_of, trained, write_model
from onnxsub.zoo.recipe import Recipe, default_recipe, model_name
from onnxsub.zoo.regimes import REGIMES, make_regime
from onnxsub.zoo.train import on_unit_scale

__all__ = ["PROPERTIES", "RegimesOptions", "RegimesResult", "study_regimes"]

PROPERTIES = ("cr", "scr", "sr", "lr")
"""Whose attack the networks are put to."""

_BLOCK = 10
_STEPS = 20  # of an attack, 2.5 radii / steps each
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class RegimesOptions:
    """What is trained and asked.

    Attributes:
        architectures: the last one is the one that properties are decided on.
        regimes: trained. decided: those of them whose networks are decided on.
        recipe, epochs, seed: of every training. eps: radius of every regime, and of what is decided.
        radii: of the attacks, ascending. attacked: test images that are attacked, the first ones. images: those that are decided.
        asked: properties that are decided. timeout: seconds for each decision.
        marabou: interpreter that has maraboupy; None: it is not asked. marabou_images: that many of `images`.
    """

    architectures: tuple[str, ...] = ("fc100", "fc30")
    regimes: tuple[str, ...] = tuple(r for r in REGIMES if r not in ("cr", "confidence"))
    decided: tuple[str, ...] = ("base", "scr", "sr", "lr")
    recipe: str = "published"
    epochs: int | None = None
    seed: int = 0
    eps: float = 0.1
    radii: tuple[float, ...] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
    attacked: int = 500
    images: int = 200
    asked: tuple[str, ...] = ("cr", "sr", "lr")
    timeout: float = 20.0
    marabou: str | None = None
    marabou_images: int = 200

    def __post_init__(self) -> None:
        for regime in (*self.regimes, *self.decided):
            if regime not in REGIMES:
                raise OptionError(f"there is no regime {regime!r}; choose among {', '.join(REGIMES)}")
        if not self.regimes or not self.architectures:
            raise OptionError("a study of no network is none; give at least one regime and one architecture")
        if min(self.attacked, self.images, self.marabou_images) < 1 or not self.timeout > 0 or not self.eps > 0:
            raise OptionError("numbers of images, --timeout and --eps must be positive; change them")
        if not self.radii or not all(math.isfinite(r) and r > 0 for r in self.radii):
            raise OptionError("--radii must be positive; give for example 0.05,0.1,0.2")
        for name in ("architectures", "regimes", "decided", "radii"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise OptionError(f"--{name} {','.join(map(str, values))} names something twice; give each once")
        object.__setattr__(self, "radii", tuple(sorted(self.radii)))  # shares stand in this order

    def recipe_of(self, data: str, arch: str, regime: str) -> Recipe:
        """The recipe of one network."""
        radius = 0.0 if regime == "base" else self.eps
        return default_recipe(
            data, arch, radius, name=self.recipe, regime=make_regime(regime), epochs=self.epochs, seed=self.seed
        )


@dataclass(frozen=True)
class RegimesResult:
    """What the study found so far: one record per network.

    Attributes:
        networks: `name`, `architecture`, `regime`, `accuracy`, `test_images`, `attacked_images`, `secure` {property: share per
            radius} and, where it is decided on, `decided` {property: {verifier: {status: count}}} and `contradictions`.
        interrupted: networks are missing, or questions of the last one.
    """

    data: str
    options: RegimesOptions
    networks: tuple[Mapping[str, Any], ...] = field(default=())
    interrupted: bool = False

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.study-regimes/1`."""
        return {
            "schema": "onnxsub.study-regimes/1", "version": VERSION, "data": self.data, **asdict(self.options),
            "networks": list(self.networks), "interrupted": self.interrupted,
        }  # fmt: skip


def study_regimes(data: ImageSet, options: RegimesOptions, folder: Path, *, progress: Report | None = None) -> RegimesResult:
    """Train, attack, decide; what `folder` holds of it is not done again. Interrupted, it says what it has.

    Raises:
        InputError: there are no test images; the folder is of another study; a training diverged. OptionError, OutputError.
    """
    if data.test is None:
        raise InputError(f"data set {data.name!r} has no test images, which a study needs; name them with --test-array")
    # neither the interpreter nor how many images it is asked about decides a result that is there
    files = {"train_sha256": data.train.sha256, "test_sha256": data.test.sha256}
    steps = Steps(folder, {**asdict(options), "data": data.name, **files, "marabou": None, "marabou_images": None})
    found: list[dict[str, Any]] = []
    interrupted = False
    try:
        _all_networks(steps, data, options, found, progress)
    except KeyboardInterrupt:
        interrupted = True
    found.sort(key=lambda record: (options.architectures.index(record["architecture"]), options.regimes.index(record["regime"])))
    return RegimesResult(data.name, options, tuple(found), interrupted)


def _all_networks(
    steps: Steps, data: ImageSet, options: RegimesOptions, found: list[dict[str, Any]], progress: Report | None
) -> None:
    """Appends the record of every network, those that are decided on first; the last one is a part after an interruption."""
    assert data.test is not None  # `study_regimes` has looked
    todo = [(arch, regime) for arch in options.architectures for regime in options.regimes]
    todo.sort(key=lambda pair: not (pair[0] == options.architectures[-1] and pair[1] in options.decided))
    for i, (arch, regime) in enumerate(todo):
        name = model_name(options.recipe_of(data.name, arch, regime))

        def say(text: str, share: float = i / len(todo), name: str = name) -> None:
            if progress is not None:
                progress(share, f"{name}: {text}")

        say("training")
        state = _trained(steps, data, options.recipe_of(data.name, arch, regime))
        assert state.card is not None
        say("attacks")
        record: dict[str, Any] = {
            "name": name, "architecture": arch, "regime": regime, "accuracy": state.card["figures"]["accuracy"],
            "test_images": state.card["figures"]["test_images"], "attacked_images": min(options.attacked, len(data.test)),
            "secure": steps.once(
                f"security/{name}", partial(_security, state, steps.folder / f"{name}.onnx", data.test, options)
            ),
        }  # fmt: skip
        found.append(record)
        if arch == options.architectures[-1] and regime in options.decided:
            statuses: dict[tuple[str, str], list[str]] = {}
            try:
                _decide(steps, state, data.test, options, statuses, say)
            finally:
                record |= _counted(statuses)


def _trained(steps: Steps, data: ImageSet, recipe: Recipe) -> Checkpoint:
    """The finished training; its files lie in the folder."""
    stem = steps.folder / model_name(recipe)
    state = trained(recipe, data, stem.with_name(f"{stem.name}.pt"), command="onnxsub study regimes", attacked=500)
    if not stem.with_name(f"{stem.name}.json").exists():
        write_model(*exported(state, data), stem.with_name(f"{stem.name}.onnx"))
    return state


def _constraint(name: str, eps: float) -> LocalProperty:
    """The property with the parameters that its regime has."""
    regime = make_regime(name)
    assert regime is not None
    return regime.constraint(eps)


def _security(state: Checkpoint, file: Path, test: Labelled, options: RegimesOptions) -> dict[str, list[float]]:
    """Property -> share of test images on which its attack found no violation, per radius. A violation is one by replay.

    A point of a smaller ball lies in the larger ones too, and the image itself in all of them.
    """
    net, model, n = network_of(state), load_model(file), min(options.attacked, len(test))
    x, y = on_unit_scale(torch.from_numpy(test.x[:n])), torch.from_numpy(test.y[:n])
    queries = [make_query(model, x[i].numpy(), int(y[i]), space=InputSpace(), threads=1) for i in range(n)]
    shares: dict[str, list[float]] = {}
    for name in PROPERTIES:
        rng = torch.Generator().manual_seed(options.seed)
        broken, shares[name] = np.zeros(n, dtype=bool), []
        for radius in options.radii:
            prop = _constraint(name, radius)
            ends = attack_constraint(prop, net, x, y, radius, _STEPS, 2.5 * radius / _STEPS, rng)
            for points in (x, ends):
                with torch.no_grad():
                    e = excess(prop, net, points, x, y).numpy()
                for i in np.flatnonzero((e >= 0) & ~broken):
                    broken[i] = bool(prop.measure(queries[i], points[i].numpy()[None]).violated[0])
            shares[name].append(float(1 - broken.mean()))
    return shares


def _decide(
    steps: Steps, state: Checkpoint, test: Labelled, options: RegimesOptions, statuses: dict[tuple[str, str], list[str]],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Fills `statuses`: (property, verifier) -> the status of each image, in their order."""
    n, name = min(options.images, len(test)), model_name(state.recipe)
    relus = steps.folder / f"{name}.relus.onnx"
    if options.marabou is not None and not relus.exists():
        save_model(exported(state, relus=True)[0], relus)
    asked: list[tuple[str, Path, str, int]] = [("bab", steps.folder / f"{name}.onnx", "bab", n)]
    if options.marabou is not None:
        asked.append(("marabou", relus, f"marabou:{options.marabou}", min(n, options.marabou_images)))
    for prop in options.asked:
        for verifier, file, chosen, count in asked:
            if verifier == "marabou" and prop == "lr":
                continue  # no VNN-LIB text says it
            for start in range(0, count, _BLOCK):
                say(f"{prop} by {verifier}, image {start + 1} of {count}")
                rows = range(start, min(start + _BLOCK, n))
                words = steps.once(
                    f"decided/{name}/{prop}-{verifier}-{start:04d}",
                    partial(_block, file, test, rows, prop, chosen, options),
                )
                statuses.setdefault((prop, verifier), []).extend(words[: count - start])


def _counted(statuses: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, Any]:
    """Counts of every status by each verifier, and how often one proved what another one refuted."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (prop, verifier), words in statuses.items():
        counts.setdefault(prop, {})[verifier] = {word: words.count(word) for word in sorted(set(words))}
    contradictions = sum(
        {a, b} == {"proved", "violated"}
        for prop in counts
        for a, b in zip(statuses.get((prop, "bab"), ()), statuses.get((prop, "marabou"), ()), strict=False)
    )
    return {"decided": counts, "contradictions": contradictions}


def _block(file: Path, test: Labelled, rows: Sequence[int], prop: str, verifier: str, options: RegimesOptions) -> list[str]:
    """The status of each row."""
    model, words = load_model(file), []
    for i in rows:
        x = on_unit_scale(torch.from_numpy(test.x[i : i + 1]))[0].numpy()
        query: Query = make_query(model, x, int(test.y[i]), space=InputSpace(), threads=1)
        how = LocalOptions(verifier=verifier, timeout=options.timeout, seed=options.seed)
        decided = decide_local(query, _constraint(prop, options.eps), how)
        check_whole(decided.interrupted)
        words.append(decided.status)
    return words
