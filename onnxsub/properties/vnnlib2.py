"""VNN-LIB 2.0, the part that fits one classifier: one network with one real input tensor and one real output tensor.

    (vnnlib-version <2.0>)
    (declare-network N (declare-input X float32 [1, 784]) (declare-output Y float32 [1, 10]))
    (assert (<= X[0,0] 0.5))

Source: the VNN-LIB 2.0 standard, vnnlib.org. Hidden variables, several networks, several tensors and other element types are
refused by name. Integers where the standard wants decimals, exponents and chained comparisons are read too.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from onnxsub.ops.base import Shape
from onnxsub.properties.assemble import assemble
from onnxsub.properties.formula import Variables
from onnxsub.properties.property import Property
from onnxsub.properties.sexpr import Source, Tree

__all__ = ["read_version_2"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ELEMENT = re.compile(r"([A-Za-z][A-Za-z0-9_]*)[ \t]*(?:\[([^\]]*)\])?")
_TYPES = frozenset({"real", "Real", "float16", "float32", "float64"})


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: Shape
    token: int

    def place(self, text: str, source: Source, token: int) -> int:
        """The row-major position of the element `[text]`."""
        index = _numbers(text)
        if index is None or len(index) != len(self.shape) or any(i >= n for i, n in zip(index, self.shape, strict=True)):
            shape = ",".join(str(n) for n in self.shape)
            raise source.error(token, f"{self.name}[{text.strip()}] is no element of {self.name}, whose shape is [{shape}]")
        position = 0
        for i, n in zip(index, self.shape, strict=True):
            position = position * n + i
        return position


def read_version_2(source: Source, commands: list[list[Tree]]) -> Property:
    """The property of a text with one network.

    Raises:
        InputError: with file, line and column.
    """
    tokens = source.tokens
    networks: list[list[Tree]] = []
    assertions: list[Tree] = []
    version: str | None = None
    for command in commands:
        start, head = command[0], command[1] if len(command) > 1 else command[0]
        assert isinstance(start, int)
        name = tokens[head] if isinstance(head, int) else "("
        if name == "assert" and len(command) == 3:
            assertions.append(command[2])
        elif name == "vnnlib-version" and len(command) == 3 and isinstance(command[2], int):
            version = tokens[command[2]]
            if re.fullmatch(r"<2\.\d+>", version) is None:
                raise source.error(command[2], f"version {version} is not supported; known are <2.0> and texts of version 1.0")
        elif name == "declare-network":
            networks.append(command)
        else:
            raise source.error(
                start, f"command {name!r} is not supported like this; known are vnnlib-version, declare-network and assert"
            )
    if version is None:
        raise source.error(0, "declare-network needs VNN-LIB 2.0; begin the file with (vnnlib-version <2.0>)")
    if len(networks) != 1:
        token = networks[1][0] if len(networks) > 1 else 0
        assert isinstance(token, int)
        raise source.error(token, f"{len(networks)} networks are declared; a property of exactly one is supported")
    x, y = _network(source, networks[0])
    inputs, outputs = math.prod(x.shape), math.prod(y.shape)

    def lookup(token: int) -> int | None:
        match = _ELEMENT.fullmatch(tokens[token])
        if match is None or match.group(1) not in (x.name, y.name):
            return None
        tensor = x if match.group(1) == x.name else y
        # a tensor without axes may be named without brackets
        place = tensor.place(match.group(2) or "", source, token)
        return place if tensor is x else inputs + place

    variables = Variables(inputs, outputs, lookup, f"the elements of {x.name} and {y.name}")
    cases = assemble(source, variables, assertions, x.token, {i: element(x.name, x.shape, i) for i in range(inputs)})
    return Property(cases, x.shape, y.shape, "2.0", x.name, y.name, source.where)


def element(name: str, shape: Shape, position: int) -> str:
    """How VNN-LIB 2.0 writes the element at a row-major position."""
    index: list[int] = []
    for n in reversed(shape):
        position, i = divmod(position, n)
        index.append(i)
    return f"{name}[{','.join(str(i) for i in reversed(index))}]"


def _network(source: Source, command: list[Tree]) -> tuple[_Tensor, _Tensor]:
    """`(declare-network N (declare-input ...) (declare-output ...))`."""
    start = command[0]
    assert isinstance(start, int)
    if len(command) < 3 or not isinstance(command[2], int) or _NAME.fullmatch(source.tokens[command[2]]) is None:
        raise source.error(start, "a network needs a name: (declare-network N (declare-input ...) (declare-output ...))")
    found: dict[str, list[_Tensor]] = {"declare-input": [], "declare-output": []}
    for part in command[3:]:
        if isinstance(part, int):
            raise source.error(part, f"{source.tokens[part]!r} is not expected in a network; declare its input and output only")
        head = part[1] if len(part) > 1 else part[0]
        name = source.tokens[head] if isinstance(head, int) else "("
        if name not in found:
            assert isinstance(part[0], int)
            raise source.error(part[0], f"{name!r} is not supported; a network has one declare-input and one declare-output")
        found[name].append(_tensor(source, part))
    for name, tensors in found.items():
        if len(tensors) != 1:
            token = tensors[1].token if tensors else start
            raise source.error(token, f"the network has {len(tensors)} {name}; exactly one is supported")
    x, y = found["declare-input"][0], found["declare-output"][0]
    if x.name == y.name:
        raise source.error(y.token, f"input and output are both called {x.name}; rename one")
    return x, y


def _tensor(source: Source, part: list[Tree]) -> _Tensor:
    """`(declare-input X float32 [1, 784])`; the name of the ONNX tensor may follow as a string."""
    start = part[0]
    assert isinstance(start, int)
    words = [source.tokens[t] if isinstance(t, int) else "(" for t in part[2:]]
    match = _ELEMENT.fullmatch(words[1]) if len(words) in (2, 3) else None
    shape = _numbers(match.group(2)) if match is not None and match.group(2) is not None else None
    if match is None or shape is None or _NAME.fullmatch(words[0]) is None or (len(words) == 3 and words[2][0] != '"'):
        raise source.error(start, "a tensor is declared like (declare-input X float32 [1, 784])")
    if match.group(1) not in _TYPES:
        raise source.error(start, f"element type {match.group(1)} is not supported; known are real, float16, float32 and float64")
    if math.prod(shape) == 0:
        raise source.error(start, f"{words[0]} has an axis of length 0; check its shape")
    return _Tensor(words[0], shape, start)


def _numbers(text: str) -> Shape | None:
    """`1, 28, 28` as numbers; nothing is the empty shape; None for anything else."""
    if not text.strip():
        return ()
    parts = [p.strip() for p in text.split(",")]
    return tuple(int(p) for p in parts) if all(re.fullmatch(r"[0-9]{1,9}", p) for p in parts) else None
