"""One random setting, ready to be asked: the library's objects, a referee of its own, the truth, and a judge of every answer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.common import Answer, ask_ball, ask_distance, ask_property
from benchmarks.random_questions import Setting, loosened
from benchmarks.sampling import Anchor, logits_by_onnxruntime, nearest_sampled, worst
from benchmarks.truth import TooLarge, distance, pieces_of

__all__ = ["Asked", "Bench", "Truth", "asked_and_graded"]


@dataclass(frozen=True)
class Asked:
    """One question about a setting."""

    door: str  # ball, property, distance
    verifier: str
    radius: float
    loose: int | None = None
    tol: float = 0.0


@dataclass(frozen=True)
class Truth:
    """`lower <= d <= upper` of the real network; `by`: enumeration, float64 or float32."""

    lower: float
    upper: float
    by: str


class Bench:
    """One setting, ready to be asked: the library's objects, the referee's own session, the truth."""

    def __init__(self, setting: Setting, truth: Truth | None = None) -> None:
        import onnxsub

        self.setting = setting
        s = setting
        self.logits = logits_by_onnxruntime(s.model)
        mean, std = (None if v is None else (v,) for v in (s.mean, s.std))
        space = onnxsub.InputSpace(s.lower, s.upper, mean, std)
        self.model = onnxsub.load(s.model)
        shape = [d.dim_value for d in s.model.graph.input[0].type.tensor_type.shape.dim][1:]
        self.query = onnxsub.make_query(self.model, s.x0.reshape(shape), space=space, threads=1)
        self.at = Anchor(s.x0.astype(np.float64), self.query.label, s.lower, s.upper, s.mean or 0.0, s.std or 1.0)
        try:
            self.real = None if s.kind == "modern" else pieces_of(s.plain)
        except TooLarge:
            self.real = None
        self.truth = truth or self.find_truth()
        self.proved = 0.0  # the largest radius that an answer proved

    def find_truth(self) -> Truth:
        rng = np.random.default_rng([self.setting.seed, 3])
        if self.real is None:
            return Truth(0.0, nearest_sampled(self.logits, self.at, rng, beyond=1e-4), "float32")
        found = nearest_sampled(self.real, self.at, rng, beyond=1e-9)
        try:
            d = distance(self.real, self.at, best=found, programs=400)
            return Truth(d, d, "enumeration")
        except TooLarge:
            return Truth(0.0, found, "float64")

    def questions(self) -> Iterator[Asked]:
        rng = np.random.default_rng([self.setting.seed, 5])
        d, whole = self.truth.upper, float(np.maximum(self.at.x0 - self.at.lower, self.at.upper - self.at.x0).max())
        below, beyond = (0.3, 0.9, 0.999, 1.0), (1.0, 1.001, 1.1, 2.0)
        if math.isinf(d):
            below, beyond, d = (0.1, 0.5), (0.5, 1.0), whole
        near, far = float(d * rng.choice(below)), float(d * rng.choice(beyond))
        tol = 1e-6 if rng.random() < 0.2 else 1e-5 * self.at.width
        for verifier in ("bab", "milp"):
            for radius in (near, far):
                yield Asked("ball", verifier, radius)
                yield Asked("property", verifier, radius)
            yield Asked("distance", verifier, 0.0, None, tol)
            loose = int(rng.integers(2**31))
            yield Asked("ball", verifier, far, loose)
            yield Asked("property", verifier, far, loose + 1)
            yield Asked("distance", verifier, 0.0, loose + 2, tol)

    def ask(self, q: Asked, timeout: float) -> Answer:
        from onnxsub.properties import robustness_property

        with nullcontext() if q.loose is None else loosened(q.loose):
            if q.door == "ball":
                return ask_ball(self.query, q.radius, q.verifier, timeout, threads=1)
            if q.door == "property":
                return ask_property(self.model, robustness_property(self.query, q.radius), q.verifier, timeout, threads=1)
            return ask_distance(self.query, q.verifier, timeout, threads=1, tol=q.tol)

    def grade(self, q: Asked, a: Answer) -> tuple[str, str]:
        """`right`, `undecided` or `wrong`, and why. Later answers are held against earlier ones too."""
        grade, why = self.grade_alone(q, a)
        if grade == "wrong":
            return grade, why
        self.proved = max(self.proved, q.radius if a.status == "proved" else a.lower)
        if a.x is not None and (found := self.surely(a)) < self.truth.upper:
            self.truth = replace(self.truth, upper=found)
            if self.proved > found * (1 + 1e-6) + 1e-9 * self.at.width:
                return "wrong", f"a counterexample at {found:.9g} inside of what was proved, {self.proved:.9g}"
        return grade, why

    def surely(self, a: Answer) -> float:
        """The radius of a witness that rounding cannot explain, else infinity."""
        x = np.asarray(a.x, dtype=np.float64).reshape(1, -1)
        x, fed = (x * self.at.std + self.at.mean, x) if a.fed else (x, self.at.fed(x))
        logits, beyond = (self.logits, 1e-4) if self.real is None else (self.real, 1e-9)
        out = logits(fed)
        sure = worst(out, self.at.label)[0] > beyond * (1 + np.abs(out).max())
        return float(np.abs(x - self.at.x0).max()) if sure else math.inf

    def grade_alone(self, q: Asked, a: Answer) -> tuple[str, str]:
        t, slack = self.truth, 1e-9 * self.at.width
        beyond = t.upper * (1 + 1e-6) + slack  # a point of the real network lies within it for certain
        if q.door == "distance":
            return self.grade_bracket(q, a, beyond)
        if a.status == "proved":
            return ("wrong", f"proved at {q.radius:.9g}, a counterexample at {t.upper:.9g}") if q.radius > beyond else ("right", "")
        if a.status == "violated":
            if a.x is None:
                return "wrong", "violated without a witness"
            why = self.replay(a, q.radius)
            if not why and q.radius < t.lower * 0.99 - slack and self.short(a):
                why = f"violated at {q.radius:.9g}, the distance is {t.lower:.9g}, and float64 does not see it"
            return ("wrong", why) if why else ("right", "")
        return "undecided", a.reason

    def grade_bracket(self, q: Asked, a: Answer, beyond: float) -> tuple[str, str]:
        t = self.truth
        if a.lower > beyond:
            return "wrong", f"lower {a.lower:.9g} above a counterexample at {t.upper:.9g} ({a.status})"
        if a.status == "none" and t.upper < math.inf:
            return "wrong", f"no boundary, a counterexample at {t.upper:.9g}"
        if a.upper < math.inf:
            why = "an upper end without a witness" if a.x is None else self.replay(a, a.upper, tie=True)
            if not why and a.upper < t.lower * 0.99 - 1e-6 * self.at.width and self.short(a):
                why = f"upper {a.upper:.9g} below the distance {t.lower:.9g}, and float64 does not see it"
            if why:
                return "wrong", why
        if a.status == "exact" and not a.upper - a.lower <= q.tol * (1 + 1e-6):
            return "wrong", f"exact, {a.lower:.9g} to {a.upper:.9g}, tolerance {q.tol:g}"
        return ("undecided", a.reason) if a.status == "bracket" else ("right", "")

    def replay(self, a: Answer, radius: float, *, tie: bool = False) -> str:
        """Why the witness does not count; empty where it does."""
        s, x = self.setting, np.asarray(a.x, dtype=np.float64).reshape(-1)
        if a.fed:
            low, high = (self.at.fed(np.clip(self.at.x0 + w * radius, s.lower, s.upper)) for w in (-1, 1))
            low, high = np.minimum(low, low.astype(np.float32)), np.maximum(high, high.astype(np.float32))
            inside, fed = bool(((low <= x) & (x <= high)).all()), x
        else:
            inside = bool((np.abs(x - self.at.x0) <= radius).all() and (x >= s.lower).all() and (x <= s.upper).all())
            fed = self.at.fed(x)
        if not inside:
            return "the witness lies outside the ball or the domain"
        out = self.logits(fed[None])
        margin = float(worst(out, self.at.label)[0])
        least = -1e-5 * (np.abs(out).max() + np.abs(self.logits(self.at.fed(self.at.x0[None]))).max()) if tie else 0.0
        return "" if margin >= least else f"the witness does not replay: margin {margin:g}"

    def short(self, a: Answer) -> bool:
        """Whether the witness misses the boundary over the reals by more than rounding."""
        if self.real is None:
            return False
        x = np.asarray(a.x, dtype=np.float64).reshape(1, -1)
        out = self.real(x if a.fed else self.at.fed(x))
        return bool(worst(out, self.at.label)[0] < -1e-3 * (1 + np.abs(out).max()))


def asked_and_graded(bench: Bench, q: Asked, timeout: float) -> tuple[str, str, float]:
    """Grade, reason, seconds: also `refused` (an operator has no MILP rows), `no answer` (of the solver), `crash`."""
    from onnxsub.errors import LicenceError, MissingDependencyError, SolverError, UnsupportedOperatorError

    began = time.perf_counter()
    try:
        answer = bench.ask(q, timeout)
    except (UnsupportedOperatorError, LicenceError, MissingDependencyError) as error:
        return "refused", str(error), time.perf_counter() - began
    except SolverError as error:
        return "no answer", str(error), time.perf_counter() - began
    except Exception as error:  # whatever no caller expects
        return (
            "crash",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200],
            time.perf_counter() - began,
        )
    return *bench.grade(q, answer), time.perf_counter() - began
