"""Malformed and odd inputs of every kind: one seed is one file and the command lines that read it."""

from __future__ import annotations

import io
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from tests.fuzz.alterations import alter, copy_of
from tests.fuzz.make_corpus import CORPUS
from tests.random_models import ACTIVATIONS, random_model

__all__ = ["KINDS", "finished_runs", "make"]

Random = np.random.Generator
Made = tuple[str, list[list[str]]]
"""A file of the folder, and command lines (without the folder)."""

RUNS = "runs"
"""The folder, beside those of the seeds, of the runs that are altered."""

_NUMBERS = (0, 1, -1, 2, 3, 7, 255, 2**15, 2**31 - 1, -(2**31), 2**33, 10**9)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-30, 3.4e38, -3.4e38, float("nan"), float("inf"), float("-inf"), 0.5, 1e30)
_WORDS = ("", "x", "0", "../x", "/etc/passwd", "a\x1b[2Jb", "‮", "N", "=cmd", "é" * 40, "\x00", "NOTSET", "SAME_UPPER", "nearest")


def make(kind: str, seed: int, folder: Path) -> list[list[str]]:
    """Writes the input of a seed into a folder that is empty; returns command lines about it, with paths in that folder."""
    rng = np.random.default_rng([seed, *kind.encode()])
    name, commands = KINDS[kind](rng, folder)
    assert (folder / name).exists()
    return commands


