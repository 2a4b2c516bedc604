"""The study of importance: a network and what scores leave of it, accuracy, and exact adversarial examples of both.

Source of the scores: ElAraby, Wolf and Carvalho 2020. Steps: the first training; rounds of scoring, removing and retraining;
magnitude and random removal of as many; one unit of work per model, image and target class, as in `onnxsub adversarial --run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from onnxsub.compress.choose import magnitudes, randomly, smallest
from onnxsub.compress.remove import remove_units
from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.drive import RunOptions
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.pairs.run import anchors_for, run_pairs
from onnxsub.evaluate.samples import Samples
from onnxsub.lower import lower
from onnxsub.metrics.adversarial import AdversarialOptions
from onnxsub.metrics.adversarial_pairs import Pairs
from onnxsub.metrics.adversarial_result import objective, verdicts
from onnxsub.metrics.margin import MarginOptions
from onnxsub.metrics.tables import confusion, count_by, spread, try_examples
from onnxsub.model import Model, load_model, save_model
from onnxsub.results import VERSION, jsonable
from onnxsub.study.rounds import RoundsOptions, rounds
from onnxsub.study.steps import Steps
from onnxsub.verifiers.options import Limits
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.pipeline import exported, trained, write_model
from onnxsub.zoo.recipe import Recipe, default_recipe
from onnxsub.zoo.tune import accuracy_of, tuned

__all__ = ["StudyOptions", "StudyResult", "study_importance"]

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class StudyOptions:
    """What is trained, removed and asked.

    Attributes:
        architecture, recipe, epochs, adv, seed: of the first training; `epochs` None: the recipe's.
        rounds: how units are removed and what is left is trained. draws: of random removal of as many.
        eps: radius of the pairs, in units of images in [0, 1]. verifier, tol, timeout: of a pair.
    """

    architecture: str = "mlp:50x2"
    recipe: str = "full"
    epochs: int | None = None
    adv: float = 0.0
    seed: int = 0
    rounds: RoundsOptions = field(default_factory=RoundsOptions)
    draws: int = 10
    eps: float = 0.05
    verifier: str = "bab"
    tol: float = 1e-4
    timeout: float | None = 60.0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise OptionError(f"--draws {self.draws} is not possible; give 1 or more")
        if self.rounds.choice.by != "scores":
            raise OptionError("this study compares scores with the other ways; leave out --by")
        _ = self.pairs

    def recipe_of(self, data: str) -> Recipe:
        """Of the first training."""
        return default_recipe(data, self.architecture, self.adv, name=self.recipe, epochs=self.epochs, seed=self.seed)

    @property
    def pairs(self) -> AdversarialOptions:
        """How a pair is solved."""
        limits = Limits(timeout=self.timeout, threads=1, seed=self.seed)
        return AdversarialOptions(self.eps, margin=MarginOptions(limits, verifier=self.verifier, tol=self.tol))


@dataclass(frozen=True)
class StudyResult:
    """What the study found.

    Attributes:
        models: of `original` and `compressed`: `accuracy`, `units` per layer, `bytes`, `pairs` (counts by verdict), `by_source`,
            `by_target`, `targeted`, `objective` and `seconds` (statistics).
        rounds: as `RoundsResult.rounds`. compared: of as many units by other ways, first round: `accuracy` after the removal.
        transfer: {"A on B": `examples`, `right` (of these the model B gives the true class)}.
        interrupted: pairs are missing. failures: reason -> pairs.
    """

    data: str
    options: StudyOptions
    images: int
    models: Mapping[str, Mapping[str, Any]]
    rounds: tuple[Mapping[str, Any], ...]
    compared: Mapping[str, Any]
    transfer: Mapping[str, Mapping[str, int]]
    interrupted: bool
    failures: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.study-importance/1`."""
        keys = {"schema": "onnxsub.study-importance/1", "version": VERSION, "data": self.data, **asdict(self.options)}
        names = ("images", "models", "compared", "transfer", "interrupted", "failures")
        found: dict[str, Any] = jsonable({**keys, **{n: getattr(self, n) for n in names}, "removal": list(self.rounds)})
        return found


