"""The study of fine-tuning: frequency and severity before and after training on examples, by where the examples are from.

Source: Bastani et al. 2016, "Measuring Neural Net Robustness with Constraints", section 6. Steps: the first training; per source a
run of pointwise distances on training images and a training on its points; per way of measuring and network a run on test images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError, OptionError
from onnxsub.evaluate.drive import RunOptions
from onnxsub.evaluate.engine import Engine
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.robustness.result import RobustnessResult
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.robustness.settings import DISTANCES, RobustnessSettings
from onnxsub.evaluate.samples import Samples
from onnxsub.metrics.tables import spread
from onnxsub.model import load_model, save_model
from onnxsub.results import VERSION, jsonable
from onnxsub.study.finetune import FinetuneOptions, finetune
from onnxsub.study.steps import Steps
from onnxsub.zoo.images import ImageSet
from onnxsub.zoo.pipeline import exported, trained, write_model
from onnxsub.zoo.recipe import Recipe, default_recipe

__all__ = ["TuningOptions", "TuningResult", "study_tuning"]

ORIGINAL = "original"
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class TuningOptions:
    """What is trained and measured.

    Attributes:
        architecture, recipe, epochs, seed: of the first training. sources, measures: ways of finding distances, of `DISTANCES`:
            examples are from the ones, frequency and severity by the others.
        eps: radius of both, in units of images in [0, 1]. timeout: seconds per sample. tune: of the fine-tuning.
    """

    architecture: str = "lenet"
    recipe: str = "fast"
    epochs: int | None = None
    seed: int = 0
    sources: tuple[str, ...] = ("exact", "region", "lbfgs")
    measures: tuple[str, ...] = ("region", "lbfgs")
    eps: float = 20 / 255
    timeout: float | None = 10.0
    tune: FinetuneOptions = field(default_factory=FinetuneOptions)

    def __post_init__(self) -> None:
        for name in ("sources", "measures"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise OptionError(f"--{name} {','.join(values)!r} is not possible; give one or several, each once")
            for value in values:
                if value not in DISTANCES:
                    raise OptionError(f"--{name} {value!r} is unknown; choose among {', '.join(DISTANCES)}")
        if not self.eps > 0:
            raise OptionError(f"--eps {self.eps:g} is not possible; give a positive radius")
        _ = self.settings(self.measures[0])

    def recipe_of(self, data: str) -> Recipe:
        """Of the first training."""
        return default_recipe(data, self.architecture, name=self.recipe, epochs=self.epochs, seed=self.seed)

    def settings(self, how: str) -> RobustnessSettings:
        """Of a run of pointwise distances."""
        return RobustnessSettings("pointwise", self.eps, distances=how, timeout=self.timeout, seed=self.seed)


@dataclass(frozen=True)
class TuningResult:
    """What the study found so far.

    Attributes:
        accuracy: network -> on the test images; `original`, and one network per source.
        sources: source -> `samples`, `points`, `examples`, `fooled` (see `Finetuned`), `found` (samples with a point), `seconds`.
        measured: way -> network -> `frequency` [lower, upper] within eps, `severity` [lower, upper] or None, `found` {`frequency`,
            `severity`}: the same with every distance at its upper end, which is what Bastani et al. report; `samples`,
            `misclassified`, `failed`, `seconds`.
    """

    data: str
    options: TuningOptions
    accuracy: Mapping[str, float]
    sources: Mapping[str, Mapping[str, Any]]
    measured: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def to_json(self) -> dict[str, Any]:
        """Schema `onnxsub.study-finetune/1`."""
        found = {"accuracy": self.accuracy, "found": self.sources, "measured": self.measured}
        document: dict[str, Any] = jsonable(
            {"schema": "onnxsub.study-finetune/1", "version": VERSION, "data": self.data, **asdict(self.options), **found}
        )
        return document


def study_tuning(
    data: ImageSet, anchors: Samples, tests: Samples, options: TuningOptions, folder: Path, run: RunOptions | None = None, *,
    engine: Engine | None = None, progress: Report | None = None,
) -> TuningResult:  # fmt: skip
    """Train, find examples, fine-tune, measure; what `folder` holds of it is not done again.

    Args:
        anchors: training images that examples are looked for beside. tests: test images that are measured. engine: in
            place of the one that `run` names.

    Raises:
        InputError: no test images; the folder is of another study; a source found nothing. KeyboardInterrupt: Ctrl-C; what is done
        is kept. OptionError, OutputError, MissingDependencyError, UnsupportedOperatorError.
    """
    if data.test is None:
        raise InputError(f"data set {data.name!r} has no test images, which a study needs; give an .npz with x_test and y_test")
    recipe = options.recipe_of(data.name)
    steps = Steps(folder, {
        **asdict(options), "data": data.name, "train_sha256": data.train.sha256, "test_sha256": data.test.sha256,
        "anchors": [anchors.sha256, *anchors.index], "tests": [tests.sha256, *tests.index],
    })  # fmt: skip
    total = 1 + 2 * len(options.sources) + len(options.measures) * (1 + len(options.sources))
    done = 0
    go = partial(_run, run=run, engine=engine)

    def say(text: str) -> Report:
        nonlocal done
        begin, done = done / total, done + 1

        def report(share: float, said: str) -> None:
            if progress is not None:
                progress(begin + share / total, f"{text}: {said}")

        return report

    checkpoint, again = folder / f"{ORIGINAL}.pt", "onnxsub study finetune"
    state = trained(recipe, data, checkpoint, command=again, attacked=500, progress=say("training"))
    files = {ORIGINAL: folder / f"{ORIGINAL}.onnx"}
    if not files[ORIGINAL].with_suffix(".json").exists():
        write_model(*exported(state, data), files[ORIGINAL])
    assert state.card is not None
    accuracy = {ORIGINAL: float(state.card["figures"]["accuracy"])}
    sources = {}
    for source in options.sources:
        where = folder / "examples" / source
        points = go(files[ORIGINAL], anchors, options.settings(source), where, say(f"examples by {source}"))
        files[source] = folder / f"{source}.onnx"
        tuned = partial(_tuned, files[ORIGINAL], files[source], where, data, options.tune, say(f"training on {source}"))
        said = steps.once(f"tuned/{source}", tuned)
        accuracy[source] = said.pop("accuracy")
        seconds = spread(r.time_total for r in points.rows if r.time_total is not None)
        sources[source] = {"samples": len(points.rows), **said, "seconds": seconds.to_json()}
    measured: dict[str, dict[str, Any]] = {}
    for how in options.measures:
        for name, file in files.items():
            found = go(file, tests, options.settings(how), folder / "measured" / f"{how}-{name}", say(f"{name} by {how}"))
            measured.setdefault(how, {})[name] = _measured(found, options.eps)
    return TuningResult(data.name, options, accuracy, sources, measured)


def _run(
    file: Path, samples: Samples, settings: RobustnessSettings, folder: Path, progress: Report, *, run: RunOptions | None,
    engine: Engine | None,
) -> RobustnessResult:  # fmt: skip
    folder.parent.mkdir(exist_ok=True)
    found = robustness(Plan.of((str(file),), samples, settings), folder, run, engine=engine, progress=progress)
    if found.interrupted:
        raise KeyboardInterrupt
    return found


def _tuned(
    original: Path, file: Path, points: Path, data: ImageSet, options: FinetuneOptions, progress: Report
) -> dict[str, Any]:
    found = finetune(load_model(original), [points], data, options, file.with_suffix(".pt"), progress=progress)
    save_model(found.proto, file)
    assert found.accuracy is not None  # `study_tuning` has looked
    return {"points": found.points, "examples": found.examples, "fooled": found.fooled, "accuracy": found.accuracy[1]}


def _measured(found: RobustnessResult, eps: float) -> dict[str, Any]:
    measure, near = found.measure, found.measure.more["severity"]
    within = [r.upper for r in found.rows if r.upper is not None and r.upper <= eps]
    return {
        "frequency": [measure.lower, measure.upper],
        "severity": None if near is None else [near["lower"], near["upper"]],
        "found": {
            "frequency": len(within) / len(found.rows), "severity": sum(within) / len(within) if within else None,
        },
        "samples": len(found.rows),
        "misclassified": sum(r.status == "misclassified" for r in found.rows),
        "failed": sum(r.status == "failed" for r in found.rows),
        "seconds": spread(r.time_total for r in found.rows if r.time_total is not None).to_json(),
    }
