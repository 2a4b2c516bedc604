"""What every unit of a run would fail on, found out before the first one: then there is no run folder to be repaired."""

from __future__ import annotations

import numpy as np

from onnxsub.errors import InputError
from onnxsub.model import Model
from onnxsub.network import Network
from onnxsub.passes.select import SelectOptions
from onnxsub.passes.substitute import check_method
from onnxsub.query import Query, analysis_network
from onnxsub.region import InputSpace
from onnxsub.runtime import Runtime

__all__ = ["check_substitute", "probe"]


def probe(model: Model, space: InputSpace) -> Query:
    """A question about the middle of the domain, whatever the model says there: for checks that do not depend on the sample.

    Raises:
        UnsupportedOperatorError: an operator of the model is not in the table.
        InputError: normalisation that does not fit the model's input; whole numbers without a range.
        ModelError: onnxruntime does not accept the model.
    """
    space.check_fed(model.input_dtype, model.input_shape)
    if model.whole and not space.per_feature and space.hull == (0.0, 1.0):
        raise InputError(f"{model.where} takes {model.feed.dtype}; say the range of its inputs, for instance --domain 0 255")
    space = space.over(model.feed.dtype)
    network = analysis_network(model, space)
    lower, upper = space.ends(model.input_shape)
    middle = lower + (upper - lower) / 2
    return Query(model, space, np.ascontiguousarray(space.inside(middle)), 0, 0, network, Runtime(model, threads=1))


def check_substitute(network: Network, method: str, select: SelectOptions) -> None:
    """Raises InputError where no substitute of this kind exists, whatever the sample."""
    check_method(network, method)
    select.pruned_of(network.units_and_windows)
