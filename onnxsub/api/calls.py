"""Calls about an anchor or a batch of them: `distance`, `verify`, `attack`, `prune`; or about a query and options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, overload

import onnxsub.passes.attack as attacking
import onnxsub.pruning.prune as pruning
import onnxsub.verifiers.distance as measuring
import onnxsub.verifiers.verify as deciding
from onnxsub.any_model import AnyModel, any_model
from onnxsub.api.answer import Call, answer, check_keywords_only, split
from onnxsub.api.keywords import build, checked, in_python, keywords_of, signed
from onnxsub.api.one import radius_of
from onnxsub.api.progress import AnyProgress, Teller, telling
from onnxsub.api.question import AnyInput, AskedOptions
from onnxsub.api.rows import attack_row, distance_row, prune_row, verify_row
from onnxsub.api.stored import distance_run, verify_run
from onnxsub.api.table import Table
from onnxsub.budget import Budget
from onnxsub.errors import InputError
from onnxsub.model import save_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack import AttackOptions, AttackResult
from onnxsub.pruning.result import PruneOptions, PruneResult
from onnxsub.query import Query
from onnxsub.verifiers.distance import DistanceOptions
from onnxsub.verifiers.installed import check_engines
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.result import DistanceResult, VerifyResult
from onnxsub.verifiers.verify import VerifyOptions

__all__ = ["attack", "distance", "prune", "verify"]


@overload
def distance(
    model: Query, x: DistanceOptions | None = None, options: DistanceOptions | None = None, *,
    found: AttackResult | None = None, progress: AnyProgress = False,
    **keywords: Any,
) -> DistanceResult: ...
@overload
def distance(model: AnyModel, x: AnyInput, options: DistanceOptions | None = None, **keywords: Any) -> Any: ...
def distance(
    model: AnyModel | Query, x: AnyInput = None, options: DistanceOptions | None = None, *, found: AttackResult | None = None,
    progress: AnyProgress = False, run: str | os.PathLike[str] | None = None, **keywords: Any,
) -> Any:
    """The distance from an anchor to the decision boundary as a bracket: `lower <= d <= upper`, whatever ends it.

    With `method`, `gamma` or `keep` the distance of the local substitute, and what that proves about the model (`original`).

    Args:
        model: path, bytes, `onnx.ModelProto`, torch module or `Model`; or a `Query`, followed by options.
        x: an anchor of the model's input shape, in un-normalised units: a `DistanceResult`. A batch `(N, *shape)`: a `Table`.
        options: the values where no keyword says another one.
        found: of an attack on the same query, in place of one of our own.
        progress: True: a bar. A function: told `(lower, upper, text)`, of a batch `(share, text)`.
        run: folder of a batch, which is begun or gone on with by worker processes (`jobs`), as `onnxsub evaluate` (with a
            substitute) or `onnxsub robustness` has it.
        keywords: fields of `DistanceOptions` and its parts (`timeout`, `verifier`, `solver`, `memory` in GiB, ...), of the
            substitute (`method`, `gamma`, `keep`, `rank`, ...), and of model and anchor (`label`, `target`, `lower`, `upper`,
            `mean`, `std`, `scale`, `output`, `input_shape`, ...).

    Raises:
        InputError: model, anchor, keywords or values that cannot be used.
    """
    with in_python():
        if isinstance(model, Query) and isinstance(x, DistanceOptions) and options is None:
            x, options = None, x
        if run is not None:
            check_keywords_only(options=options, found=found)
            return distance_run(model, x, run, progress, keywords)
        own, asked = split("distance", keywords, keywords_of(DistanceOptions))
        done = build(DistanceOptions, _with_substitute(own, options), options)
        _check(done.verifier, done.milp.solver, own)

        def solve(query: Query, options: DistanceOptions, progress: Any) -> DistanceResult:
            return measuring.distance(query, options, found=found, progress=progress)

        call = Call("distance", done, solve, _bracket, _point, distance_row)
        return answer(call, model, x, asked, progress, own.get("threads"))


@overload
def verify(
    model: Query, x: Any = None, eps: Any = None, options: VerifyOptions | None = None, *,
    progress: AnyProgress = False, **keywords: Any,
) -> VerifyResult: ...
@overload
def verify(
    model: AnyModel, x: AnyInput = None, eps: Any = None, options: VerifyOptions | None = None, **keywords: Any
) -> Any: ...
def verify(
    model: AnyModel | Query, x: AnyInput = None, eps: Any = None, options: VerifyOptions | None = None, *,
    progress: AnyProgress = False, property: str | os.PathLike[str] | None = None,  # noqa: A002 - the word of VNN-LIB
    run: str | os.PathLike[str] | None = None, **keywords: Any,
) -> Any:
    """Whether every input within the radius `eps` of an anchor keeps its class: `proved`, `violated` (with a point) or `unknown`.

    Args:
        model, x, options, run: as of `distance`; a batch gives a `Table`.
        eps: radius in un-normalised units, or one per feature.
        property: in place of anchor and radius, a VNN-LIB file.
        progress: True: a bar. A function: told `(0, eps, text)`, of a batch `(share, text)`.
        keywords: fields of `VerifyOptions` and its parts, and of model and anchor.

    Raises:
        InputError: model, anchor, radius, keywords or values that cannot be used.
    """
    with in_python():
        if isinstance(model, Query):
            if isinstance(eps, VerifyOptions) and options is None:
                eps, options = None, eps
            if eps is None:
                x, eps = None, x
        elif isinstance(eps, VerifyOptions):
            raise InputError("eps is missing: verify(model, x, eps, options)")
        if run is not None:
            check_keywords_only(options=options)
            return verify_run(model, x, eps, run, progress, keywords)
        own, asked = split("verify", keywords, keywords_of(VerifyOptions))
        done = build(VerifyOptions, own, options)
        _check(done.verifier, done.milp.solver, own)
        if property is not None:
            return _decided(model, property, x, eps, done, asked, progress)
        radius, asked = radius_of("verify", eps, asked)

        def solve(query: Query, options: VerifyOptions, progress: Any) -> VerifyResult:
            return deciding.verify(query, radius, options, progress=progress)

        call = Call("verify", done, solve, _text, _point, verify_row)
        return answer(call, model, x, asked, progress, own.get("threads"))


@overload
def attack(
    model: Query, x: AttackOptions | None = None, options: AttackOptions | None = None, *,
    budget: Budget | None = None, progress: AnyProgress = False,
    **keywords: Any,
) -> AttackResult: ...
@overload
def attack(model: AnyModel, x: AnyInput, options: AttackOptions | None = None, **keywords: Any) -> Any: ...
def attack(
    model: AnyModel | Query, x: AnyInput = None, options: AttackOptions | None = None, *, budget: Budget | None = None,
    progress: AnyProgress = False, **keywords: Any,
) -> Any:
    """The nearest adversarial point that a search finds; its distance `d_adv` is an upper bound of the distance to the boundary.

    Args:
        model, x, options: as of `distance`; a batch gives a `Table`.
        budget: of what the attack serves.
        progress: True: a bar. A function: told `(share, text)`.
        keywords: fields of `AttackOptions`, and of model and anchor. `upper` is the end of the domain; the largest radius to look
            in is `AttackOptions(upper=...)`.
    """
    with in_python():
        if isinstance(model, Query) and isinstance(x, AttackOptions) and options is None:
            x, options = None, x
        own, asked = split("attack", keywords, keywords_of(AttackOptions))
        done = build(AttackOptions, own, options)

        def solve(query: Query, options: AttackOptions, progress: Any) -> AttackResult:
            return attacking.attack(query, options, budget=budget, progress=progress)

        call = Call("attack", done, solve, _share, lambda r: (r.x_adv, r.adversarial_label), attack_row)
        return answer(call, model, x, asked, progress, own.get("threads"))


@overload
def prune(
    model: Query, x: PruneOptions | None = None, options: PruneOptions | None = None, *,
    budget: Budget | None = None, progress: AnyProgress = False,
    timeout: float | None = None, path: str | os.PathLike[str] | None = None, **keywords: Any,
) -> PruneResult: ...
@overload
def prune(model: AnyModel, x: AnyInput, options: PruneOptions | None = None, **keywords: Any) -> Any: ...
def prune(
    model: AnyModel | Query, x: AnyInput = None, options: PruneOptions | None = None, *, budget: Budget | None = None,
    progress: AnyProgress = False, timeout: float | None = None, path: str | os.PathLike[str] | None = None, **keywords: Any,
) -> Any:
    """The local substitute at an anchor: the same function there, almost all of its units affine. `result.proto` is its file.

    Args:
        model, x, options: as of `distance`; a batch gives a `Table`, whose `results` hold the substitutes.
        timeout: seconds for all of it.
        path: where the file of a single substitute is written to.
        progress: True: a bar. A function: told `(share, text)`.
        keywords: fields of `PruneOptions` and its parts (`method`, `gamma`, `keep`, `rank`, `layout`, ...), of model and anchor.

    Raises:
        OutOfTimeError: the time ended before there was something to write.
    """
    with in_python():
        if isinstance(model, Query) and isinstance(x, PruneOptions) and options is None:
            x, options = None, x
        own, asked = split("prune", keywords, keywords_of(PruneOptions))
        limit = checked("timeout", timeout, float | None)
        done = build(PruneOptions, own if limit is None else {**own, "timeout": limit}, options)

        def solve(query: Query, options: PruneOptions, progress: Any) -> PruneResult:
            return pruning.prune(query, options, budget=budget or Budget(limit), progress=progress)

        call = Call("prune", done, solve, _share, lambda r: (r.substitute.x_adv, None), prune_row)
        result = answer(call, model, x, asked, progress, own.get("threads"))
        if path is None:
            return result
        if isinstance(result, Table):
            raise InputError("path is of one substitute; write those of a batch with save_model(table.results[i].proto, ...)")
        save_model(result.proto, path)
        return replace(result, output=os.fspath(path))


def _with_substitute(own: Mapping[str, Any], options: DistanceOptions | None) -> dict[str, Any]:
    """The keywords; a share or a number asks for a substitute, other keywords of one do not by themselves."""
    values = dict(own)
    paths = {k: keywords_of(DistanceOptions)[k].paths[0] for k in own}
    inside = [k for k, path in paths.items() if path[0] == "via" and len(path) > 1]
    has = (options is not None and options.via is not None) or own.get("via") is not None
    if inside and not has and not {"method", "gamma", "keep"} & set(inside):
        raise InputError(f"{inside[0]} is of a substitute; say which one with method= and gamma= (or keep=)")
    return values


def _check(verifier: str, solver: str, own: Mapping[str, Any]) -> None:
    check_engines((verifier,), solver)
    if own.get("tighten", "cut") != "cut" and verifier != "milp":
        raise InputError(f"tighten is of verifier milp; leave it out for {verifier}")


def _decided(
    model: AnyModel | Query, path: str | os.PathLike[str], x: AnyInput, eps: Any, options: VerifyOptions, asked: Mapping[str, Any],
    progress: AnyProgress,
) -> VerifyResult:
    if isinstance(model, Query) or eps is not None or set(asked) - {"output", "input_shape"}:
        raise InputError("a property says inputs and classes itself; give model and property alone")
    read = any_model(model, x, replace(build(AskedOptions, asked).reading, sigmoids=True))
    with telling(progress) as teller:
        tell = None if teller is None else teller.share()
        return decide_property(read, os.fspath(path), options, tell=None if tell is None else lambda text: tell(0.0, text))


def _bracket(teller: Teller, query: Query, part: int) -> Any:
    return teller.bracket(query.space.reach(query.x0), part)


def _text(teller: Teller, query: Query, part: int) -> Any:
    return teller.text(part)


def _share(teller: Teller, query: Query, part: int) -> Any:
    return teller.share(part)


def _point(result: DistanceResult | VerifyResult) -> tuple[Array | None, int | None]:
    w = result.witness
    original = getattr(result, "original", None)
    if original is not None and getattr(original, "witness", None) is not None:
        w = original.witness  # of the model rather than of its substitute
    return (None, None) if w is None or not w.confirmed else (w.x, w.label)


signed(distance, DistanceOptions, AskedOptions)
signed(verify, VerifyOptions, AskedOptions)
signed(attack, AttackOptions, AskedOptions)
signed(prune, PruneOptions, AskedOptions)
