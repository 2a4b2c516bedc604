"""Robustness as an assertion, for the test suite of whoever trains a model.

    from onnxsub.testing import assert_robust

    def test_the_release_keeps_its_class():
        assert_robust("model.onnx", x, eps=0.05, label=7)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxsub.any_model import AnyModel, any_model
from onnxsub.budget import check_whole
from onnxsub.errors import InputError
from onnxsub.gate.options import NODES
from onnxsub.model import Model
from onnxsub.ops.base import Array
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.result import VerifyResult
from onnxsub.verifiers.verify import VerifyOptions, verify

__all__ = ["NotRobustError", "assert_robust"]

_SHOWN = 3


class NotRobustError(AssertionError):
    """What `assert_robust` raises.

    Attributes:
        sample: position in the batch. label: class that was to be kept.
        witness: an input of the ball that the model gives another class, confirmed by onnxruntime (float32, per-sample shape); None
            where the sample is undecided.
        result: of the decision.
    """

    def __init__(self, message: str, sample: int, label: int, witness: Array | None, result: VerifyResult) -> None:
        super().__init__(message)
        self.sample = sample
        self.label = label
        self.witness = witness
        self.result = result


def assert_robust(
    model: AnyModel,
    x: Any,
    eps: float,
    *,
    label: Any = None,
    domain: tuple[float, float] = (0.0, 1.0),
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    nodes: int | None = NODES,
    timeout: float | None = None,
    undecided: str = "fail",
) -> None:
    """Passes where it is proved that no input within `eps` of `x` (in each value) has another class.

    Args:
        model: a path, bytes, a message, a `Model` or a torch module, which is exported.
        x: one input of the model's per-sample shape, with or without a batch axis, or a batch of them.
        eps: radius in un-normalised input units.
        label: the class to keep, or one per row of a batch; None: the predicted one.
        domain, mean, std: see `onnxsub.region.InputSpace`.
        nodes: of the search, per input, a limit that is the same on every machine; None for no limit.
        timeout: seconds per input; None for no limit.
        undecided: `fail`, or `pass` for a test that is to fail on a counterexample only.

    Raises:
        NotRobustError: an AssertionError that names the input, the class it turns into and the witness.
        InputError, ModelError: of the model, the input or the options.
    """
    if undecided not in ("fail", "pass"):
        raise InputError(f"undecided={undecided!r} is neither 'fail' nor 'pass'; choose one")
    read = any_model(model, x)
    space = InputSpace(domain[0], domain[1], mean, std)
    options = VerifyOptions(limits=Limits(timeout=timeout, nodes=nodes))
    rows = _rows(x, read)
    labels = _labels(label, len(rows))
    for number, (row, wanted) in enumerate(zip(rows, labels, strict=True)):
        query = make_query(read, row, wanted, space=space, threads=1)
        result = verify(query, eps, options)
        check_whole(result.interrupted)
        if result.status == "violated" or (result.status != "proved" and undecided == "fail"):
            raise _error(query, result, eps, number, len(rows))


def _rows(x: Any, model: Model) -> list[Array]:
    """The inputs of a batch; one input alone is a batch of one."""
    try:
        data = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"x is no array ({str(error).splitlines()[0]}); give a NumPy array of floats") from error
    return list(data) if data.shape[1:] == model.input_shape else [data]


def _labels(label: Any, count: int) -> list[int | None]:
    if label is None:
        return [None] * count
    given = [int(value) for value in np.atleast_1d(np.asarray(label))]
    if len(given) == 1:
        return [given[0]] * count
    if len(given) != count:
        raise InputError(f"{len(given)} labels do not belong to {count} inputs; give one, or one per input")
    return list(given)


def _error(query: Query, result: VerifyResult, eps: float, number: int, count: int) -> NotRobustError:
    which = f"{query.model.where}" + ("" if count == 1 else f", input {number} of {count}")
    head = f"{which}, class {query.label}, is"
    if result.status != "violated" or result.witness is None:
        message = f"{head} undecided at radius {eps:g}: {result.reason}"
        return NotRobustError(message, number, query.label, None, result)
    witness = result.witness
    if query.misclassified:
        message = f"{head} not robust: the model says {query.predicted} of the input itself"
    else:
        message = (
            f"{head} not robust at radius {eps:g}: it becomes class {witness.label} at distance {witness.radius:.6g} "
            f"({_changes(query.x0, witness.x)}); the witness is the error's attribute 'witness', confirmed by onnxruntime"
        )
    return NotRobustError(message, number, query.label, witness.x, result)


def _changes(x0: Array, x: Array) -> str:
    """The values that differ most."""
    difference = np.abs(x.astype(np.float64) - x0)
    first = np.argsort(-difference, axis=None, kind="stable")[:_SHOWN]
    places = [tuple(int(i) for i in np.unravel_index(flat, x0.shape)) for flat in first if difference.flat[flat] > 0]
    parts = [f"x[{', '.join(map(str, place))}] {x0[place]:.4g} -> {x[place]:.4g}" for place in places]
    more = int((difference > 0).sum()) - len(parts)
    return ", ".join(parts) + (f" and {more:,} more values" if more > 0 else "")
