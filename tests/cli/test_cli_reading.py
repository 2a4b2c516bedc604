"""`--output` and `--input-shape` on the command line, and files that end in a class or take bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxsub as package
from tests.reading.files import F, body, file, mlp, points, run, tensor

Run = Callable[..., Any]
X = tensor("x", ["N", 6])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("x0.npy", points(0, 1, (6,))[0])
    return tmp_path


def write(
    name: str, nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], x: onnx.ValueInfoProto = X, **more: Any
) -> None:
    Path(name).write_bytes(file(nodes, x, outputs, mlp(0) | more).SerializeToString())


def heads() -> None:
    nodes = [*body(), helper.make_node("MatMul", ["r", "C"], ["w"])]
    write("heads.onnx", nodes, [tensor("z", ["N", 4]), tensor("w", ["N", 3])], C=points(1, 10, (3,)) - np.float32(0.5))


def classes() -> None:
    nodes = [*body(), helper.make_node("ArgMax", ["z"], ["k"], axis=1, keepdims=0)]
    write("classes.onnx", nodes, [tensor("k", ["N"], TensorProto.INT64)])


def test_one_of_several_outputs(folder: Path, onnxsub: Run) -> None:
    heads()
    refused = onnxsub("attack", "heads.onnx", "--x0", "x0.npy")
    assert refused.code == 4
    assert "('z', 'w')" in refused.line
    assert "--output NAME" in refused.line
    for command in (
        ["attack"], ["bounds", "--eps", 0.01], ["verify", "--eps", 0.001], ["distance", "--timeout", 20],
        ["prune", "-o", "s.onnx", "--method", "con", "--eps", 0.1], ["export-property", "--eps", 0.1, "-o", "p.vnnlib"],
    ):  # fmt: skip
        ran = onnxsub(command[0], "heads.onnx", "--x0", "x0.npy", "--output", "w", *command[1:])
        assert ran.code == 0, ran.err
    assert onnxsub("info", "heads.onnx", "--output", "w", "--json").json["output"] == {"name": "w", "logits": "w", "classes": 3}
    assert onnxsub("compare", "heads.onnx", "s.onnx", "--x0", "x0.npy", "--output", "w", "--eps", 0.01).code == 0
    assert onnxsub("verify", "heads.onnx", "p.vnnlib", "--output", "w").code in (0, 1)
    assert "no output 'q'" in onnxsub("info", "heads.onnx", "--output", "q").line


def test_the_form_is_a_file_of_its_own(folder: Path, onnxsub: Run) -> None:
    heads()
    assert onnxsub("info", "heads.onnx", "--output", "w", "-o", "form.onnx").code == 0
    form = onnx.load("form.onnx")
    onnx.checker.check_model(form, full_check=True)
    x = points(3, 4, (6,))
    np.testing.assert_array_equal(run(form, x)[0], run(onnx.load("heads.onnx"), x, "w")[0])
    assert onnxsub("attack", "form.onnx", "--x0", "x0.npy").code == 0


def test_a_file_that_ends_in_a_class(folder: Path, onnxsub: Run) -> None:
    classes()
    ran = onnxsub("attack", "classes.onnx", "--x0", "x0.npy", "-o", "adv.npy")
    assert ran.code == 0
    assert "note: ArgMax" in ran.err
    proto = onnx.load("classes.onnx")
    assert run(proto, np.load("adv.npy"))[0] != run(proto, np.load("x0.npy")[None])[0]
    assert onnxsub("prune", "classes.onnx", "--x0", "x0.npy", "--gamma", 0.5, "-o", "s.onnx").code == 0
    (output,) = onnx.load("s.onnx").graph.output
    assert output.type.tensor_type.elem_type == F
    assert onnxsub("export-property", "classes.onnx", "--x0", "x0.npy", "--eps", 0.01, "-o", "p.vnnlib").code == 0
    assert "ends in a class" in onnxsub("verify", "classes.onnx", "p.vnnlib").err
    assert onnxsub("info", "classes.onnx", "-o", "form.onnx").code == 0
    assert onnxsub("verify", "form.onnx", "p.vnnlib").code in (0, 1)


def test_sigmoids_keep_their_values_in_a_property(folder: Path, onnxsub: Run) -> None:
    """`Y_0 >= 0.9` is no comparison of two scores; a Sigmoid that was read as a head could not express it."""
    write("s.onnx", [*body(), helper.make_node("Sigmoid", ["z"], ["y"])], [tensor("y", ["N", 4])])
    lines = [f"(declare-const X_{i} Real)" for i in range(6)] + [f"(declare-const Y_{i} Real)" for i in range(4)]
    lines += [f"(assert (>= X_{i} 0.4))\n(assert (<= X_{i} 0.41))" for i in range(6)] + ["(assert (>= Y_0 1.0))"]
    Path("p.vnnlib").write_text("\n".join(lines))
    assert onnxsub("verify", "s.onnx", "p.vnnlib", "--timeout", 20).code == 0


def test_bytes_have_their_own_domain(folder: Path, onnxsub: Run) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["g"], to=F), helper.make_node("Mul", ["g", "share"], ["f"]), *body("f")]
    write("b.onnx", nodes, [tensor("z", ["N", 4])], tensor("x", ["N", 6], TensorProto.UINT8), share=np.array([1 / 255], np.float32))
    np.save("x0.npy", np.array([0, 50, 100, 150, 200, 255], np.uint8))
    ran = onnxsub("attack", "b.onnx", "--x0", "x0.npy", "-o", "adv.npy", "--json")
    assert ran.code == 0
    assert ran.json["input"]["domain"] == [0, 255]
    adv = np.load("adv.npy")
    assert (np.rint(adv) == adv).all()
    proto = onnx.load("b.onnx")
    before, after = run(proto, np.load("x0.npy")[None])[0], run(proto, adv.astype(np.uint8))[0]
    assert before.argmax() != after.argmax()
    found = onnxsub("distance", "b.onnx", "--x0", "x0.npy", "--timeout", 20, "--json").json
    assert found["lower"] % 1 == found["upper"] % 1 == 0
    assert found["upper"] <= ran.json["d_adv"]
    via = onnxsub("distance", "b.onnx", "--x0", "x0.npy", "--timeout", 20, "--via", "lin:0.5", "--json").json
    assert via["original"]["lower"] <= found["upper"]
    assert onnxsub("verify", "b.onnx", "--x0", "x0.npy", "--eps", found["upper"]).code == 1
    refused = onnxsub("attack", "b.onnx", "--x0", "x0.npy", "--domain", 0, 255, "--mean", 3, "--std", 2)
    assert refused.code == 4
    assert "whole numbers" in refused.line


@pytest.mark.parametrize("stated", ["2,3", "1,2,3", "2x3"])
def test_open_lengths(folder: Path, onnxsub: Run, stated: str) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["f"]), *body("f")]
    write("open.onnx", nodes, [tensor("z", ["N", 4])], tensor("x", ["N", "h", "h2"]), s=np.array([-1, 6], np.int64))
    assert "--input-shape" in onnxsub("info", "open.onnx").line
    assert onnxsub("info", "open.onnx", "--input-shape", stated, "--json").json["input"]["shape"] == [2, 3]
    assert onnxsub("attack", "open.onnx", "--input-shape", stated, "--x0", "x0.npy").code == 0
    assert "no list of lengths" in onnxsub("info", "open.onnx", "--input-shape", "2,,q").line


@pytest.mark.parametrize("batch", [5, None])
def test_a_substitute_in_place_of_a_file_of_one_or_many_samples(
    batch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, onnxsub: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    front = [] if batch is None else [batch]
    onnx.save(file(body(), tensor("x", [*front, 6] if front else [6]), [tensor("z", [*front, 4])], mlp(4)), "net.onnx")
    np.save("x0.npy", np.linspace(0.1, 0.9, 6, dtype=np.float32))
    asked = ("prune", "net.onnx", "--x0", "x0.npy", "--method", "con", "--keep", 3, "--eps", 0.1, "--json", "-o", "g.onnx")
    ran = onnxsub(*asked, "--layout", "inplace")
    assert ran.code == 0
    assert ran.json["preserves"]["x0"] < 1e-5
    assert onnxsub("info", "net.onnx", "-o", "form.onnx").code == 0
    for name in ("g.onnx", "form.onnx"):
        onnx.checker.check_model(name, full_check=True)
        assert onnxsub("info", name, "--json").json["output"]["classes"] == 4


def test_bytes_are_what_a_model_of_whole_numbers_takes(folder: Path, onnxsub: Run) -> None:
    """A range of whole numbers is none of grey values, unless it has 256 of them: through a file, an array and a data set alike."""
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=F), *body("f")]
    write("counts.onnx", nodes, [tensor("z", ["N", 4])], tensor("x", ["N", 6], TensorProto.UINT8))
    write("signed.onnx", nodes, [tensor("z", ["N", 4])], tensor("x", ["N", 6], TensorProto.INT8))
    counts = np.array([0, 1, 2, 9, 4, 5], np.uint8)
    np.save("counts.npy", counts)
    np.savez("counts.npz", x=counts[None], y=np.zeros(1, int))
    whole = hashlib.sha256(counts.astype("<f4").tobytes()).hexdigest()
    ran = onnxsub("attack", "counts.onnx", "--x0", "counts.npy", "--domain", 0, 9, "--json")
    assert ran.json["anchor"]["sha256"] == whole
    assert "rounded" not in ran.err
    found = package.attack("counts.onnx", counts, lower=0, upper=9)
    assert found.to_json()["anchor"]["sha256"] == whole
    assert "outside the domain" in onnxsub("attack", "counts.onnx", "--x0", "counts.npy", "--domain", 0, 8).err
    shifted = hashlib.sha256((counts.astype("<f4") - 128).tobytes()).hexdigest()
    assert onnxsub("attack", "signed.onnx", "--x0", "counts.npy", "--json").json["anchor"]["sha256"] == shifted
    assert package.attack("signed.onnx", counts).to_json()["anchor"]["sha256"] == shifted
    plan = ("evaluate", "counts.onnx", "--data", "counts.npz", "--domain", 0, 9, "--gammas", 0.5, "--methods", "con")
    rows = onnxsub(*plan, "--run", "run", "--timeout", 10, "--json").json["samples"]
    alone = onnxsub("distance", "counts.onnx", "--x0", "counts.npy", "--domain", 0, 9, "--label", 0, "--json").json
    assert rows[0]["predicted"] == alone["anchor"]["predicted"]
    assert rows[0]["status"] == alone["status"]


def test_flags_that_are_stored_as_bytes_are_told(folder: Path, onnxsub: Run) -> None:
    write("net.onnx", body(), [tensor("z", ["N", 4])])
    flags = np.array([0, 1, 0, 0, 1, 1], np.uint8)
    np.save("flags.npy", flags)
    np.save("grey.npy", 2 * flags)
    np.savez("flags.npz", x=flags[None])
    words = "holds 8-bit values of 0 and 1 only, which are scaled to the domain"
    assert f"note: anchor 'flags.npy' {words}" in onnxsub("attack", "net.onnx", "--x0", "flags.npy").err
    assert words not in onnxsub("attack", "net.onnx", "--x0", "grey.npy").err
    assert words not in onnxsub("attack", "net.onnx", "--x0", "flags.npy", "--domain", 0, 255).err
    ran = onnxsub("robustness", "net.onnx", "--data", "flags.npz", "--labels", "predicted", "--eps", 0, "--run", "run")
    assert f"note: flags.npz {words}" in ran.err


def test_two_networks_that_are_equal_have_no_difference_to_ask_about(folder: Path, onnxsub: Run) -> None:
    write("net.onnx", body(), [tensor("z", ["N", 4])])
    asked = ("compare", "net.onnx", "net.onnx", "--x0", "x0.npy", "--eps", 0.1, "-o", "q.vnnlib", "--json")
    ran = onnxsub(*asked)
    assert (ran.code, ran.json["certified"]) == (0, 0.0)
    assert "they do not differ at all, so 'q.vnnlib' was not written; state a difference with --delta" in ran.err
    assert not Path("q.vnnlib").exists()
    assert onnxsub(*asked, "--delta", 0.5).code == 0
    assert Path("q.vnnlib").exists()