def flipped(data: bytes, rng: Random) -> bytes:
    """Bytes changed, removed, doubled or cut off."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, more = int(rng.integers(len(found) + 1)), int(rng.integers(1, 9))
        match rng.integers(6):
            case 0 if at < len(found):
                found[at] ^= 1 << int(rng.integers(8))
            case 1 if at < len(found):
                found[at] = int(rng.choice([0, 1, 127, 128, 255]))
            case 2:
                del found[at : at + more]
            case 3:
                found[at:at] = rng.bytes(more)
            case 4:
                found[at:at] = found[at : at + 16 * more]
            case _ if rng.random() < 0.3:
                del found[at:]
    return bytes(found)


def _pick(rng: Random, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def _kept(rng: Random, *endings: str) -> Path:
    """A file of the corpus."""
    return _pick(rng, sorted(path for path in CORPUS.iterdir() if path.name.endswith(endings)))


def _network(folder: Path) -> tuple[str, str]:
    """A good network of four inputs, and an anchor."""
    weights = np.random.default_rng(1)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 4), ("y", 3)))
    shapes = {"a": (4, 6), "b": (6,), "c": (6, 3), "d": (3,)}
    tensors = {n: weights.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"]), helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "c", "d"], ["y"]),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(v, k) for k, v in tensors.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "good.onnx")
    np.save(folder / "good.npy", np.full((1, 4), 0.5, dtype=np.float32))
    return "good.onnx", "good.npy"


# -- models


def _model(rng: Random, folder: Path) -> Made:
    if rng.random() < 0.6:
        proto = onnx.load(_kept(rng, ".onnx"))
    else:
        proto = random_model(int(rng.integers(10**6)), activations=tuple(rng.choice(ACTIVATIONS, 2)))
    shape = [max(d.dim_value, 1) for d in proto.graph.input[0].type.tensor_type.shape.dim[1:]]
    np.save(folder / "x0.npy", np.full((1, *shape), 0.5, dtype=np.float32))
    for _ in range(int(_pick(rng, (1, 1, 2, 3)))):
        _pick(rng, _CHANGES)(proto, rng)
    try:
        data = proto.SerializeToString()
    except ValueError:  # a text that is none
        data = random_model(0).SerializeToString()
    if rng.random() < 0.15:
        data = flipped(data, rng)
    (folder / "m.onnx").write_bytes(data)
    asked = ["--x0", "x0.npy", "--timeout", "1"]
    more = _pick(rng, (["verify", "m.onnx", *asked, "--eps", "0.05"], ["attack", "m.onnx", *asked], ["distance", "m.onnx", *asked]))
    return "m.onnx", [["info", "m.onnx", "--json"], more]


def _node(proto: ModelProto, rng: Random) -> NodeProto:
    return proto.graph.node[int(rng.integers(len(proto.graph.node)))] if len(proto.graph.node) else proto.graph.node.add()


def _operator(proto: ModelProto, rng: Random) -> None:
    _node(proto, rng).op_type = _pick(rng, _SCHEMAS)


def _one_more(proto: ModelProto, rng: Random) -> None:
    """A node of any operator, between a node and those that read it."""
    node, schema = _node(proto, rng), defs.get_schema(_pick(rng, _SCHEMAS))
    out = node.output[0] if node.output else "q"
    extra = [w.name for w in proto.graph.initializer]
    names = [out, *(_pick(rng, extra) for _ in range(max(0, schema.min_input - 1)) if extra)]
    made = helper.make_node(schema.name, names, [f"{out}_more"])
    for key, attribute in schema.attributes.items():
        if rng.random() < 0.5:
            value = {1: 0.5, 2: int(_pick(rng, _NUMBERS)), 3: _pick(rng, _WORDS), 7: [int(rng.integers(-3, 4)) for _ in range(3)]}
            kind = attribute.type.value
            if kind in value:
                made.attribute.append(helper.make_attribute(key, value[kind]))
    for other in proto.graph.node:
        for i, name in enumerate(other.input):
            if name == out:
                other.input[i] = f"{out}_more"
    proto.graph.node.insert(int(rng.integers(len(proto.graph.node) + 1)), made)


def _attribute(proto: ModelProto, rng: Random) -> None:
    found = [a for node in proto.graph.node for a in node.attribute]
    if not found:
        return
    a = _pick(rng, found)
    if a.ints:
        match rng.integers(3):
            case 0:
                a.ints[int(rng.integers(len(a.ints)))] = int(_pick(rng, _NUMBERS))
            case 1:
                a.ints.pop()
            case _:
                a.ints.extend([1, 2, 3])
    elif a.type == onnx.AttributeProto.FLOAT:
        a.f = float(_pick(rng, _FLOATS))
    elif a.type == onnx.AttributeProto.INT:
        a.i = int(_pick(rng, _NUMBERS))
    else:
        a.name = _pick(rng, ("axis", "kernel_shape", "pads", "x"))


def _dropped(proto: ModelProto, rng: Random) -> None:
    if len(proto.graph.node) > 1:
        del proto.graph.node[int(rng.integers(len(proto.graph.node)))]


def _doubled(proto: ModelProto, rng: Random) -> None:
    proto.graph.node.insert(int(rng.integers(len(proto.graph.node) + 1)), _node(proto, rng))


def _wires(proto: ModelProto, rng: Random) -> None:
    names = [n for node in proto.graph.node for n in (*node.input, *node.output)] or ["x"]
    node = _node(proto, rng)
    side = node.input if rng.random() < 0.7 else node.output
    if len(side):
        side[int(rng.integers(len(side)))] = _pick(rng, (*names, *_WORDS[:3]))


def _weights(proto: ModelProto, rng: Random) -> None:
    if not proto.graph.initializer:
        return
    tensor = _pick(rng, proto.graph.initializer)
    try:
        values = numpy_helper.to_array(tensor).copy()
    except (ValueError, TypeError, onnx.checker.ValidationError):  # changed before
        return
    match rng.integers(7):
        case 0 if values.size and values.dtype.kind == "f":
            values.reshape(-1)[int(rng.integers(values.size))] = _pick(rng, _FLOATS)
        case 1:
            values = values.reshape(-1)[: max(0, values.size - 1)]
        case 2:
            values = values.astype(_pick(rng, (np.float64, np.float16, np.int64, np.int8, np.uint8, np.bool_)))
        case 3:
            values = values.T
        case 4:
            tensor.dims[:] = [int(_pick(rng, _NUMBERS)) for _ in tensor.dims]
            return
        case 5:
            tensor.data_type = int(rng.integers(0, 24))
            return
        case _:
            tensor.data_location = TensorProto.EXTERNAL
            where = _pick(rng, ("../good.npy", "/etc/passwd", "x0.npy", "", "a\x00b"))
            tensor.external_data.add(key="location", value=where)
            return
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _versions(proto: ModelProto, rng: Random) -> None:
    match rng.integers(4) if proto.opset_import else 1:
        case 0:
            proto.opset_import[0].version = int(_pick(rng, (0, 1, 6, 7, 8, 9, 11, 12, 17, 18, 21, 24, 26, 27, 99, -1)))
        case 1:
            proto.ir_version = int(_pick(rng, (0, 1, 3, 4, 8, 10, 13, 14, 99)))
        case 2:
            proto.opset_import[0].domain = _pick(rng, ("ai.onnx.ml", "evil", ""))
        case _:
            del proto.opset_import[:]


def _signature(proto: ModelProto, rng: Random) -> None:
    value = _pick(rng, [*proto.graph.input, *proto.graph.output])
    kind = value.type.tensor_type
    match rng.integers(6):
        case 0 if kind.shape.dim:
            _pick(rng, kind.shape.dim).dim_value = int(_pick(rng, _NUMBERS))
        case 1 if kind.shape.dim:
            _pick(rng, kind.shape.dim).dim_param = _pick(rng, _WORDS[:8])
        case 2:
            kind.elem_type = int(rng.integers(0, 24))
        case 3:
            value.name = _pick(rng, ("x", "y", "t0", "t1", "zz"))
        case 4:
            del kind.shape.dim[:]
        case _:
            proto.graph.output.append(value)


def _names(proto: ModelProto, rng: Random) -> None:
    node, word = _node(proto, rng), _pick(rng, _WORDS)
    node.name = word
    node.domain = _pick(rng, ("", "", "evil", "com.microsoft", "ai.onnx.ml"))
    key, value = _pick(rng, ("onnxsub.zoo", "onnxsub.substitute", "x")), _pick(rng, (*_WORDS, "{", '{"budget": []}'))
    proto.metadata_props.add(key=key, value=value)


_CHANGES: tuple[Callable[[ModelProto, Random], None], ...] = (
    _operator, _one_more, _one_more, _attribute, _attribute, _dropped, _doubled, _wires, _weights, _weights, _versions, _signature,
    _names,
)  # fmt: skip
_SCHEMAS = sorted({s.name for s in defs.get_all_schemas() if s.domain == "" and not s.deprecated})


# -- arrays


def _array(rng: Random) -> np.ndarray[Any, Any]:
    shape = _pick(rng, ((1, 4), (1, 4), (4,), (2, 4), (1, 2, 2), (0, 4), (), (1, 4, 1), (3,), (1, 5), (4, 1), (1, 1, 4)))
    kind = _pick(rng, ("<f4", "<f4", "<f8", ">f4", "u1", "<i8", "?", "<c16", "S3", "<U2", "<f2", "<M8[s]", "<u2", "V4"))
    values = np.asarray(rng.random(shape))
    if values.size and rng.random() < 0.3:
        values.reshape(-1)[0] = _pick(rng, _FLOATS)
    with np.errstate(all="ignore"):
        return values.astype(kind) if kind[0] in "<>u" and kind[1] not in "UM" else np.zeros(shape, kind)


def _npy(rng: Random, folder: Path) -> Made:
    file = io.BytesIO()
    if rng.random() < 0.1:
        np.save(file, np.array([folder, {}], dtype=object), allow_pickle=True)
    else:
        np.save(file, _array(rng))
    data = file.getvalue()
    if rng.random() < 0.3:
        shape = _pick(rng, (b"(1000000000, 4)", b"(-1, 4)", b"(1, 4", b"(99999999999999999999,)", b"(1, 'x')", b"()" * 900))
        kind = _pick(rng, (b"<f4", b"|O", b"<f99", b"(3,)f4", b"|V1000000000"))
        header = b"{'descr': '" + kind + b"', 'fortran_order': False, 'shape': " + shape + b", }\n"
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 65536) + header + rng.bytes(16)
    if rng.random() < 0.3:
        data = _kept(rng, ".npy").read_bytes()
    if rng.random() < 0.3:
        data = flipped(data, rng)
    (folder / "x.npy").write_bytes(data)
    model, _ = _network(folder)
    return "x.npy", [["attack", model, "--x0", "x.npy", "--timeout", "1"]]


def _npz(rng: Random, folder: Path) -> Made:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", _pick(rng, (0, 8))) as archive:
        for _ in range(int(rng.integers(0, 4))):
            member = io.BytesIO()
            np.save(member, _array(rng))
            name = _pick(rng, ("x.npy", "y.npy", "../x.npy", "/x.npy", "x", "x.npy/", "=a.npy", "é.npy", "x.npy"))
            archive.writestr(name, member.getvalue() if rng.random() < 0.8 else rng.bytes(30))
    data = _kept(rng, ".npz").read_bytes() if rng.random() < 0.3 else file.getvalue()
    if rng.random() < 0.5:
        data = flipped(data, rng)
    (folder / "x.npz").write_bytes(data)
    model, _ = _network(folder)
    return "x.npz", [["attack", model, "--x0", "x.npz", "--timeout", "1", *(["--index", "0"] if rng.random() < 0.5 else [])]]


def _png(rng: Random, folder: Path) -> Made:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data) if rng.random() < 0.9 else 0
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    depth, colour = int(_pick(rng, (1, 2, 4, 8, 16, 3))), int(_pick(rng, (0, 2, 3, 4, 6, 5)))
    wide, high = int(_pick(rng, (2, 2, 4, 1, 0, 2**31 - 1, 50000))), int(_pick(rng, (2, 2, 1, 0, 50000)))
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, int(rng.integers(0, 3))))]
    if rng.random() < 0.4:
        name = _pick(rng, (b"PLTE", b"tEXt", b"zTXt", b"iCCP", b"tRNS", b"acTL", b"eXIf"))
        parts.append(chunk(name, rng.bytes(int(rng.integers(0, 40)))))
    pixels = rng.bytes(int(rng.integers(0, 60)))
    if rng.random() < 0.6:  # one that can be read
        pixels = b"".join(b"\x00" + rng.bytes(2) for _ in range(2))
        parts[0] = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, int(_pick(rng, (0, 0, 0, 3))), 0, 0, 0))
    parts += [chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    if rng.random() < 0.2:
        other = (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n", b"GIF89a", b"BM", b"II*\x00", b"\xff\xd8\xff\xe0")
        data = _pick(rng, other) + data[8:]
    if rng.random() < 0.4:
        data = _kept(rng, ".png", ".jpg").read_bytes()
    if rng.random() < 0.4:
        data = flipped(data, rng)
    name = _pick(rng, ("x.png", "x.png", "x.jpg"))
    (folder / name).write_bytes(data)
    model, _ = _network(folder)
    return name, [["attack", model, "--x0", name, "--timeout", "1"]]


# -- texts


def _csv(rng: Random, folder: Path) -> Made:
    cells = (
        "0.5", "1", "", "nan", "1e999", "-1e-400", "x", '"', '"a,b"', "=1+1", "0x1", "1_0", "\uff11", "\x00", "1;2", " 0.5 ",
        "9" * 400,
    )  # fmt: skip
    lines = [",".join(("0.5", "0.25", "0.75", "1")) for _ in range(int(rng.integers(0, 4)))]
    if rng.random() < 0.5:
        lines.insert(0, _pick(rng, ("a,b,c,d", "a,b,c,d,label", "a,a,b,c", "", ",,,", "=a,b,c,d", "0,1,2,3")))
    text = _pick(rng, ("\n", "\n", "\r\n", "\r", ";")).join(lines)
    for _ in range(int(rng.integers(0, 4))):
        at = int(rng.integers(len(text) + 1))
        text = text[:at] + _pick(rng, cells) + _pick(rng, (",", "", "\n")) + text[at + int(rng.integers(3)) :]
    data = text.encode(_pick(rng, ("utf-8", "utf-8", "utf-16", "utf-8-sig")), errors="replace")
    if rng.random() < 0.3:
        data = _kept(rng, ".csv").read_bytes()
    if rng.random() < 0.2:
        data = flipped(data + b"0", rng)
    (folder / "x.csv").write_bytes(data)
    model, anchor = _network(folder)
    some = (
        ["attack", model, "--x0", "x.csv", "--timeout", "1", *(["--index", "0"] if rng.random() < 0.6 else [])],
        ["attack", model, "--x0", anchor, "--mean", "x.csv", "--std", "2", "--timeout", "1"],
        ["attack", model, "--x0", anchor, "--domain", "x.csv", "--timeout", "1"],
    )
    return "x.csv", [_pick(rng, some)]


def _vnnlib(rng: Random, folder: Path) -> Made:
    lines = [f"(declare-const X_{i} Real)" for i in range(4)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    lines += [f"(assert (>= X_{i} 0.4))\n(assert (<= X_{i} 0.6))" for i in range(4)]
    lines += [_pick(rng, ("(assert (<= Y_0 Y_1))", "(assert (or (and (<= Y_0 Y_1)) (and (<= Y_0 Y_2))))", "(assert (>= Y_0 1e3))"))]
    if rng.random() < 0.2:
        lines = [
            "(vnnlib-version <2.0>)", "(declare-network f (declare-input X float32 [1,4]) (declare-output Y float32 [1,3]))",
            *[f"(assert (and (>= X[0,{i}] 0.4) (<= X[0,{i}] 0.6)))" for i in range(4)], "(assert (<= Y[0,0] Y[0,1]))",
        ]  # fmt: skip
    words = "\n".join(lines).replace("(", " ( ").replace(")", " ) ").split(" ")
    odd = (
        "(", ")", "or", "and", "assert", "X_0", "X_99999999999", "Y_0", "Y_-1", "1e999", "nan", "-0", "9" * 500, "1/3", "<=", ">=",
        "=", "not", ";", "é", "\x00", "(" * 300, "()", "X[0,0]", "0x10", "declare-const", "Real", "+", "*", "1e-400", '"', "|x|",
    )  # fmt: skip
    for _ in range(int(rng.integers(0, 4))):
        at = int(rng.integers(len(words)))
        match rng.integers(4):
            case 0:
                words[at] = _pick(rng, odd)
            case 1:
                del words[at]
            case 2:
                words.insert(at, _pick(rng, odd))
            case _:
                words[at:at] = words[at : at + int(rng.integers(1, 30))]
    data = " ".join(words).encode()
    name = "p.vnnlib"
    if rng.random() < 0.3:
        kept = _kept(rng, ".vnnlib", ".vnnlib.gz")
        name, data = f"p{kept.name[kept.name.index('.') :]}", kept.read_bytes()
    if rng.random() < 0.2:
        data = flipped(data, rng)
    (folder / name).write_bytes(data)
    model, _ = _network(folder)
    return name, [["verify", model, name, "--timeout", "1"]]


# -- run folders


def _run(rng: Random, folder: Path) -> Made:
    """An altered run; `finished_runs` has made two."""
    runs = folder.parent / RUNS
    copy_of(runs / "run", folder / "run")
    for _ in range(int(_pick(rng, (1, 1, 1, 3)))):
        try:
            alter(folder / "run", runs / "foreign", int(rng.integers(10**6)))
        except (OSError, sqlite3.Error, ValueError, TypeError, IndexError):  # what was altered before is in the way
            break
    return "run", [["report", "run", "-o", "page", "--images", "1"]]


def finished_runs(folder: Path) -> None:
    """The runs that `_run` alters."""
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.run import evaluate
    from onnxsub.evaluate.samples import Choice, read_samples
    from onnxsub.evaluate.settings import Settings
    from tests.robustness_tools import Here

    for seed, name in ((5, "run"), (6, "foreign")):
        place = folder / RUNS / f"{name}-files"
        place.mkdir(parents=True)
        proto = random_model(seed, kind="dense", classes=3)
        onnx.save(proto, place / "net.onnx")
        shape = tuple(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:])
        np.savez(place / "data.npz", x=np.random.default_rng(seed).random((2, *shape)).astype(np.float32))
        settings = Settings(methods=("lin",), gammas=(0.9,), timeout=20.0)
        plan = Plan.of((str(place / "net.onnx"),), read_samples(place / "data.npz", Choice(), None, "predicted"), settings)
        assert evaluate(plan, folder / RUNS / name, engine=Here()).finished


KINDS: dict[str, Callable[[Random, Path], Made]] = {
    "onnx": _model, "npy": _npy, "npz": _npz, "png": _png, "csv": _csv, "vnnlib": _vnnlib, "run": _run,
}  # fmt: skip
"""Kind -> what makes one. Alterations of run folders: `tests.fuzz.alterations`."""
