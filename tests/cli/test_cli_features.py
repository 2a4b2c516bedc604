"""`--domain FILE`, `--eps FILE` and `--scale FILE` on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest

from tests.cli.conftest import Run
from tests.handmade import Net
from tests.reading.test_integers import model as integers
from tests.test_features import LOW, WIDTH, X0, table

ANCHOR = ("table.onnx", "--x0", "x0.npy", "--domain", "domain.npy")


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(table(1, LOW, WIDTH), "table.onnx")
    np.save("x0.npy", X0)
    np.save("domain.npy", np.stack([LOW, LOW + WIDTH]))
    np.save("scale.npy", WIDTH)
    np.save("eps.npy", 0.05 * WIDTH)
    return tmp_path


def test_a_table_with_mixed_scales(mixed: Path, onnxsub: Run) -> None:
    asked = (*ANCHOR, "--scale", "scale.npy", "--threads", 1, "--json")
    attacked = onnxsub("attack", *asked, "-o", "x.npy").json
    assert attacked["input"]["scale"]["highest"] == 1e6
    assert attacked["input"]["domain"]["lowest"] == -5e5
    x = np.load("x.npy")[0].astype(np.float64)
    assert (np.abs(x - X0) <= attacked["d_adv"] * WIDTH).all()
    assert np.max(np.abs(x - X0) / WIDTH) == pytest.approx(attacked["d_adv"], rel=1e-3)
    found = onnxsub("distance", *asked, "--tol", 1e-4).json
    assert found["status"] == "exact"
    assert found["upper"] <= attacked["d_adv"] + 1e-4
    one = onnxsub("verify", *asked, "--eps", 0.05).json
    two = onnxsub("verify", *ANCHOR, "--eps", "eps.npy", "--json").json
    assert one["status"] == two["status"]
    assert two["eps"] == 1.0
    bounded = [onnxsub("bounds", *a, "--json").json for a in ((*asked[:-1], "--eps", 0.05), (*ANCHOR, "--eps", "eps.npy"))]
    assert bounded[0]["output"]["lower"] == pytest.approx(bounded[1]["output"]["lower"], rel=1e-5, abs=1e-6)
    text = onnxsub("export-property", *ANCHOR, "--eps", "eps.npy").out
    assert "domain per feature, within -500000 to 1.1e+06" in text
    assert "units of a scale per feature" in text
    pruned = onnxsub("prune", *asked, "--keep", 5, "-o", "g.onnx").json
    assert max(pruned["preserves"].values()) < 1e-4
    origin = onnxsub("info", "g.onnx", "--json").json["substitute"]
    assert origin["scale_sha256"] == attacked["input"]["scale"]["sha256"]
    assert origin["domain_sha256"] == attacked["input"]["domain"]["sha256"]
    assert "the domain per feature, within [-500000, 1.1e+06]" in onnxsub("info", "g.onnx").out


def test_bad_files(mixed: Path, onnxsub: Run) -> None:
    np.save("three.npy", np.ones(3))
    Path("text.npy").write_text("no array")
    np.save("words.npy", np.array(["a", "b"]))
    for option, value, words in (
        ("--domain", "missing.npy", "cannot be read"),
        ("--domain", "text.npy", "is damaged, or no .npy file"),
        ("--domain", "three.npy", "has shape [3]; give (2, ...)"),
        ("--scale", "three.npy", "--scale has 3 values"),
        ("--scale", "words.npy", "holds no numbers"),
        ("--scale", "scale.csv", "the ending '.csv'"),
    ):
        ran = onnxsub("attack", *ANCHOR, option, value)
        assert ran.code == 4
        assert words in ran.line
    for words in (("--domain", "0"), ("--domain", "a"), ("--domain", "0,1,2"), ("--domain",)):
        assert onnxsub("attack", *ANCHOR[:3], *words).code == 2
    assert onnxsub("verify", *ANCHOR, "--eps", "eps.npy", "--scale", "scale.npy").code == 2
    assert onnxsub("verify", *ANCHOR, "--eps", "much").code == 2


def test_a_refusal_names_the_option_that_was_given(mixed: Path, onnxsub: Run) -> None:
    np.save("three.npy", np.ones(3))
    np.save("minus.npy", -WIDTH)
    np.save("nan.npy", np.where(WIDTH > 1, np.nan, WIDTH))
    np.save("zero.npy", 0 * WIDTH)
    np.save("tiny.npy", np.full(WIDTH.shape, 5e-324))
    for name, words in (
        ("three", "has 3 values"), ("minus", "negative or not finite"), ("nan", "negative or not finite"),
        ("zero", "no feature can move"), ("tiny", "far too small"),
    ):  # fmt: skip
        for command, option in (("verify", "--eps"), ("bounds", "--eps"), ("attack", "--scale")):
            other = "--scale" if option == "--eps" else "--eps"
            ran = onnxsub(command, *ANCHOR, option, f"{name}.npy")
            assert ran.code == 4
            assert words in ran.line
            assert option in ran.line
            assert other not in ran.line


def test_two_numbers_are_one_domain_as_before(digits: Path, onnxsub: Run) -> None:
    for domain in (("--domain", "0", "1"), ("--domain", "-1", "2"), ("--domain", "0,1")):
        ran = onnxsub("bounds", *domain, "digits.onnx", "--x0", "seven.npy", "--eps", "0.01", "--method", "ibp", "--json")
        assert ran.code == 0
        assert ran.json["input"]["domain"] == ([-1.0, 2.0] if "-1" in domain else [0.0, 1.0])


def test_whole_numbers_have_ranges_but_no_scale(mixed: Path, onnxsub: Run) -> None:
    onnx.save(integers(0), "whole.onnx")
    np.save("pixels.npy", np.array([4, 5, 2], np.uint8))
    np.save("ranges.npy", np.array([[0, 3, 2], [9, 7, 2]]))
    np.save("ones.npy", np.ones(3))
    asked = ("whole.onnx", "--x0", "pixels.npy", "--domain", "ranges.npy")
    ran = onnxsub("distance", *asked, "--target", 1 if onnxsub("attack", *asked, "--json").json["anchor"]["label"] else 2, "--json")
    assert ran.code == 0
    assert ran.json["input"]["domain"] == {**ran.json["input"]["domain"], "lowest": 0, "highest": 9}
    assert ran.json["input"]["scale"] is None
    for command in ("attack", "distance", "prune", "verify", "bounds", "export-property"):
        option = "--scale" if command in ("attack", "distance", "prune") else "--eps"
        refused = onnxsub(command, *asked, option, "ones.npy")
        assert refused.code == 4
        assert "the model takes whole numbers" in refused.line
    assert onnxsub("attack", *asked[:3], "--domain", 0, 255, "--scale", "ones.npy").code == 4


def test_an_output_a_target_and_a_scale(mixed: Path, onnxsub: Run) -> None:
    whole = table(1, LOW, WIDTH)
    graph = whole.graph
    graph.node.append(onnx.helper.make_node("Neg", [graph.output[0].name], ["minus"]))
    graph.output.append(onnx.helper.make_tensor_value_info("minus", onnx.TensorProto.FLOAT, ["N", 3]))
    onnx.save(whole, "two.onnx")
    asked = ("two.onnx", *ANCHOR[1:], "--scale", "scale.npy", "--output", "minus", "--json")
    label = onnxsub("attack", *asked).json["anchor"]["label"]
    target = (label + 1) % 3
    attacked = onnxsub("attack", *asked, "--target", target, "--out", "x.npy").json
    assert attacked["found"]
    z = onnx.reference.ReferenceEvaluator(whole).run(["minus"], {graph.input[0].name: np.load("x.npy")})[0][0]
    assert z[target] > z[label]


def test_means_of_a_table_lie_as_the_input_does(mixed: Path, onnxsub: Run) -> None:
    """As many numbers in rows of another length are in another order, whoever wrote them."""
    net = Net(2, 3)
    flat = net.node("Flatten", ["x"], axis=1)
    onnx.save(net.model(net.gemm(flat, 6, 3), 3), "grid.onnx")
    np.save("x0.npy", np.full((2, 3), 0.5, np.float32))
    grid = np.arange(6, dtype=np.float64).reshape(2, 3) / 10
    asked = ("attack", "grid.onnx", "--x0", "x0.npy", "--json")
    np.save("flat.npy", grid.reshape(-1))
    want = onnxsub(*asked, "--mean", "flat.npy", "--std", 2).json["d_adv"]
    for name, values in (("as-it-is", grid), ("axis", grid[None]), ("column", grid.reshape(6, 1))):
        np.save(f"{name}.npy", values)
        assert onnxsub(*asked, "--mean", f"{name}.npy", "--std", 2).json["d_adv"] == want
    np.savetxt("grid.csv", grid, delimiter=",")
    assert onnxsub(*asked, "--mean", "grid.csv", "--std", 2).json["d_adv"] == want
    kept = Path("flat.npy").read_bytes()
    assert "is a file that is read here" in onnxsub(*asked, "--mean", "flat.npy", "--std", 2, "-o", "flat.npy").line
    assert Path("flat.npy").read_bytes() == kept
    np.save("turned.npy", grid.T)
    np.savetxt("turned.csv", 1 + grid.T, delimiter=",")
    for wrong, given in (("--mean", ("--mean", "turned.npy", "--std", 2)), ("--std", ("--mean", 0, "--std", "turned.csv"))):
        ran = onnxsub(*asked, *given)
        assert ran.code == 4
        assert f"{wrong} has shape [3, 2], the model's input [2, 3]" in ran.line
    np.savez("data.npz", x=np.full((2, 2, 3), 0.5, np.float32), y=np.zeros(2, int))
    ran = onnxsub("robustness", "grid.onnx", "--data", "data.npz", "--eps", 0.1, "--mean", "turned.npy", "--std", 1, "--run", "run")
    assert ran.code == 4
    assert "--mean has shape [3, 2]" in ran.line
    assert not Path("run").exists()
