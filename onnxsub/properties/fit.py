"""Whether a property speaks of a model: sizes, shapes, and what a head that was taken off allows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from onnxsub.errors import InputError
from onnxsub.model import Model
from onnxsub.ops.base import Shape
from onnxsub.properties.property import Clause, Property

__all__ = ["check_fits", "logit_clause", "shaped_like"]


def check_fits(found: Property, model: Model) -> None:
    """Raises InputError unless the property's tensors are the model's input and output."""
    if model.own.is_class:
        raise InputError(
            f"{found.where}: {model.where} ends in a class, of which no property of scores speaks; "
            "ask about the file that onnxsub info MODEL -o FILE.onnx writes"
        )
    for what, have, shape in (
        ("input", found.input_shape, model.input_shape),
        ("output", found.output_shape, model.output_shape),
    ):
        count, wanted = math.prod(have), math.prod(shape)
        if count != wanted:
            raise InputError(
                f"{found.where}: {count} {what}s are declared, {model.where} has {wanted}; give the property of this network"
            )
        a, b = _without_ones(have), _without_ones(shape)
        # one axis stands for the flattened tensor
        if len(a) > 1 and len(b) > 1 and a != b:
            raise InputError(
                f"{found.where}: {what} of shape {list(have)} does not fit {model.where}, whose {what} has {list(shape)}; "
                "write the property in the order of the network's axes"
            )
    if model.stripped:
        for case in found.cases:
            for clause in case.clauses:
                logit_clause(clause, model, found.where)


def shaped_like(found: Property, model: Model) -> Property:
    """The same property with the shapes of the model's tensors, batch axis in front, in place of flat ones (for VNN-LIB 2.0)."""
    check_fits(found, model)
    return replace(found, input_shape=(1, *model.input_shape), output_shape=(1, *model.output_shape))


def logit_clause(clause: Clause, model: Model, where: str) -> Clause:
    """The clause over the logits, where the file ends in a head: `softmax(z)_i <= softmax(z)_j` is `z_i <= z_j`, and
    `sigmoid(z) <= 1/2` is `z <= 0`.

    Raises:
        InputError: a row is of another form, whose meaning over the logits is not linear.
    """
    if not model.stripped:
        return clause
    bound = clause.b
    if model.outputs == 1:
        if (clause.b != 0.5 * clause.A[:, 0]).any():
            raise InputError(f"{where}: {model.where} ends in a Sigmoid, over which only comparisons with 0.5 are supported")
        bound = np.zeros_like(bound)
    elif (clause.A.sum(axis=1) != 0).any() or ((clause.A != 0).sum(axis=1) != 2).any() or (bound != 0).any():
        raise InputError(
            f"{where}: {model.where} ends in a Softmax, over which only comparisons of two outputs are supported; "
            "export the network without it"
        )
    return Clause(clause.A, bound, clause.strict)


def _without_ones(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)
