"""Calls about batches in a run folder: models and arrays become files of it, and the drivers of `onnxsub evaluate` and
`onnxsub robustness` do the rest."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.any_model import AnyModel, any_model
from onnxsub.api.keywords import build, checked, keywords_of, refuse_unknown
from onnxsub.api.progress import AnyProgress, telling
from onnxsub.api.question import ASKED, AnyInput, AskedOptions, Question
from onnxsub.api.table import Table
from onnxsub.errors import InputError, OutputError
from onnxsub.evaluate.drive import RunOptions
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.received import read_ledger
from onnxsub.evaluate.robustness.run import robustness
from onnxsub.evaluate.robustness.settings import RobustnessSettings
from onnxsub.evaluate.row import rows_of
from onnxsub.evaluate.run import evaluate
from onnxsub.evaluate.samples import PREDICTED, Choice, read_samples
from onnxsub.evaluate.settings import Settings
from onnxsub.files import make_folder, refuse_links, write_atomic
from onnxsub.model import Reading
from onnxsub.model_file import serialise
from onnxsub.ops.base import Array
from onnxsub.query import Query

__all__ = ["RUN", "distance_run", "model_file", "space_of_run", "stored", "verify_run"]

RUN = keywords_of(RunOptions)
"""Keywords of how a run is done: `jobs`, `engine`, ..."""

_INPUTS = "inputs"


def distance_run(
    model: AnyModel | Query, x: AnyInput, run: str | os.PathLike[str], progress: AnyProgress, given: Mapping[str, Any]
) -> Table:
    """`distance` of a batch, in a run folder."""
    heeded = ("method", "gamma", "rank", "refine", "verifier", "solver", "timeout", "nodes", "seed", "threads", "device", "tol")
    own, how, question, folder = _begun("distance", model, x, run, given, heeded)
    with_substitute = "method" in own or "gamma" in own
    if not with_substitute:
        for name in ("rank", "refine", "device", "tol"):
            if name in own:
                raise InputError(f"{name} with run= belongs to a substitute; give method= and gamma= too, or leave it out")
        low, high = _interval(question)
        settings = {**own, "metric": "pointwise", "eps": high - low, "distances": "exact"}
        return _robustness_table("distance", question, folder, settings, how, progress, _distance_columns)
    values = {k: v for k, v in own.items() if k not in ("method", "gamma", "verifier")}
    values |= {"methods": (own.get("method", "lin"),), "gammas": (own.get("gamma", 0.99),)}
    values |= {"verifiers": (own["verifier"],)} if "verifier" in own else {}
    plan = _plan(question, folder, build(Settings, {**values, **space_of_run(question.asked)}))
    with telling(progress) as teller:
        done = evaluate(plan, folder, how, progress=None if teller is None else teller.share())
    rows = []
    with read_ledger(folder) as ledger:
        for r in rows_of(ledger):
            rows.append({
                "index": r.index, "label": r.label, "predicted": r.predicted, "status": r.status_hat,
                "lower": r.d_hat_lower, "upper": r.d_hat_upper, "adversarial_label": r.adversarial_label,
                "original_lower": r.original_lower, "original_upper": r.original_upper, "original_exact": r.original_exact,
                "d_adv": r.d_adv, "d_bnd_lower": r.d_bnd_lower, "d_bnd_upper": r.d_bnd_upper, "status_bnd": r.status_bnd,
                "method": r.method, "gamma": r.gamma, "units_total": r.units_total, "units_pruned": r.units_pruned,
                "nodes": r.nodes_hat, "time_s": _sum(r.time_attack, r.time_prune, r.time_hat, r.time_original, r.time_refine),
                "reason": r.reason,
            })  # fmt: skip
    return Table("distance", tuple(rows), run=str(folder), interrupted=done.interrupted)


def verify_run(
    model: AnyModel | Query, x: AnyInput, eps: Any, run: str | os.PathLike[str], progress: AnyProgress, given: Mapping[str, Any]
) -> Table:
    """`verify` of a batch, in a run folder."""
    if eps is None:
        raise InputError("eps is missing; verify needs a radius in un-normalised input units")
    heeded = ("verifier", "solver", "timeout", "nodes", "seed", "threads")
    own, how, question, folder = _begun("verify", model, x, run, given, heeded)
    settings = {**own, "metric": "satisfaction", "eps": checked("eps", eps, float)}
    return _robustness_table("verify", question, folder, settings, how, progress, _verify_columns)


def model_file(model: AnyModel, example: Any, reading: Reading, folder: Path, name: str = "model") -> str:
    """The path of a model's file: its own, or one in the run folder where it comes from memory."""
    read = any_model(model, example, reading)
    if read.path is not None:
        return str(read.path)
    return _stored(folder, f"{name}.onnx", serialise(read.source, read.where, OutputError))


