"""`run.toml`: everything that is needed to repeat a run, and what two runs differ in."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from onnxsub.documents import parse_json, read_toml
from onnxsub.errors import InputError
from onnxsub.evaluate.samples import Choice, Samples, format_indices, parse_indices, read_samples
from onnxsub.evaluate.seals import plan_checksum
from onnxsub.evaluate.settings import Settings
from onnxsub.files import one_line, write_atomic
from onnxsub.model import Model, load_model
from onnxsub.reading import Reading
from onnxsub.region import InputSpace
from onnxsub.results import VERSION
from onnxsub.zoo.recipe import budget_text
from onnxsub.zoo.regimes import REGIMES

__all__ = [
    "SCHEMA", "ModelEntry", "Plan", "RunSettings", "checksum_of", "difference", "plan_again", "plan_with", "read_plan", "schema_of",
    "write_plan",
]  # fmt: skip

SCHEMA = Settings.SCHEMA

_LINE = "\n"
_RECIPE = "onnxsub.zoo"

_LATER = ("data.labels_sha256",)  # what older run folders do not state
_WHERE = ("path", "source", "checksum", "training")  # where something lies, what it is called: its hash decides the results


class RunSettings(Protocol):
    """What decides the results of a run, whatever the run is about; a frozen dataclass, checked when made.

    Attributes:
        SCHEMA: of the run's `run.toml`. COMMAND: that goes on with the run.
        seed, threads: of everything random, of one worker.
    """

    SCHEMA: ClassVar[str]
    COMMAND: ClassVar[str]

    @property
    def seed(self) -> int: ...

    @property
    def threads(self) -> int: ...

    @property
    def domain(self) -> tuple[float, float]: ...

    @property
    def space(self) -> InputSpace:
        """Domain and normalisation."""
        ...

    @property
    def reading(self) -> Reading:
        """How the models are read."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain values under the names of the fields."""
        ...


S = TypeVar("S", bound=RunSettings)


@dataclass(frozen=True)
class ModelEntry:
    """A network of the run.

    Attributes:
        name: the file's name without its ending; made different where two files have one name.
        training: how it was trained, where its metadata say so.
    """

    name: str
    path: str
    sha256: str
    training: str


@dataclass(frozen=True, eq=False)
class Plan(Generic[S]):
    """Models, samples and settings.

    Attributes:
        loaded: the models, as long as this process needs them.
    """

    models: tuple[ModelEntry, ...]
    samples: Samples
    settings: S
    loaded: tuple[Model, ...] = field(repr=False)

    @staticmethod
    def of(paths: tuple[str, ...], samples: Samples, settings: S) -> Plan[S]:
        """Reads the models.

        Raises:
            ModelError: of a file. InputError: the same file twice; class names in their order that are not the model's classes.
        """
        entries: list[ModelEntry] = []
        loaded = []
        for path in paths:
            model = load_model(path, settings.reading)
            if model.sha256 in (e.sha256 for e in entries):
                raise InputError(f"model {path!r} is given twice; give each once")
            name = stem = Path(path).stem
            while name in (e.name for e in entries):
                name = f"{stem}-{model.sha256[:8]}"
            names, classes = samples.sorted_names, max(2, model.outputs)
            if names is not None and names != classes:
                raise InputError(
                    f"{samples.source!r} has {names} class names, and model {path!r} has {classes} classes; say with --classes "
                    "which is which"
                )
            entries.append(ModelEntry(name, path, model.sha256, _training(model)))
            loaded.append(model)
        return Plan(tuple(entries), samples, settings, tuple(loaded))

    def to_json(self) -> dict[str, Any]:
        """The content of `run.toml`."""
        s, settings = self.samples, self.settings
        return {
            "schema": settings.SCHEMA,
            "version": VERSION,
            "data": {
                "source": s.source, "sha256": s.sha256, "array": s.array, "labels": s.labels, "labels_sha256": s.labels_sha256,
                "classes": s.classes, "index": format_indices(s.index),
            },
            "settings": settings.to_json(),
            "model": [{"name": m.name, "path": m.path, "sha256": m.sha256, "training": m.training} for m in self.models],
        }  # fmt: skip


