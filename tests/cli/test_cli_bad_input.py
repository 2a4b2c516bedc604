"""Bad input: one line on standard error that says what, where and what to do; exit code 4; nothing half-written."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Run = Callable[..., Any]
Array = np.ndarray[Any, Any]
COMMANDS = (
    ("attack",),
    ("bounds", "--eps", "0.1"),
    ("prune",),
    ("distance",),
    ("verify", "--eps", "0.1"),
    ("compare", "--eps", "0.1"),
)  # fmt: skip


@pytest.fixture
def refused(digits: Path, onnxsub: Run) -> Callable[..., str]:
    """Runs a command, checks that it is refused and has written nothing; returns its line."""

    def call(*args: Any, code: int = 4) -> str:
        before = sorted(p.name for p in digits.rglob("*"))
        ran = onnxsub(*args)
        assert ran.code == code, ran
        line = ran.line
        assert line.startswith("onnxsub: ")
        assert "internal error" not in line
        assert sorted(p.name for p in digits.rglob("*")) == before
        return str(line)

    return call


def seven() -> Array:
    return np.asarray(np.load("seven.npy"))


def classifier(nodes: list[onnx.NodeProto], arrays: dict[str, Array], inputs: int = 1) -> bytes:
    names = ["x", "x2"][:inputs]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 1, 8, 8]) for n in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


WEIGHT = {"w": np.linspace(-1, 1, 64 * 3, dtype=np.float32).reshape(64, 3)}


def with_activation(op: str) -> bytes:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], "flat"),
        helper.make_node(op, ["f"], ["h"], "unit"),
        helper.make_node("MatMul", ["h", "w"], ["y"], "out"),
    ]
    return classifier(nodes, WEIGHT)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c[0])
def test_every_command_checks_its_anchor(refused: Callable[..., str], command: tuple[str, ...]) -> None:
    np.save("short.npy", np.zeros((1, 1, 7, 7), np.float32))
    name, *rest = command
    other = ["digits.onnx"] if name == "compare" else []
    line = refused(name, "digits.onnx", *other, "--x0", "short.npy", *rest)
    assert "short.npy" in line
    assert "[1, 8, 8]" in line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x.astype(str), "holds <U"),
        (lambda x: x.astype(complex), "complex"),
        (lambda x: np.full_like(x, np.nan), "NaN"),
        (lambda x: np.where(x > 0.5, np.inf, x), "infinite"),
        (lambda x: 255 * x, "--domain"),
        (lambda x: x - 0.5, "--domain"),
        (lambda x: np.repeat(x, 3, axis=0), "--index"),
        (lambda x: x[..., :4], "[1, 1, 8, 4]"),
    ],
)
def test_anchors(refused: Callable[..., str], change: Callable[[Array], Array], says: str) -> None:
    np.save("bad.npy", change(seven()))
    line = refused("attack", "digits.onnx", "--x0", "bad.npy")
    assert says in line
    assert "anchor" in line


def test_anchor_files(refused: Callable[..., str]) -> None:
    assert "does not exist" in refused("attack", "digits.onnx", "--x0", "absent.npy")
    Path("broken.npy").write_bytes(Path("seven.npy").read_bytes()[:150])
    assert "cannot be read" in refused("attack", "digits.onnx", "--x0", "broken.npy")
    Path("words.csv").write_text("a,b\n")
    assert "words.csv" in refused("attack", "digits.onnx", "--x0", "words.csv")
    Path("image.tiff").write_bytes(b"II")
    assert ".tiff" in refused("attack", "digits.onnx", "--x0", "image.tiff")
    Path("image.png").write_bytes(b"no image")
    assert "not a readable image" in refused("attack", "digits.onnx", "--x0", "image.png")
    assert "--array" in refused("attack", "digits.onnx", "--x0", "anchors.npz")
    assert "no array 'z'" in refused("attack", "digits.onnx", "--x0", "anchors.npz", "--array", "z")
    assert "--index 10 is out of range" in refused("attack", "digits.onnx", "--x0", "anchors.npz", "--array", "x", "--index", 10)
    np.save("pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "cannot be read" in refused("attack", "digits.onnx", "--x0", "pickled.npy")


@pytest.mark.parametrize("command", ["info", "attack"])
def test_model_files(refused: Callable[..., str], command: str) -> None:
    anchor = [] if command == "info" else ["--x0", "seven.npy"]
    assert "absent.onnx" in refused(command, "absent.onnx", *anchor)
    Path("empty.onnx").write_bytes(b"")
    assert "empty" in refused(command, "empty.onnx", *anchor)
    Path("words.onnx").write_text("this is not a model\n" * 20)
    assert "words.onnx" in refused(command, "words.onnx", *anchor)
    whole = Path("digits.onnx").read_bytes()
    Path("half.onnx").write_bytes(whole[: len(whole) // 2])
    assert "half.onnx" in refused(command, "half.onnx", *anchor)
    Path("folder.onnx").mkdir()
    assert "folder" in refused(command, "folder.onnx", *anchor)
    nodes = [
        helper.make_node("Add", ["x", "x2"], ["s"]),
        helper.make_node("Flatten", ["s"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    Path("two.onnx").write_bytes(classifier(nodes, WEIGHT, inputs=2))
    line = refused(command, "two.onnx", *anchor)
    assert "two.onnx" in line
    assert "input" in line


def test_an_unsupported_operator_is_named(refused: Callable[..., str]) -> None:
    Path("cos.onnx").write_bytes(with_activation("Cos"))
    line = refused("attack", "cos.onnx", "--x0", "seven.npy")
    for word in ("Cos", "'unit'", "opset 13"):
        assert word in line


def test_labels(refused: Callable[..., str]) -> None:
    for label in (-1, 10):
        line = refused("attack", "digits.onnx", "--x0", "seven.npy", "--label", label)
        assert f"--label {label} is out of range" in line
        assert "0 to 9" in line


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("attack", "--timeout", 0), "--timeout"),
        (("attack", "--timeout", "nan"), "--timeout"),
        (("attack", "--threads", 0), "--threads"),
        (("attack", "--seed", -1), "--seed"),
        (("attack", "--seed", 10**20), "--seed"),
        (("attack", "--domain", 1, 0), "--domain"),
        (("attack", "--mean", 0.5), "--std"),
        (("attack", "--mean", 0.5, "--std", 0), "--std"),
        (("bounds", "--eps", -0.1), "--eps"),
        (("bounds", "--eps", "nan"), "--eps"),
        (("prune", "--gamma", 1.5), "--gamma"),
        (("prune", "--gamma", -0.1), "--gamma"),
        (("prune", "--gamma", "nan"), "--gamma"),
        (("prune", "--gamma", 0.5, "--keep", 3), "--keep"),
        (("prune", "--keep", -1), "--keep"),
        (("prune", "--keep", 833), "--keep 833"),
        (("prune", "--gamma0", 0), "--gamma0"),
        (("distance", "--via", "lin"), "--via"),
        (("distance", "--via", "best:0.9"), "--via"),
        (("distance", "--via", "lin:1.5"), "1.5"),
        (("distance", "--tol", 0), "--tol"),
        (("verify", "--eps", -1), "--eps"),
    ],
)
def test_options_out_of_range(refused: Callable[..., str], args: tuple[Any, ...], says: str) -> None:
    name, *rest = args
    code = 4 if "833" in says else 2  # how many units there are, the model says
    assert says in refused(name, "digits.onnx", "--x0", "seven.npy", "--threads", 1, *rest, code=code)


def test_act_on_sigmoid(refused: Callable[..., str]) -> None:
    Path("smooth.onnx").write_bytes(with_activation("Sigmoid"))
    np.save("x.npy", np.random.default_rng(0).random((1, 1, 8, 8)).astype(np.float32))
    line = refused("prune", "smooth.onnx", "--x0", "x.npy", "--method", "act", "--eps", 0.1, "--threads", 1)
    assert "act" in line
    assert "Sigmoid" in line


@pytest.mark.parametrize(("solver", "package"), [("gurobi", "gurobipy"), ("scip", "pyscipopt"), ("highs", "highspy")])
def test_a_solver_that_is_not_installed(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, solver: str, package: str
) -> None:
    import sys

    for name in [n for n in sys.modules if n == package or n.startswith(package + ".")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    line = refused("distance", "digits.onnx", "--x0", "seven.npy", "--via", "lin:0.99", "--solver", solver, "--threads", 1)
    assert solver in line.lower()
    assert "pip install" in line


@pytest.mark.parametrize(
    ("command", "name"),
    [(("attack",), "x.npy"), (("bounds", "--eps", "0.1"), "b.onnx"), (("prune",), "g.onnx"), (("distance",), "w.npy"),
     (("verify", "--eps", "0.1"), "w.npy")],
)  # fmt: skip
def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], name: str
) -> None:
    # the query would be made first: with this, work that started before the check shows itself as an internal error
    monkeypatch.setattr("onnxsub.query.make_query", None)
    call = (command[0], "digits.onnx", "--x0", "seven.npy", *command[1:], "-o")
    assert "there is no folder 'absent'" in refused(*call, f"absent/{name}")
    assert "cannot write" in refused(*call, f"/proc/{name}")
    assert "give one of" in refused(*call, "result.txt", code=2)
    Path(f"folder{Path(name).suffix}").mkdir()
    assert "it is a folder" in refused(*call, f"folder{Path(name).suffix}")


def test_a_default_output_that_cannot_be_written(refused: Callable[..., str]) -> None:
    Path("digits.lin-0.99.onnx").mkdir()
    assert "it is a folder" in refused("prune", "digits.onnx", "--x0", "seven.npy")


def test_no_runtime(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else real(name, *a))
    assert "onnxsub[cpu]" in refused("attack", "digits.onnx", "--x0", "seven.npy")


def test_both_runtimes(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: real("onnx" if name.startswith("onnxruntime") else name))
    assert "uninstall" in refused("attack", "digits.onnx", "--x0", "seven.npy")


def test_a_device_that_is_not_there(refused: Callable[..., str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    for command in (("attack",), ("distance",), ("verify", "--eps", 0.1)):
        assert "torch sees no CUDA device" in refused(*command, "digits.onnx", "--x0", "seven.npy", "--device", "cuda")
    for command in ("bounds", "compare"):
        models = ("digits.onnx",) if command == "bounds" else ("digits.onnx", "digits.onnx")
        assert "processor only" in refused(command, *models, "--x0", "seven.npy", "--eps", 0.1, "--device", "cuda")


def test_models_to_compare_must_fit(refused: Callable[..., str], digits: Path) -> None:
    Path("three.onnx").write_bytes(with_activation("Relu"))
    line = refused("compare", "digits.onnx", "three.onnx", "--x0", "seven.npy", "--eps", 0.1, "--threads", 1)
    assert "class" in line
    shutil.copy("digits.onnx", "same.onnx")
    assert "absent.onnx" in refused("compare", "digits.onnx", "absent.onnx", "--x0", "seven.npy", "--eps", 0.1)
