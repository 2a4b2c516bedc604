"""A tool, a file and an anchor: radii are asked about, and every `sat` is replayed before anybody hears of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxsub.errors import InputError
from onnxsub.instance import Instance
from onnxsub.model import Model, load_model, save_model
from onnxsub.ops.base import Array
from onnxsub.passes.attack.walk import walk_back
from onnxsub.properties import Property, robustness_property
from onnxsub.query import Query, make_query
from onnxsub.scratch import scratch
from onnxsub.verifiers.external.reader import check_readable
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Job, Tool
from onnxsub.verifiers.referee import Referee
from onnxsub.verifiers.witness import Witness

__all__ = ["Answer", "Inquiry", "inquire", "query_of"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a tool said about one radius, after the replay.

    Attributes:
        word: `sat` (replayed), `unsat` (the tool's claim) or `unknown`.
        reason: one line, the tool named.
        witness: with `sat` the replayed point; with `unknown` one that did not replay, if there was one.
        targets: the word per other class; `sat` is replayed here too.
    """

    word: str
    reason: str
    witness: Witness | None
    targets: Mapping[int, str]


class Inquiry:
    """Made by `inquire`.

    Attributes:
        query: the question to the file itself; its x0 has the shape of the file's input.
        referee: onnxruntime on that file.
        runs: how often the tool was run.
    """

    def __init__(self, query: Query, tool: Tool, folder: Path) -> None:
        self.query = query
        self.tool = tool
        self.referee = Referee(Instance.of(query))
        self.runs = 0
        self._folder = folder
        self._path = folder / "model.onnx"
        # a copy, so that what is read is what was checked
        save_model(query.model.form, self._path)
        logits = query.logits(query.x0[None])[0].astype(np.float64)
        self._order = sorted(query.targets, key=lambda t: logits[query.label] - logits[t])

    def ask(self, eps: float, limit: float | None) -> Answer:
        """Whether another class is reached within `eps`, the nearest class at the anchor first.

        Args:
            limit: seconds; None for none.
        """
        question = self._question(eps)
        job = Job(self._path, question, self._folder, limit)
        claim = self.tool.ask(job)
        self.runs += 1
        single = self.query.model.outputs == 1
        labels = self.query.targets if single else tuple(self._order)
        targets = {t: word if word == UNSAT else UNKNOWN for t, word in zip(labels, claim.clauses, strict=True)}
        if claim.word == UNSAT:
            return Answer(UNSAT, f"{claim.reason}: its claim, not proved here", None, targets)
        if claim.word != SAT:
            return Answer(UNKNOWN, claim.reason, None, targets)
        if claim.x is None:
            return Answer(UNKNOWN, f"{claim.reason} without a point, rejected", None, targets)
        witness = self._confirm(self._point(claim.x), eps)
        if not witness.confirmed or witness.radius > eps:
            reason = f"{claim.reason}, rejected: by replay on the file its point has margin {witness.margin:.3g}"
            return Answer(UNKNOWN, reason, replace(witness, kind="rejected"), targets)
        targets[witness.label] = SAT
        return Answer(SAT, f"{claim.reason}, replayed on the file", witness, targets)

    def _question(self, eps: float) -> Property:
        """The property of the ball, its clauses in the order of `_order`."""
        found = robustness_property(self.query, eps)
        (case,) = found.cases
        if len(case.clauses) != len(self._order):
            return found
        by_target = dict(zip(self.query.targets, case.clauses, strict=True))
        return replace(found, cases=(replace(case, clauses=tuple(by_target[t] for t in self._order)),))

    def _confirm(self, x: Array, eps: float) -> Witness:
        """What a point of the ball is worth, or one near it that is worth more.

        A solver's point lies on the boundary, where float32 may see either class, and at the kinks of many units, where one
        gradient says little: hence the short search from it. Whatever comes of that is replayed as well.
        """
        witness = self.referee.settle(x, tol=eps, limit=eps)
        if witness.confirmed and witness.margin < 0:
            q = self.query
            near = walk_back(q.network, q.x0, q.label, q.space, witness.x[None], self.referee.margins, upper=eps, target=q.target)
            better = None if near is None else self.referee.judge(near.x[None])[0]
            if better is not None and better.margin >= 0 and better.radius <= eps:
                return better
        return witness

    def _point(self, x: Array) -> Array:
        """A point in the units that the file is fed, as one of the domain."""
        shape = self.query.x0.shape
        point = np.asarray(x, dtype=np.float64).reshape(shape)
        ms = self.query.space.mean_std(shape)
        point = point if ms is None else point * ms[1] + ms[0]
        return np.clip(point, self.query.space.lower, self.query.space.upper)


@contextmanager
def inquire(file: Model | str | Path, query: Query, tool: Tool) -> Iterator[Inquiry]:
    """An inquiry about a file at the anchor of a query. Its folder is gone afterwards.

    Args:
        file: the query's own model, or a substitute of it (also one with a flat input).

    Raises:
        ModelError: the file cannot be read.
        UnsupportedOperatorError: the tool does not read it; the message names the repair.
        InputError: it is no file of that anchor.
    """
    model = file if isinstance(file, Model) else load_model(file)
    check_readable(model, tool.reader)
    asked = query_of(model, query)
    with scratch() as folder:
        yield Inquiry(asked, tool, folder)


def query_of(model: Model, query: Query) -> Query:
    """The same question to another file with the same inputs, flat or not, and the same classes.

    Raises:
        InputError: its inputs or its classes are others.
    """
    if model.same_as(query.model):
        return query
    if math.prod(model.input_shape) != query.x0.size:
        inputs = math.prod(model.input_shape)
        raise InputError(f"{model.where} has {inputs} inputs, the anchor {query.x0.size}; give a substitute of that model")
    shape, new, units = query.x0.shape, model.input_shape, query.space.units
    found = make_query(
        model, query.space.original(query.x0).reshape(new), query.label, space=query.space.plain.reshaped(shape, new), threads=1,
        target=query.target, scale=None if units is None else units.scale.reshape(new),
    )  # fmt: skip
    if found.classes != query.classes:
        raise InputError(f"{model.where} has {found.classes} classes, the model {query.classes}; give a substitute of it")
    return found
