"""The difference network of two networks of the same input and number of classes: `x -> f(x) - g(x)`."""

from __future__ import annotations

from dataclasses import replace

from onnxsub.errors import InputError
from onnxsub.network import Network
from onnxsub.ops.base import Operator
from onnxsub.ops.combine import Sum
from onnxsub.ops.movement import flatten
from onnxsub.ops.substituted import Substituted
from onnxsub.ops.substituted_max import SubstitutedMax

__all__ = ["difference_network", "renamed"]


def renamed(network: Network, prefix: str, source: str) -> Network:
    """The network with `prefix` before every tensor that an operator writes, reading its input from `source`."""
    names = {network.input: source} | {op.output: prefix + op.output for op in network.ops}
    return Network(source, network.input_shape, names[network.output], tuple(_rename(op, names) for op in network.ops))


def _rename(op: Operator, names: dict[str, str]) -> Operator:
    inputs, output = tuple(names[n] for n in op.inputs), names[op.output]
    if isinstance(op, Substituted):
        return replace(op, inputs=inputs, output=output, base=replace(op.base, inputs=inputs, output=output))
    if isinstance(op, SubstitutedMax):
        return op.renamed(inputs, output)
    return replace(op, inputs=inputs, output=output)


def difference_network(f: Network, g: Network) -> Network:
    """`f - g`, logit by logit, as one network: bounds on it are bounds on how far the two differ.

    Raises:
        InputError: inputs or numbers of classes do not match.
    """
    if f.input_shape != g.input_shape or f.classes != g.classes:
        raise InputError(
            f"the two networks do not fit: inputs {list(f.input_shape)} and {list(g.input_shape)}, "
            f"classes {f.classes} and {g.classes}; compare networks of the same input and output"
        )
    source = "x"
    a, b = renamed(f, "f/", source), renamed(g, "g/", source)
    fa, fb = flatten(a.output, a.output_shape, "f:logits"), flatten(b.output, b.output_shape, "g:logits")
    shape = (f.classes,)
    last = Sum(
        op_type="Sub",
        node="f - g",
        inputs=(fa.output, fb.output),
        output="f-g",
        in_shapes=(shape, shape),
        out_shape=shape,
        signs=(1, -1),
    )
    return Network(source, f.input_shape, last.output, (*a.ops, fa, *b.ops, fb, last))
