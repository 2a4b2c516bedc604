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

from tests.fuzz.alterations import alter, copy_of
from tests.fuzz.draws import FLOATS, Made, Random, flipped, good_network, pick, stored
from tests.fuzz.models import odd_model
from tests.random_models import random_model

__all__ = ["KINDS", "finished_runs", "make"]

RUNS = "runs"
"""The folder, beside those of the seeds, of the runs that are altered."""

def make(kind: str, seed: int, folder: Path) -> list[list[str]]:
    """Writes the input of a seed into a folder that is empty; returns command lines about it, with paths in that folder."""
    rng = np.random.default_rng([seed, *kind.encode()])
    name, commands = KINDS[kind](rng, folder)
    assert (folder / name).exists()
    return commands


def _array(rng: Random) -> np.ndarray[Any, Any]:
    shape = pick(rng, ((1, 4), (1, 4), (4,), (2, 4), (1, 2, 2), (0, 4), (), (1, 4, 1), (3,), (1, 5), (4, 1), (1, 1, 4)))
    kind = pick(rng, ("<f4", "<f4", "<f8", ">f4", "u1", "<i8", "?", "<c16", "S3", "<U2", "<f2", "<M8[s]", "<u2", "V4"))
    values = np.asarray(rng.random(shape))
    if values.size and rng.random() < 0.3:
        values.reshape(-1)[0] = pick(rng, FLOATS)
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
        shape = pick(rng, (b"(1000000000, 4)", b"(-1, 4)", b"(1, 4", b"(99999999999999999999,)", b"(1, 'x')", b"()" * 900))
        kind = pick(rng, (b"<f4", b"|O", b"<f99", b"(3,)f4", b"|V1000000000"))
        header = b"{'descr': '" + kind + b"', 'fortran_order': False, 'shape': " + shape + b", }\n"
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) % 65536) + header + rng.bytes(16)
    if rng.random() < 0.3:
        data = stored(rng, ".npy").read_bytes()
    if rng.random() < 0.3:
        data = flipped(data, rng)
    (folder / "x.npy").write_bytes(data)
    model, _ = good_network(folder)
    return "x.npy", [["attack", model, "--x0", "x.npy", "--timeout", "1"]]


def _npz(rng: Random, folder: Path) -> Made:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", pick(rng, (0, 8))) as archive:
        for _ in range(int(rng.integers(0, 4))):
            member = io.BytesIO()
            np.save(member, _array(rng))
            name = pick(rng, ("x.npy", "y.npy", "../x.npy", "/x.npy", "x", "x.npy/", "=a.npy", "é.npy", "x.npy"))
            archive.writestr(name, member.getvalue() if rng.random() < 0.8 else rng.bytes(30))
    data = stored(rng, ".npz").read_bytes() if rng.random() < 0.3 else file.getvalue()
    if rng.random() < 0.5:
        data = flipped(data, rng)
    (folder / "x.npz").write_bytes(data)
    model, _ = good_network(folder)
    return "x.npz", [["attack", model, "--x0", "x.npz", "--timeout", "1", *(["--index", "0"] if rng.random() < 0.5 else [])]]


