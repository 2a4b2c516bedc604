"""What small files may cost: one line, before memory is taken or anything is run."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from onnxsub.array_files import read_array
from onnxsub.cli.main import run
from onnxsub.errors import InputError, ModelError, OptionError, OutputError, UnsupportedOperatorError
from onnxsub.evaluate.arrays import read_arrays
from onnxsub.files import write_atomic
from onnxsub.limits import VARIABLE, Limits, limits, parse_limits
from onnxsub.lower import lower
from onnxsub.model import load_model
from onnxsub.properties import load_property, parse_property
from onnxsub.query import make_query
from onnxsub.runtime import Runtime
from onnxsub.tables import open_table
from tests.hostile.bombs import functions, loop, model_of

MB = 2**20


def node(kind: str, inputs: list[str], output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


def bombs() -> dict[str, tuple[ModelProto, str]]:
    """Model and the limit that it meets."""
    many = [node("ConstantOfShape", ["n"], f"b{i}") for i in range(12)]
    sums = [node("Add", [f"b{i}" if i == 0 else f"a{i}", f"b{i + 1}"], f"a{i + 1}") for i in range(11)]
    shift = [node("ReduceMax", ["a11"], "s", keepdims=0), node("Add", ["x", "s"], "h")]
    image = [node("Reshape", ["x", "sh"], "i")]
    back = [node("GlobalAveragePool", ["t"], "g"), node("Flatten", ["g"], "h")]
    square = {"sh": ints(1, 1, 2, 2)}
    wide = [1, 1, 10**8, 10**8]
    return {
        "constants": (model_of([*many, *sums, *shift], {"n": ints(2**25)}, "h"), "constants"),
        "one constant": (
            model_of([node("Expand", ["one", "n"], "e"), node("ReduceMax", ["e"], "s", keepdims=0), node("Add", ["x", "s"], "h")],
                     {"n": ints(2**20, 2**20), "one": np.ones((1, 1), np.float32)}, "h"), "constants"),
        "pool": (
            model_of([*image, node("AveragePool", ["i"], "t", kernel_shape=[2, 2], pads=wide), *back], square, "h", 1), "values"),
        "pad": (
            model_of([node("Pad", ["x", "p"], "t"), node("Slice", ["t", "z", "f", "o"], "h")],
                     {"p": ints(0, 0, 0, 10**9), "z": ints(0), "f": ints(4), "o": ints(1)}, "h"), "values"),
        "tile": (
            model_of([node("Tile", ["x", "r"], "t"), node("Slice", ["t", "z", "f", "o"], "h")],
                     {"r": ints(1, 10**9), "z": ints(0), "f": ints(4), "o": ints(1)}, "h"), "values"),
        "one weight": (
            model_of([node("MatMul", ["x", "v"], "m0"), *(node("MatMul", [f"m{i}", "s"], f"m{i + 1}") for i in range(500))],
                     {"v": np.ones((4, 900), np.float32), "s": np.ones((900, 900), np.float32)}, "m500", 900), "weights"),
        "windows": (
            model_of([*image, node("Pad", ["i", "p"], "q"), node("AveragePool", ["q"], "t", kernel_shape=[3000, 3000]), *back],
                     {**square, "p": ints(0, 0, 2000, 2000, 0, 0, 4000, 4000)}, "h", 1), "operations"),
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(bombs()))
def test_a_model_that_asks_for_much(name: str) -> None:
    model, limit = bombs()[name]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ModelError, match=rf"too large for the limit.*--limits {limit}="):
        load_model(model)
    assert time.process_time() - began < 4.0  # the reference implementation is imported here
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024  # kilobytes


@pytest.mark.parametrize("model", [loop(10**9), functions(29)], ids=["loop", "functions"])
def test_what_a_file_defines_is_refused_before_it_runs(model: ModelProto) -> None:
    began = time.perf_counter()
    with pytest.raises(UnsupportedOperatorError, match="not in the operator table"):
        make_query(load_model(model), np.full((1, 4), 0.5, np.float32))
    assert time.perf_counter() - began < 2.0


def test_what_leads_to_another_output_is_not_gone_through() -> None:
    model = functions(29)
    model.graph.node[-1].input[0] = "x"  # the functions lead nowhere
    found = Runtime(load_model(model)).logits(np.full((2, 4), 0.5, np.float32))
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0])
    np.testing.assert_allclose(found, np.full((2, 4), 0.5) @ weight, rtol=1e-6)


def test_an_unknown_operator_is_refused_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    from onnxsub.verifiers.property import property_spec

    def never(*_: object, **__: object) -> None:
        raise AssertionError("onnxruntime was given it")

    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    model = load_model(model_of([helper.make_node("CumSum", ["x", "axis"], ["h"])], {"axis": np.array(1, dtype=np.int32)}, "h"))
    with pytest.raises(UnsupportedOperatorError, match="CumSum"):
        make_query(model, np.full((1, 4), 0.5, dtype=np.float32))
    inputs = "\n".join(f"(declare-const X_{i} Real)\n(assert (>= X_{i} 0))\n(assert (<= X_{i} 1))" for i in range(4))
    outputs = "\n".join(f"(declare-const Y_{i} Real)" for i in range(3))
    with pytest.raises(UnsupportedOperatorError, match="CumSum"):
        property_spec(model, parse_property(f"{inputs}\n{outputs}\n(assert (<= Y_0 Y_1))"))


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("Gemm", {"b": np.ones((4, 5)), "c": np.ones(4)}),
        ("PRelu", {"s": np.ones(3, dtype=np.float32)}),
        ("Clip", {"low": np.zeros(0, dtype=np.float32)}),
        ("BatchNormalization", {"a": np.ones(4), "b": np.ones(4), "c": np.ones(3), "d": np.ones(3)}),
    ],
)
def test_inputs_that_do_not_fit_each_other(kind: str, more: dict[str, np.ndarray]) -> None:
    """Found by tests/fuzz: the checker of onnx lets them pass."""
    constants = {name: value.astype(np.float32) for name, value in more.items()}
    size = 5 if kind == "Gemm" else 4
    model = load_model(model_of([helper.make_node(kind, ["x", *constants], ["h"])], constants, "h", size))
    with pytest.raises(UnsupportedOperatorError, match="do not fit"):
        lower(model)


def test_an_inference_that_lasts_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [node("Pad", ["x", "p"], "t0"), *(node("Softplus", [f"t{i}"], f"t{i + 1}") for i in range(40))]
    constants = {"p": ints(0, 0, 0, 2**20), "z": ints(0), "f": ints(4), "o": ints(1)}
    model = load_model(model_of([*wide, node("Slice", ["t40", "z", "f", "o"], "h")], constants, "h"))
    monkeypatch.setenv(VARIABLE, "inference=0.02")
    began = time.perf_counter()
    with pytest.raises(ModelError, match=r"one inference takes more than the limit of 0.02 s.*--limits inference=0.08"):
        Runtime(model).logits(np.full((1, 4), 0.5, np.float32))
    assert time.perf_counter() - began < 10.0
    monkeypatch.setenv(VARIABLE, "inference=60")
    assert np.isfinite(Runtime(model).logits(np.full((1, 4), 0.5, np.float32))).all()


def test_properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "brackets.vnnlib.gz"
    packed.write_bytes(gzip.compress(b"()" * (40 * MB)))
    with pytest.raises(InputError, match=r"bytes of its contents.*--limits text="):
        load_property(packed)
    for text in (f"(declare-const X_{'9' * 6000} Real)", f"(declare-const X_0 Real)(assert (<= X_0 {'9' * 6000}))"):
        with pytest.raises(InputError, match=r"characters of the token.*--limits digits="):
            parse_property(text)
    monkeypatch.setenv(VARIABLE, "tokens=1000")
    with pytest.raises(InputError, match=r"tokens: 1001.*--limits tokens="):
        parse_property("()" * 2000)


@pytest.mark.parametrize("read", [lambda p: read_array(p), lambda p: read_arrays(p)["x"]])
def test_archives(tmp_path: Path, read: object) -> None:
    assert callable(read)
    path = tmp_path / "zeros.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (600 * MB,)})  # type: ignore[arg-type]
        for _ in range(600):
            file.write(bytes(MB))
    assert path.stat().st_size < MB
    with pytest.raises(InputError, match=r"bytes of its array 'x'.*--limits unpacked="):
        read(path)
    np.savez_compressed(path, x=np.zeros((3, 4)))
    assert read(path).shape == (3, 4)


def test_images_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    path = tmp_path / "large.png"
    Image.new("L", (9000, 9000)).save(path)
    with pytest.raises(InputError, match=r"pixels.*--limits pixels="):
        read_array(path)
    table = tmp_path / "wide.csv"
    table.write_text("," * 2_000_000)
    with pytest.raises(InputError, match=r"columns.*--limits columns="):
        open_table(table, "wide.csv")
    monkeypatch.setenv(VARIABLE, "unpacked=1000")
    with pytest.raises(InputError, match=r"bytes.*--limits unpacked="):
        open_table(table, "wide.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_pipes_are_no_files(tmp_path: Path) -> None:
    for name in ("x.npy", "x.npz", "x.png", "x.csv", "p.vnnlib"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match="is a pipe or a device"):
            load_property(tmp_path / name) if name.endswith("lib") else read_array(tmp_path / name)
    with pytest.raises(OutputError, match="is a pipe or a device"):
        write_atomic(tmp_path / "x.npy", b"something")
    with pytest.raises(OutputError, match="is a pipe or a device"):
        write_atomic("/dev/null", b"something")


def test_the_limits_are_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert limits() == Limits()
    assert parse_limits("values=2e8, tokens=1e7") == Limits(values=2e8, tokens=1e7)
    for wrong in ("nothing=3", "values", "values=-1", "values=nan", "values=many"):
        with pytest.raises(OptionError, match="--limits"):
            parse_limits(wrong)
    path = tmp_path / "padded.onnx"
    constants = {"p": ints(0, 0, 0, 2**27), "z": ints(0), "f": ints(4), "o": ints(1)}
    onnx.save(model_of([node("Pad", ["x", "p"], "t"), node("Slice", ["t", "z", "f", "o"], "h")], constants, "h"), path)
    assert run(["info", str(path)]) == 4
    said = capsys.readouterr().err
    assert "Pad" in said
    enough = said.rpartition("--limits ")[2].strip()  # of the whole file, not up to some node
    assert run(["info", str(path), "--limits", enough]) == 0
    monkeypatch.setenv(VARIABLE, "")
    (tmp_path / "onnxsub.toml").write_text('limits = "values=1e9"\n')
    monkeypatch.chdir(tmp_path)
    assert run(["info", str(path)]) == 2
    assert "limits" in capsys.readouterr().err


def test_an_output_is_no_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.onnx"
    onnx.save(model_of([node("Relu", ["x"], "h")], {}, "h"), model)
    before = model.read_bytes()
    assert run(["info", str(model), "-o", str(tmp_path / "." / "m.onnx")]) == 2
    assert "is a file that is read here" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_a_command_ends_though_an_inference_does_not() -> None:
    """A node that never looks up: the deadline, two seconds of grace, one line; nobody waits for the thread."""
    code = (
        "import time; from onnxsub.errors import ModelError\n"
        "from onnxsub.process import leave; from onnxsub.watched import Watched\n"
        "class Endless:\n    def run(self, *_):\n        time.sleep(600)\n"
        "try:\n    Watched()(Endless(), 'y', {}, 'it')\nexcept ModelError as error:\n    print(error)\nleave(4)\n"
    )
    env = {**os.environ, VARIABLE: "inference=0.1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60, env=env)
    assert done.returncode == 4
    assert done.stdout.startswith("it: one inference takes more than the limit of 0.1 s")
