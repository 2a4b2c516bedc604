"""One call about a query, about a model and an anchor, or about a batch: the same steps for all calls with an anchor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from onnxsub.any_model import AnyModel
from onnxsub.api.keywords import in_python, refuse_unknown
from onnxsub.api.progress import AnyProgress, Teller, telling
from onnxsub.api.question import ASKED, AnyInput, Question, sight_of
from onnxsub.api.table import Table
from onnxsub.budget import OutOfTime
from onnxsub.errors import InputError, ModelError, OutOfTimeError, SolverError
from onnxsub.ops.base import Array
from onnxsub.query import Query
from onnxsub.shown import Sight

__all__ = ["Call", "answer", "check_alone", "check_keywords_only", "in_time", "split"]

O = TypeVar("O")
R = TypeVar("R")

Progress = Callable[..., Any]


@dataclass(frozen=True)
class Call(Generic[O, R]):
    """A call about one anchor.

    Attributes:
        name: of it. options: a dataclass. keywords: which it has besides.
        solve: the call of the library; its last argument is told how far it is.
        told: what that is for a part of a teller.
        point: the point that an answer holds, and its class.
        row: what of an answer stands in a table.
    """

    name: str
    options: O
    solve: Callable[[Query, O, Progress | None], R]
    told: Callable[[Teller, Query, int], Progress]
    point: Callable[[R], tuple[Array | None, int | None]]
    row: Callable[[R], dict[str, Any]]

    def about(self, query: Query, progress: Progress | None) -> R:
        """The answer about a query, with what a notebook shows of it."""
        with in_python(), in_time(self.name):
            result = self.solve(query, self.options, progress)
        return self.seen(query, result)

    def seen(self, query: Query, result: R) -> R:
        """The result with anchor and point."""
        sight: Sight = sight_of(query, *self.point(result))
        return replace(result, sight=sight)  # type: ignore[type-var]


def split(call: str, given: Mapping[str, Any], *own: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords of options, and those of model and anchor. Raises InputError for others."""
    refuse_unknown(call, given, ASKED, *own)
    options = {k: v for k, v in given.items() if k not in ASKED}
    return options, {k: v for k, v in given.items() if k not in options}


def answer(
    call: Call[O, R], model: AnyModel | Query, x: AnyInput, asked: Mapping[str, Any], progress: AnyProgress, threads: int | None
) -> R | Table:
    """The answer about a query or an anchor, or the table about a batch.

    Args:
        asked: keywords of `AskedOptions`.
        threads: of onnxruntime.
    """
    if isinstance(model, Query):
        check_alone(x, asked)
        return _single(call, model, progress)
    question = Question.of(model, x, asked, threads)
    return _batch(call, question, progress) if question.many else _single(call, question.query(), progress)


def check_alone(x: AnyInput, asked: Mapping[str, Any]) -> None:
    """Raises InputError where an anchor or a keyword stands beside a query, which holds both."""
    if x is not None:
        raise InputError("a query has its anchor; leave x out, or give query.model in place of the query")
    if asked:
        name = next(iter(asked))
        raise InputError(f"{name}: a query says that already; give it to make_query, or model and anchor in place of the query")


def check_keywords_only(**given: object) -> None:
    """Raises InputError where an object stands beside `run`, whose folder states every option by itself."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} is not possible with run, whose folder states every option; give them as keywords")


@contextmanager
def in_time(call: str) -> Iterator[None]:
    """Raises OutOfTimeError where the time ends inside the block."""
    try:
        yield
    except OutOfTime as error:
        raise OutOfTimeError(f"the time limit ended {call} before there was an answer; give more time (timeout=)") from error


def _single(call: Call[O, R], query: Query, progress: AnyProgress) -> R:
    if callable(progress):
        return call.about(query, progress)
    with telling(progress) as teller:
        return call.about(query, None if teller is None else call.told(teller, query, 0))


def _batch(call: Call[O, R], question: Question, progress: AnyProgress) -> Table:
    """One after the other; what fails is a row that says why."""
    rows: list[dict[str, Any]] = []
    results: list[R | None] = []
    interrupted = False
    with telling(progress, len(question.x)) as teller:
        for i, query in enumerate(question.queries()):
            head = {"index": i, "label": query.label, "predicted": query.predicted}
            if teller is not None:
                teller.share(i)(0.0, call.name)
            try:
                result = call.about(query, None if teller is None else call.told(teller, query, i))
            except (InputError, SolverError, OutOfTimeError) as error:
                if isinstance(error, ModelError) or type(error) not in (InputError, SolverError, OutOfTimeError):
                    raise  # of the model or the installation: every row would fail
                rows.append({**head, "status": "failed", "reason": str(error)})
                results.append(None)
                continue
            except KeyboardInterrupt:
                interrupted = True
                break
            rows.append({**head, **call.row(result)})
            results.append(result)
            if getattr(result, "interrupted", False):
                interrupted = True
                break
    return Table(call.name, _filled(rows), tuple(results), interrupted=interrupted)


def _filled(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The same columns in every row, in the order of the fullest one."""
    fullest: dict[str, Any] = max(rows, key=lambda row: len(row), default={})
    names = list(fullest)
    names += [n for row in rows for n in row if n not in names]
    return tuple({n: row.get(n) for n in dict.fromkeys(names)} for row in rows)