def _png(rng: Random, folder: Path) -> Made:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data) if rng.random() < 0.9 else 0
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    depth, colour = int(pick(rng, (1, 2, 4, 8, 16, 3))), int(pick(rng, (0, 2, 3, 4, 6, 5)))
    wide, high = int(pick(rng, (2, 2, 4, 1, 0, 2**31 - 1, 50000))), int(pick(rng, (2, 2, 1, 0, 50000)))
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, int(rng.integers(0, 3))))]
    if rng.random() < 0.4:
        name = pick(rng, (b"PLTE", b"tEXt", b"zTXt", b"iCCP", b"tRNS", b"acTL", b"eXIf"))
        parts.append(chunk(name, rng.bytes(int(rng.integers(0, 40)))))
    pixels = rng.bytes(int(rng.integers(0, 60)))
    if rng.random() < 0.6:  # one that can be read
        pixels = b"".join(b"\x00" + rng.bytes(2) for _ in range(2))
        parts[0] = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, int(pick(rng, (0, 0, 0, 3))), 0, 0, 0))
    parts += [chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    if rng.random() < 0.2:
        other = (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n", b"GIF89a", b"BM", b"II*\x00", b"\xff\xd8\xff\xe0")
        data = pick(rng, other) + data[8:]
    if rng.random() < 0.4:
        data = stored(rng, ".png", ".jpg").read_bytes()
    if rng.random() < 0.4:
        data = flipped(data, rng)
    name = pick(rng, ("x.png", "x.png", "x.jpg"))
    (folder / name).write_bytes(data)
    model, _ = good_network(folder)
    return name, [["attack", model, "--x0", name, "--timeout", "1"]]


# -- texts


def _csv(rng: Random, folder: Path) -> Made:
    cells = (
        "0.5", "1", "", "nan", "1e999", "-1e-400", "x", '"', '"a,b"', "=1+1", "0x1", "1_0", "\uff11", "\x00", "1;2", " 0.5 ",
        "9" * 400,
    )  # fmt: skip
    lines = [",".join(("0.5", "0.25", "0.75", "1")) for _ in range(int(rng.integers(0, 4)))]
    if rng.random() < 0.5:
        lines.insert(0, pick(rng, ("a,b,c,d", "a,b,c,d,label", "a,a,b,c", "", ",,,", "=a,b,c,d", "0,1,2,3")))
    text = pick(rng, ("\n", "\n", "\r\n", "\r", ";")).join(lines)
    for _ in range(int(rng.integers(0, 4))):
        at = int(rng.integers(len(text) + 1))
        text = text[:at] + pick(rng, cells) + pick(rng, (",", "", "\n")) + text[at + int(rng.integers(3)) :]
    data = text.encode(pick(rng, ("utf-8", "utf-8", "utf-16", "utf-8-sig")), errors="replace")
    if rng.random() < 0.3:
        data = stored(rng, ".csv").read_bytes()
    if rng.random() < 0.2:
        data = flipped(data + b"0", rng)
    (folder / "x.csv").write_bytes(data)
    model, anchor = good_network(folder)
    some = (
        ["attack", model, "--x0", "x.csv", "--timeout", "1", *(["--index", "0"] if rng.random() < 0.6 else [])],
        ["attack", model, "--x0", anchor, "--mean", "x.csv", "--std", "2", "--timeout", "1"],
        ["attack", model, "--x0", anchor, "--domain", "x.csv", "--timeout", "1"],
    )
    return "x.csv", [pick(rng, some)]


def _vnnlib(rng: Random, folder: Path) -> Made:
    lines = [f"(declare-const X_{i} Real)" for i in range(4)] + [f"(declare-const Y_{i} Real)" for i in range(3)]
    lines += [f"(assert (>= X_{i} 0.4))\n(assert (<= X_{i} 0.6))" for i in range(4)]
    lines += [pick(rng, ("(assert (<= Y_0 Y_1))", "(assert (or (and (<= Y_0 Y_1)) (and (<= Y_0 Y_2))))", "(assert (>= Y_0 1e3))"))]
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
                words[at] = pick(rng, odd)
            case 1:
                del words[at]
            case 2:
                words.insert(at, pick(rng, odd))
            case _:
                words[at:at] = words[at : at + int(rng.integers(1, 30))]
    data = " ".join(words).encode()
    name = "p.vnnlib"
    if rng.random() < 0.3:
        kept = stored(rng, ".vnnlib", ".vnnlib.gz")
        name, data = f"p{kept.name[kept.name.index('.') :]}", kept.read_bytes()
    if rng.random() < 0.2:
        data = flipped(data, rng)
    (folder / name).write_bytes(data)
    model, _ = good_network(folder)
    return name, [["verify", model, name, "--timeout", "1"]]


# -- run folders


def _run(rng: Random, folder: Path) -> Made:
    """An altered run; `finished_runs` has made two."""
    runs = folder.parent / RUNS
    copy_of(runs / "run", folder / "run")
    for _ in range(int(pick(rng, (1, 1, 1, 3)))):
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
    "onnx": odd_model, "npy": _npy, "npz": _npz, "png": _png, "csv": _csv, "vnnlib": _vnnlib, "run": _run,
}  # fmt: skip
"""Kind -> what makes one. Alterations of run folders: `tests.fuzz.alterations`."""