def stored(folder: Path, name: str, data: Array) -> str:
    """The path of an array in the run folder."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(data), allow_pickle=False)
    return _stored(folder, f"{name}.npy", file.getvalue())


def space_of_run(asked: AskedOptions) -> dict[str, Any]:
    """The data space as the settings of a run have it: one range for all features.

    Raises:
        InputError: what a run cannot have.
    """
    for name in ("target", "scale", "index", "array"):
        if getattr(asked, name) is not None:
            raise InputError(f"{name} is not possible with run=; leave out one of them")
    space = asked.space
    lower, upper = (asked.lower, asked.upper) if space is None else (space.lower, space.upper)
    if np.ndim(lower if lower is not None else 0.0) or np.ndim(upper if upper is not None else 0.0):
        raise InputError("a run has one range for all features; give numbers as lower and upper, or leave out run")
    mean, std = (asked.mean, asked.std) if space is None else (space.mean, space.std)
    domain = (0.0 if lower is None else float(lower), 1.0 if upper is None else float(upper))
    values = {"domain": domain, "mean": mean, "std": std, "output": asked.output, "input_shape": asked.input_shape}
    return {k: v for k, v in values.items() if v is not None}


def _begun(
    call: str, model: AnyModel | Query, x: AnyInput, run: str | os.PathLike[str], given: Mapping[str, Any], heeded: tuple[str, ...]
) -> tuple[dict[str, Any], RunOptions, Question, Path]:
    """Keywords of the settings, how the run is done, what is asked, and the folder."""
    if isinstance(model, Query):
        raise InputError("run is for a batch of anchors; give model and batch in place of a query")
    refuse_unknown(f"{call} with run=", given, ASKED, RUN, heeded)
    how = build(RunOptions, {k: v for k, v in given.items() if k in RUN})
    asked = {"batch": True, **{k: v for k, v in given.items() if k in ASKED}}
    question = Question.of(model, x, asked, 1)
    if not question.many:
        raise InputError("run is for a batch of anchors (N, ...); leave it out for one")
    folder = Path(checked("run", run, str | os.PathLike))
    return {k: v for k, v in given.items() if k in heeded and v is not None}, how, question, folder


def _plan(question: Question, folder: Path, settings: Any) -> Plan[Any]:
    """Model and anchors as files, and the plan that names them."""
    model = model_file(question.model, None, Reading(), folder)
    x = stored(folder, "x", question.x)
    labels = PREDICTED if question.asked.label is None else stored(folder, "labels", np.asarray(question.labels, dtype=np.int64))
    return Plan.of((model,), read_samples(x, Choice(), None, labels), settings)


def _robustness_table(
    call: str, question: Question, folder: Path, values: Mapping[str, Any], how: RunOptions, progress: AnyProgress, columns: Any
) -> Table:
    settings = build(RobustnessSettings, {**values, **space_of_run(question.asked)})
    with telling(progress) as teller:
        tell = None if teller is None else teller.share()
        done = robustness(_plan(question, folder, settings), folder, how, progress=tell)
    rows = tuple(columns(asdict(row)) for row in done.rows)
    return Table(call, rows, run=str(folder), interrupted=done.interrupted)


def _distance_columns(r: dict[str, Any]) -> dict[str, Any]:
    ends = {k: v if v is not None and np.isfinite(v) else None for k, v in ((k, r[k]) for k in ("lower", "upper"))}
    head = {k: r[k] for k in ("index", "label", "predicted", "status")}
    return {**head, **ends, "time_s": r["time_total"], "reason": r["reason"]}


def _verify_columns(r: dict[str, Any]) -> dict[str, Any]:
    head = {k: r[k] for k in ("index", "label", "predicted")}
    status = {"undecided": "unknown"}.get(r["status"], r["status"])
    return {**head, "status": status, "distance": r["distance"], "time_s": r["time_total"], "reason": r["reason"]}


def _interval(question: Question) -> tuple[float, float]:
    low, high = space_of_run(question.asked)["domain"]
    return float(low), float(high)


def _stored(folder: Path, name: str, data: bytes) -> str:
    """Writes a file of a run's inputs, or finds it there from before."""
    target = folder / _INPUTS / name
    refuse_links(folder, target)
    if target.is_file():
        if target.read_bytes() != data:
            raise InputError(f"{str(folder)!r} holds another run: its {name} differs; choose another run=, or give the same")
        return str(target)
    make_folder(target.parent, "choose another run=")
    write_atomic(target, data)
    return str(target)


def _sum(*seconds: float | None) -> float | None:
    known = [s for s in seconds if s is not None]
    return sum(known) if known else None
