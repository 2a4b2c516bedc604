"""The pass `prune`: the local substitute of a network at one anchor, as a file.

attack -> lines -> Algorithm 1 -> substitute -> layout; what the result preserves is measured with onnxruntime on the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx import ModelProto

from onnxsub.budget import Budget, OutOfTime
from onnxsub.device import torch_settings
from onnxsub.errors import InputError, ModelError, UnsupportedOperatorError
from onnxsub.layouts import LAYOUTS, LayoutContext, PrecisionError
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.network import Network
from onnxsub.ops.base import Activation, Array
from onnxsub.ops.substituted_max import SubstitutedMax
from onnxsub.ops.windows import Windows
from onnxsub.passes.attack import AttackResult, attack
from onnxsub.passes.attack.effort import affordable
from onnxsub.passes.fold import folded_weights
from onnxsub.passes.select import margin_gradients, select
from onnxsub.passes.substitute import check_method, lines, substitute
from onnxsub.pruning.notes import file_notes, too_many
from onnxsub.pruning.provenance import provenance
from onnxsub.pruning.result import Adversarial, PruneOptions, PruneResult, Substitute
from onnxsub.query import Query, two_classes
from onnxsub.runtime import Runtime
from onnxsub.surgery import annotate

__all__ = ["Adversarial", "PruneOptions", "PruneResult", "Substitute", "build_substitute", "prune"]

Progress = Callable[[float, str], None]

_BYTES, _GROWTH = 4, 10  # of a weight; times the model's bytes that a layout may take that nobody asked for
_SHARE = 0.5  # of the time that is left: what a layout may take where something is to be written in any case


def prune(
    query: Query, options: PruneOptions | None = None, *, budget: Budget | None = None, progress: Progress | None = None
) -> PruneResult:
    """Builds the local substitute of the query's model at its anchor, as an ONNX file in memory.

    Args:
        budget: of all of it. The attack gets a third of the time, and more only where it has found no point by then; on a network
            whose gradients are dear it does less (`affordable`).

    Raises:
        InputError: the anchor is misclassified (its distance is 0), or no adversarial point is found and no `eps` is given.
        OutOfTime: the budget ended before there was something to write; `budget.cut` names the stage.
    """
    options = options or PruneOptions()
    budget = budget or Budget()
    check_method(query.network, options.method)
    effort = min(options.attack.effort, affordable(query.network.multiplications))
    options = replace(options, attack=replace(options.attack, effort=effort))
    options.select.pruned_of(query.network.units_and_windows)  # before the attack: bad input must not cost a minute
    if query.misclassified:
        raise InputError(
            f"{query.wrong}: its distance is 0, nothing is to be pruned; choose another anchor or --label"
        )
    start = time.perf_counter()
    with budget.stage("attack"):
        found = _attacked(query, options, budget, _part(progress, 0.0, 0.5))
    attacked = time.perf_counter()
    adversarial = Adversarial.of(found)
    g = build_substitute(query, options, adversarial, budget=budget, progress=_part(progress, 0.5, 0.9))
    built = time.perf_counter()
    with budget.stage("layout"):
        layout, proto, cut, notes = _file(query, options, g, budget, _part(progress, 0.9, 1.0))
        # what is chosen here and is no chain is exact everywhere, whatever was asked of a chain
        options = replace(options, layout=layout, exact_on=options.exact_on if layout == "chain" else "auto")
        proto = annotate(proto, provenance(query, options, g), {})
        budget.check()
    with budget.stage("replay"):
        preserves = measure_preservation(query, proto, g.x_adv, budget=budget)
    end = time.perf_counter()
    return PruneResult(
        g,
        proto,
        options,
        preserves,
        query.json_head(),
        query.network.units_and_windows,
        {"attack": attacked - start, **g.time_s, "layout": end - built, "total": end - start},
        stage=cut if g.selection.complete else "select",
        notes=notes + file_notes(query.model, g.network, proto, layout),
    )


def _attacked(query: Query, options: PruneOptions, budget: Budget, progress: Progress | None) -> AttackResult:
    """The attack, within a third of the time."""
    found = attack(query, options.attack, budget=budget.part(budget.remaining / 3), progress=progress)
    if not found.found and found.timed_out and options.eps is None:
        found = attack(query, options.attack, budget=budget, progress=progress)  # without a point there is nothing to build
    budget.check()
    return found


def _file(
    query: Query, options: PruneOptions, g: Substitute, budget: Budget, progress: Progress | None
) -> tuple[str, ModelProto, str | None, tuple[str, ...]]:
    """The layout, the file in it, `layout` where the time did not suffice for the one that every verifier reads, and notes."""
    raw = substitute(lower(query.model), g.lines, g.selection.kept)
    context = LayoutContext.of(query.space, query.x0, g.eps, g.x_adv, flat_input=options.flat_input, exact_on=options.exact_on)

    def written(layout: str, budget: Budget) -> ModelProto:
        if progress is not None:
            progress(0.0, f"writing layout {layout}")
        return LAYOUTS[layout](query.model, raw, context, budget=budget)

    def in_place(cut: str | None) -> tuple[str, ModelProto, str | None, tuple[str, ...]]:
        """The graph of the file; another one where its nodes are no place for what units become."""
        try:
            return "inplace", written("inplace", budget), cut, ()
        except (ModelError, UnsupportedOperatorError) as error:
            complaint = str(error).removesuffix("; use --layout compact")
            return "compact", written("compact", budget), cut, (f"{complaint}: layout compact was written",)

    free = options.best_effort and options.layout is None
    if free and not g.selection.complete:
        return in_place(None)
    layout = options.layout or _layout_for(g.network, query.model.source.ByteSize())
    if layout == "inplace" and options.layout is None:
        return in_place(None)
    try:
        proto = written(layout, budget.part(_SHARE * budget.remaining) if free else budget)
    except OutOfTime:
        if not free:
            raise
        budget.check()
        return in_place("layout")
    except PrecisionError as error:
        if options.layout is not None:
            raise
        return "compact", written("compact", budget), None, (f"{error.complaint}: layout compact was written",)
    worse = too_many(proto, g.network) if layout == "chain" and options.layout is None and g.windows else None
    if worse is not None:
        return "compact", written("compact", budget), None, (f"{worse}: layout compact was written",)
    return layout, proto, None, ()


def _layout_for(network: Network, model_bytes: int) -> str:
    """`chain`, which every verifier reads; `compact` where what is left has no form in Relus, `inplace` where that is huge."""
    others = [op for op in network.nonlinear if not isinstance(op, Windows | SubstitutedMax)]
    if all(isinstance(op, Activation) and op.piecewise_linear for op in others):
        return "chain"
    return "compact" if folded_weights(network) * _BYTES <= _GROWTH * model_bytes else "inplace"


def build_substitute(
    query: Query,
    options: PruneOptions,
    adversarial: Adversarial,
    *,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Substitute:
    """Lines and Algorithm 1: the substitute as a network.

    Raises:
        InputError: there is no adversarial point and no `eps`, or `lin` without an adversarial point.
        OutOfTime: the budget ended before there was a substitute.
    """
    budget = budget or Budget()
    start = time.perf_counter()
    eps = options.eps
    if eps is None:
        if adversarial.x is None:
            raise InputError(
                "the attack found no adversarial point in the domain, so there is no radius to prune for; "
                "state one with --eps (con, act), or let the attack run longer"
            )
        eps = adversarial.radius
    network, x0 = query.network, query.x0
    with torch_settings(options.attack.threads), budget.stage("select"):
        chosen = lines(network, options.method, x0, adversarial.x, budget=budget)
        gradients = None
        if options.select.rank == "influence":
            points = np.stack([x0] if adversarial.x is None else [x0, adversarial.x])
            target = adversarial.label
            if target is None:  # the runner-up at the anchor
                target = int(query.margins(x0[None])[1][0])
            gradients = margin_gradients(network, points, query.label, target, budget=budget)
        ball = query.space.ball(x0, eps)
        selection = select(
            network, ball, chosen, options.select, gradients=gradients, budget=budget, best_effort=options.best_effort,
            progress=progress,
        )  # fmt: skip
    g = substitute(network, chosen, selection.kept)
    return Substitute(g, chosen, selection, adversarial.x, adversarial.radius, eps, {"select": time.perf_counter() - start})


def measure_preservation(
    query: Query, proto: ModelProto, x_adv: Array | None, *, budget: Budget | None = None
) -> dict[str, float]:
    """`max |g - f|` over the logits, both under onnxruntime, at the anchor and at the adversarial point.

    Raises:
        OutOfTime: the budget ended.
    """
    budget = budget or Budget()
    budget.check()
    model = load_model(proto)
    budget.check()
    runtime = Runtime(model, threads=1)
    budget.check()
    points = {"x0": query.x0} | ({} if x_adv is None else {"x_adv": x_adv})
    x = np.stack(list(points.values()))
    fed = query.space.normalise(x).reshape(len(x), *runtime.model.input_shape)
    g = two_classes(runtime.logits(fed)).astype(np.float64)
    difference = np.abs(g - query.logits(x).astype(np.float64)).max(axis=1)
    return {name: float(d) for name, d in zip(points, difference, strict=True)}


def _part(progress: Progress | None, low: float, high: float) -> Progress | None:
    """Progress of a stage as progress of the whole."""
    if progress is None:
        return None
    return lambda share, text: progress(low + share * (high - low), text)
