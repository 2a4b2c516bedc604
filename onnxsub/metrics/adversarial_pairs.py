"""All pairs of a model and some anchors, one after the other or side by side in processes; Ctrl-C keeps what is done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from onnxsub.errors import OptionError, SolverError
from onnxsub.family import until_gone
from onnxsub.isolation import safe_children
from onnxsub.metrics.adversarial import AdversarialOptions, Anchor, Pair, work_pair
from onnxsub.model import Model, load_model
from onnxsub.ops.base import Array
from onnxsub.query import Query, make_query

__all__ = ["Found", "Pairs", "find_pairs"]

Report = Callable[[float, str], None]
Solved = tuple[dict[str, Any], Array]
Stream = Generator[tuple[int, Solved], None, None]


@dataclass(frozen=True, eq=False)
class Found:
    """A pair and its point, float32, per-sample shape."""

    pair: Pair
    x: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Pairs:
    """What came of the pairs of one model.

    Attributes:
        name, path, sha256, classes: of the model.
        found: in the order of the anchors, then of the targets.
        planned: number of pairs that were to be solved.
        misclassified: positions of anchors that the model gives another class to begin with; they have no pairs.
        labels: label of every anchor, by its position.
        interrupted: ended by Ctrl-C.
    """

    name: str
    path: str
    sha256: str
    classes: int
    found: tuple[Found, ...]
    planned: int
    misclassified: tuple[int, ...]
    labels: dict[int, int]
    interrupted: bool

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return tuple(f.pair for f in self.found)

    @property
    def examples(self) -> tuple[Found, ...]:
        """The pairs whose point is strictly adversarial towards its target."""
        return tuple(f for f in self.found if f.pair.verdict == "example")


def find_pairs(
    path: str | os.PathLike[str],
    anchors: Sequence[Anchor],
    options: AdversarialOptions,
    *,
    jobs: int = 1,
    name: str | None = None,
    progress: Report | None = None,
    keep: Callable[[Pairs], None] | None = None,
) -> Pairs:
    """Solves every pair (anchor, target).

    Args:
        path: of the model.
        jobs: pairs side by side, each in a process of its own where there are several.
        name: what the model is called in the results; None: its file's name without the ending.
        progress: told the share of the pairs that are done.
        keep: given what is known whenever a pair is done.

    Raises:
        InputError: anchors or targets that do not fit the model, no number of jobs.
        UnsupportedOperatorError, MissingDependencyError, LicenceError: of the method.
        SolverError: of the solver; a worker process was lost.
    """
    if jobs < 1:
        raise OptionError(f"--jobs {jobs} is not possible; give 1 or more")
    model = load_model(path)
    todo: list[tuple[Anchor, int]] = []
    wrong, labels = [], {}
    for anchor in anchors:
        query = _query(model, anchor, options)
        labels[anchor.sample] = query.label
        targets = options.targets.of(query)
        if query.misclassified:
            wrong.append(anchor.sample)
        else:
            todo += [(anchor, t) for t in targets]
    done: dict[int, Found] = {}
    interrupted = False
    name = Path(path).stem if name is None else name

    def known() -> Pairs:
        found = tuple(done[i] for i in sorted(done))
        return Pairs(
            name, os.fspath(path), model.sha256, max(model.outputs, 2), found, len(todo), tuple(wrong), labels, interrupted
        )

    solved = _alone(model, todo, options) if jobs == 1 else _side_by_side(os.fspath(path), todo, options, jobs)
    try:
        for i, (result, x) in solved:
            done[i] = Found(Pair.of(name, todo[i][0].sample, result), x)
            interrupted = bool(result["interrupted"])
            if keep is not None:
                keep(known())
            if progress is not None:
                examples = sum(f.pair.verdict == "example" for f in done.values())
                progress(len(done) / len(todo), f"{name}: {len(done)} of {len(todo)} pairs, {examples} examples")
            if interrupted:
                break
    except KeyboardInterrupt:
        interrupted = True
    finally:
        solved.close()
    return known()


def _query(model: Model, anchor: Anchor, options: AdversarialOptions) -> Query:
    return make_query(model, anchor.x, anchor.label, space=options.space, threads=options.margin.limits.threads)


def _alone(model: Model, todo: list[tuple[Anchor, int]], options: AdversarialOptions) -> Stream:
    query: Query | None = None
    at: Anchor | None = None
    for i, (anchor, target) in enumerate(todo):
        if query is None or anchor is not at:
            query, at = _query(model, anchor, options), anchor
        yield i, work_pair(query, target, options.eps, options.margin)


def _side_by_side(path: str, todo: list[tuple[Anchor, int]], options: AdversarialOptions, jobs: int) -> Stream:
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin_worker)
    waiting: dict[Future[Solved], int] = {}
    rest = iter(enumerate(todo))
    try:
        while True:
            # no more than the workers can begin: what has not begun is dropped on Ctrl-C
            for i, (anchor, target) in rest:
                with safe_children():  # a worker is started by the first task that finds none idle
                    waiting[pool.submit(_in_worker, path, anchor, target, options)] = i
                if len(waiting) > jobs:
                    break
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        raise SolverError("a worker process was lost, perhaps for want of memory; use fewer --jobs, or less --memory") from error
    finally:
        workers = list((pool._processes or {}).values()) if waiting else []
        for process in workers:
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Ctrl-C is for the process that hands out the work, and where that is killed nobody waits for this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    until_gone(parent)
    os._exit(1)


@lru_cache(2)
def _model(path: str) -> Model:
    return load_model(path)


def _in_worker(path: str, anchor: Anchor, target: int, options: AdversarialOptions) -> Solved:
    import torch

    torch.set_num_threads(options.margin.limits.threads or 1)
    return work_pair(_query(_model(path), anchor, options), target, options.eps, options.margin)