def study_importance(
    data: ImageSet, samples: Samples, options: StudyOptions, folder: Path, run: RunOptions | None = None, *,
    engine: Engine | None = None, progress: Report | None = None,
) -> StudyResult:  # fmt: skip
    """Train, score, remove, retrain, find the examples of both networks; what `folder` holds of it is not done again.

    Args:
        data: trained and measured on. samples: images that the pairs are of. engine: in place of the one that
            `run` names.

    Raises:
        InputError: no test images; the folder is of another study; a training diverged; no unit was removed. OptionError,
        SolverError, UnsupportedOperatorError, MissingDependencyError, OutputError.
    """
    if data.test is None:
        raise InputError(f"data set {data.name!r} has no test images, which a study needs; give an .npz with x_test and y_test")
    recipe = options.recipe_of(data.name)
    steps = Steps(folder, {
        **asdict(options), "data": data.name, "train_sha256": data.train.sha256, "test_sha256": data.test.sha256,
        "samples": [samples.sha256, *samples.index],
    })  # fmt: skip

    def say(begin: float, end: float, text: str) -> Report:
        def report(share: float, said: str) -> None:
            if progress is not None:
                progress(begin + (end - begin) * share, f"{text}: {said}")

        return report

    files = {name: folder / f"{name}.onnx" for name in ("original", "compressed")}
    state = trained(recipe, data, folder / "original.pt", command="onnxsub study importance", attacked=500,
                    progress=say(0.0, 0.1, "training"))  # fmt: skip
    if not files["original"].with_suffix(".json").exists():
        write_model(*exported(state, data), files["original"])
    original = load_model(files["original"])
    done = rounds(original, data, options.rounds, folder / "rounds", progress=say(0.1, 0.2, "compression"))
    removed = {layer["name"]: layer["removed"] for layer in done.rounds[0]["layers"]} if done.rounds else {}
    if not any(removed.values()):
        lowest = options.rounds.choice.threshold
        raise InputError(f"no unit scores below {lowest:g}, so there is nothing to compare; raise --threshold")
    save_model(load_model(done.file).source, files["compressed"])
    compared = {
        "magnitude": steps.once("compared/magnitude", partial(_others, original, data, removed, options, None)),
        **{f"random-{i}": steps.once(f"compared/random-{i}", partial(_others, original, data, removed, options, i))
           for i in range(options.draws)},
    }  # fmt: skip
    paths = tuple(str(file) for file in files.values())
    driven = run_pairs(paths, samples, options.pairs, folder / "pairs", run, engine=engine, progress=say(0.2, 1.0, "pairs"))
    models = {}
    for (name, file), pairs in zip(files.items(), driven.summary, strict=True):
        accuracy = steps.once(f"accuracy/{name}", partial(accuracy_of, load_model(file), data.test))
        models[name] = {"accuracy": accuracy, **_facts(file, pairs)}
    transfer = {}
    for (made, pairs), (tried, file) in zip(zip(files, driven.summary, strict=True), reversed(files.items()), strict=True):
        found = try_examples(pairs, str(file), anchors_for(str(file), samples, options.pairs), options.pairs.space, tried)
        transfer[f"{made} on {tried}"] = {"examples": found.examples, "right": found.examples - found.fooled}
    return StudyResult(
        data.name, options, len(samples.index), models, done.rounds, compared, transfer, driven.interrupted, driven.failures
    )


def _others(
    model: Model, data: ImageSet, counts: Mapping[str, int], options: StudyOptions, draw: int | None
) -> dict[str, float | None]:
    """Accuracy without as many units of each layer: the smallest ones (`draw` None) or those of a random draw; then retrained.

    Only the smallest ones and the first draw are trained.
    """
    assert data.test is not None  # `study_importance` has looked
    network = lower(model)
    sizes = {name: network.shapes[name][0] for name in counts}
    gone = smallest(magnitudes(network), counts) if draw is None else randomly(sizes, counts, (options.seed, draw))
    smaller = load_model(remove_units(model, gone)[0])
    found: dict[str, float | None] = {"removed": accuracy_of(smaller, data.test), "retrained": None}
    if options.rounds.epochs and not draw:
        recipe = options.rounds.recipe(data.name, smaller, options.pairs.space)
        found["retrained"] = accuracy_of(load_model(tuned(smaller, recipe, data)), data.test)
    return found


def _facts(file: Path, pairs: Pairs) -> dict[str, Any]:
    """Size of a model, and what its pairs say."""
    network = lower(load_model(file))
    without = [p for p in pairs.pairs if p.verdict == "none"]
    return {
        "units": [op.out_size for op in network.activations],
        "bytes": file.stat().st_size,
        "misclassified": len(pairs.misclassified),
        "pairs": {"planned": pairs.planned, **verdicts(pairs), "exact": sum(p.status == "exact" for p in pairs.pairs)},
        "by_source": {str(k): v for k, v in count_by(pairs.pairs, "label").items()},
        "by_target": {str(k): v for k, v in count_by(pairs.pairs, "target").items()},
        "targeted": confusion(pairs.pairs, pairs.classes).targeted,
        "predicted": confusion(pairs.pairs, pairs.classes).predicted,
        "objective": {
            "examples": objective(pairs, examples=True).to_json(),
            # the exact minimum where no example exists
            "none": spread(p.upper for p in without if p.status == "exact").to_json(),
            "all": objective(pairs).to_json(),
        },
        "seconds": {
            "examples": spread(p.seconds for p in pairs.pairs if p.verdict == "example").to_json(),
            "none": spread(p.seconds for p in without).to_json(),
            "all": spread(p.seconds for p in pairs.pairs).to_json(),
        },
    }  # fmt: skip
