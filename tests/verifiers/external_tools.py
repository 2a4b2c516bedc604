"""Tools for the tests: an honest one, and programs that behave like tools do."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxsub.layouts import LAYOUTS, LayoutContext
from onnxsub.lower import lower
from onnxsub.model import Model, load_model
from onnxsub.passes.substitute import lines, substitute
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Claim, Job
from onnxsub.verifiers.property import decide_property
from tests.random_models import random_model


@dataclass
class Stand:
    """A tool in this process: what it answers is given as a function; default: the truth, by our own property verifier."""

    answer: Callable[[Job], Claim] | None = None
    reader: str | None = "marabou"
    name: str = "stand"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"tool": "stand"})
    asked: list[Job] = field(default_factory=list)

    def ask(self, job: Job) -> Claim:
        self.asked.append(job)
        if self.answer is not None:
            return self.answer(job)
        found = decide_property(load_model(job.path), job.question)
        (words,) = found.clauses
        clauses = tuple({"proved": UNSAT, "violated": SAT}.get(w, UNKNOWN) for w in words)
        word = {"proved": UNSAT, "violated": SAT}.get(found.status, UNKNOWN)
        return Claim(word, f"stand says {word}", clauses, found.witness.x if word == SAT and found.witness else None)


def says(word: str, x: Callable[[Job], Any] | None = None) -> Callable[[Job], Claim]:
    """The same answer to everything."""

    def answer(job: Job) -> Claim:
        clauses = (word if word != SAT else UNKNOWN,) * job.question.clauses
        return Claim(word, f"stand says {word}", clauses, None if x is None else np.asarray(x(job)))

    return answer


def small_query(seed: int, kind: str = "dense", space: InputSpace | None = None) -> Query:
    model = load_model(random_model(seed, kind=kind, activations=("Relu",), classes=3))
    x0 = np.random.default_rng(seed).uniform(0.3, 0.7, model.input_shape).astype(np.float32)
    return make_query(model, x0, space=space)


def chain_of(query: Query, seed: int = 0, *, flat: bool = False) -> Model:
    """A substitute of the query's model with half of its units, as a chain."""
    network = lower(query.model)
    rng = np.random.default_rng(seed)
    x0 = query.space.normalise(query.x0[None])[0]
    kept = {a.output: rng.random(a.out_shape) < 0.5 for a in network.activations}
    g = substitute(network, lines(network, "act", x0), kept)
    return load_model(LAYOUTS["chain"](query.model, g, LayoutContext.of(query.space, query.x0, 0.1, flat_input=flat)))


def program(path: Path, code: str) -> Path:
    """A program in Python that can be started by its name."""
    path.write_text(f"#!{sys.executable}\n{code}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