def write_plan(plan: Plan[S], path: Path) -> None:
    """Writes `run.toml`, all of it or nothing. Raises OutputError."""
    again = f"onnxsub {plan.settings.COMMAND} --run FOLDER"
    lines = [f"# {again} goes on with this run; the paths count from the folder where it was started", ""]
    document = plan.to_json()
    lines += [f"{k} = {_toml(v)}" for k, v in document.items() if not isinstance(v, dict | list)]
    for name in ("data", "settings"):
        lines += ["", f"[{name}]", *_pairs(document[name])]
    for entry in document["model"]:
        lines += ["", "[[model]]", *_pairs(entry)]
    # of what will be read, in which a number may be spelled in another way
    lines.insert(2, f"checksum = {_toml(plan_checksum(tomllib.loads(_LINE.join(lines))))}")
    write_atomic(path, (_LINE.join(lines) + _LINE).encode())


def schema_of(path: Path) -> str | None:
    """The schema that a `run.toml` names, which says what the run is about. Raises InputError where it cannot be read."""
    schema = _parse(path).get("schema")
    return schema if isinstance(schema, str) else None


def checksum_of(path: Path) -> str | None:
    """The checksum of a `run.toml`, of whatever schema; None: it is older than checksums. Raises InputError as `read_plan`."""
    return read_plan(path, schema_of(path) or "").get("checksum")


def read_plan(path: Path, schema: str = SCHEMA) -> dict[str, Any]:
    """The content of `run.toml`.

    Raises:
        InputError: not readable, of another schema or version, or not as it was written.
    """
    document = _parse(path)
    if document.get("schema") != schema:
        raise InputError(f"{os.fspath(path)!r} is of schema {document.get('schema')!r}, this is {schema!r}; choose another --run")
    if document.get("version") != VERSION:
        raise InputError(
            f"{os.fspath(path)!r} was made by onnxsub {document.get('version')}, this is {VERSION}: their results do not mix; "
            "choose another --run, or install that version"
        )
    if "checksum" in document and document["checksum"] != plan_checksum(document):
        raise InputError(f"{os.fspath(path)!r} is not as it was written (its checksum differs); restore it or choose another --run")
    return document


def plan_again(document: Mapping[str, Any]) -> Plan[Settings]:
    """The plan that a `run.toml` of `onnxsub evaluate` describes, from the same files.

    Raises:
        InputError: a file is gone or has changed.
    """
    return plan_with(document, Settings.from_json)


def plan_with(document: Mapping[str, Any], settings: Callable[[Mapping[str, Any]], S]) -> Plan[S]:
    """The plan that a `run.toml` describes, from the same files; `settings` makes the settings of their plain values.

    Raises:
        InputError: a file is gone or has changed.
    """
    try:
        data, models = document["data"], document["model"]
        choice = Choice(parse_indices(data["index"]))
        samples = read_samples(data["source"], choice, data.get("array") or None, data.get("labels"), _tuple(data.get("classes")))
        return Plan.of(tuple(m["path"] for m in models), samples, settings(document["settings"]))
    except KeyError as error:
        raise InputError(f"run.toml lacks {error.args[0]!r}; choose another --run") from error
    except (TypeError, AttributeError) as error:  # a number where a text is meant, and the like
        raise InputError(f"run.toml is not as it was written: {one_line(error)}; choose another --run") from error


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return read_toml(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{os.fspath(path)!r} cannot be read: {one_line(error)}; choose another --run") from error


def difference(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """The first thing in which two plans differ, in words; None where they are the same experiment."""
    a, b = _flat(recorded), _flat(given)
    for key in sorted(a.keys() | b.keys()):
        if key in _LATER and key not in a:
            continue
        if a.get(key) != b.get(key):
            return f"{key} is {_show(a.get(key))} there and {_show(b.get(key))} here"
    return None


def _training(model: Model) -> str:
    """`clean`, `adversarial 0.1` or `sr 0.1` (a regime) for a network of the zoo, which carries its recipe; empty for others."""
    text = model.metadata.get(_RECIPE)
    if text is None:
        return ""
    try:
        recipe = parse_json(text)
        budget = float(recipe["budget"])
        regime = recipe["regime"]["name"] if recipe.get("regime") else "adversarial"
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""  # a key that another program wrote
    if regime not in REGIMES:
        return ""
    return f"{regime} {budget_text(budget)}" if budget else "clean"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for k, v in value.items():
            if k not in _WHERE:
                found |= _flat(v, f"{prefix}.{k}" if prefix else str(k))
        return found
    if isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        return {k: v for i, entry in enumerate(value) for k, v in _flat(entry, f"{prefix}[{i}]").items()}
    if value is None:
        return {}
    return {prefix: list(value) if isinstance(value, list | tuple) else value}


def _show(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _pairs(values: Mapping[str, Any]) -> list[str]:
    return [f"{k} = {_toml(v)}" for k, v in values.items() if v is not None]


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(float(value))
    return json.dumps(value)
