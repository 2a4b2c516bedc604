"""`onnxsub bounds` and `onnxsub prune`."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxsub as package
from onnxsub.cli.bounds import BOUND_METHODS
from onnxsub.cli.bounds import command as bounds_command
from onnxsub.cli.prune import GAMMA, LAYOUTS, RANKS, SUBSTITUTES
from onnxsub.cli.prune import command as prune_command

Run = Callable[..., Any]
COMMON = {"schema", "version", "model", "anchor", "settings", "time_s"}


@pytest.mark.parametrize("method", BOUND_METHODS)
def test_bounds_json(digits: Path, onnxsub: Run, method: str) -> None:
    ran = onnxsub("bounds", "digits.onnx", "--x0", "seven.npy", "--eps", 0.05, "--method", method, "--threads", 1, "--json")
    assert (ran.code, ran.err) == (0, "")
    document = ran.json
    assert document["schema"] == "onnxsub.bounds/1"
    assert set(document) >= COMMON | {"eps", "method", "layers"}
    assert (document["eps"], document["method"]) == (0.05, method)
    assert [layer["units"] for layer in document["layers"]] == [512, 256, 64]
    for layer in document["layers"]:
        assert layer["stable_on"] + layer["stable_off"] + layer["unstable"] == layer["units"]
        assert 0 <= layer["width_min"] <= layer["width_mean"] <= layer["width_max"]


def test_bounds_writes_the_annotated_model_and_its_arrays(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("bounds", "digits.onnx", "--x0", "seven.npy", "--eps", 0.05, "-o", "annotated.onnx", "--threads", 1)
    assert ran.code == 0
    assert "unstable" in ran.out
    model = onnx.load("annotated.onnx")
    keys = {p.key for node in model.graph.node for p in node.metadata_props}
    assert "onnxsub.bounds.width_mean" in keys
    with np.load("annotated.npz") as arrays:
        assert arrays["pre/h1/lower"].shape == (8, 8, 8)
    x = np.load("anchors.npz")["x"]
    f = onnxruntime.InferenceSession("digits.onnx").run(None, {"image": x})[0]
    g = onnxruntime.InferenceSession("annotated.onnx").run(None, {"image": x})[0]
    np.testing.assert_array_equal(f, g)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", SUBSTITUTES)
def test_prune_json(digits: Path, onnxsub: Run, method: str, layout: str) -> None:
    ran = onnxsub(
        "prune",
        "digits.onnx",
        "--x0",
        "seven.npy",
        "--method",
        method,
        "--gamma",
        0.9,
        "--layout",
        layout,
        "--threads",
        1,
        "--json",
    )
    assert (ran.code, ran.err) == (0, "")
    document = ran.json
    assert document["schema"] == "onnxsub.prune/1"
    assert set(document) >= COMMON | {
        "method", "gamma", "units_total", "units_pruned", "kept_per_layer", "d_adv", "rounds", "layout", "output", "preserves",
    }  # fmt: skip
    assert (document["units_total"], document["units_pruned"], sum(document["kept_per_layer"])) == (832, 749, 83)
    assert document["output"] == f"digits.{method}-0.9.onnx"
    assert document["preserves"]["x0"] <= 1e-4
    if method == "lin":
        assert document["preserves"]["x_adv"] <= 1e-4
    # any runtime reads the file, and it has the same class at the anchor
    session = onnxruntime.InferenceSession(document["output"])
    assert session.run(None, {"image": np.load("seven.npy")})[0].argmax() == 7


def test_prune_table_and_the_file_is_read_again(digits: Path, onnxsub: Run) -> None:
    ran = onnxsub("prune", "digits.onnx", "--x0", "seven.npy", "--keep", 5, "--threads", 1)
    assert ran.code == 0
    assert "827 of 832 units" in ran.out
    written = onnxsub("info", "digits.lin-keep5.onnx", "--json").json
    assert written["substitute"]["keep"] == 5
    assert set(written["operators"]) == {"Flatten", "Gemm", "Relu"}
    onnxsub("prune", "digits.onnx", "--x0", "seven.npy", "--keep", 5, "--threads", 1, "--layout", "compact")
    assert onnxsub("info", "digits.lin-keep5.onnx", "--json").json["units"] == 5


@pytest.mark.parametrize(("gamma", "pruned"), [(0, 0), (1, 832)])
def test_the_ends_of_gamma_are_legal(digits: Path, onnxsub: Run, gamma: int, pruned: int) -> None:
    ran = onnxsub("prune", "digits.onnx", "--x0", "seven.npy", "--gamma", gamma, "--threads", 1, "--json", "-o", "g.onnx")
    assert ran.code == 0
    assert ran.json["units_pruned"] == pruned
    assert ran.json["output"] == "g.onnx"


def test_a_run_repeats(digits: Path, onnxsub: Run) -> None:
    found = set()
    for name in ("a.onnx", "b.onnx"):
        assert onnxsub("prune", "digits.onnx", "--x0", "seven.npy", "-o", name, "--threads", 1).code == 0
        found.add(hashlib.sha256(Path(name).read_bytes()).hexdigest())
    assert len(found) == 1


def test_the_options_are_those_of_the_library() -> None:
    """The command line repeats names and defaults, so as to answer `--help` without importing torch."""
    from onnxsub.layouts import LAYOUTS as KNOWN_LAYOUTS
    from onnxsub.passes.bounds import BoundsOptions
    from onnxsub.passes.select import RANKS as KNOWN_RANKS
    from onnxsub.passes.select import SelectOptions
    from onnxsub.passes.substitute import METHODS as KNOWN_SUBSTITUTES
    from onnxsub.propagate import METHODS as KNOWN_BOUNDS
    from onnxsub.pruning.prune import PruneOptions

    assert set(BOUND_METHODS) == set(KNOWN_BOUNDS)
    assert set(LAYOUTS) == set(KNOWN_LAYOUTS)
    assert set(RANKS) == set(KNOWN_RANKS)
    assert set(SUBSTITUTES) == set(KNOWN_SUBSTITUTES)
    prune = {p.name: p.default for p in prune_command.params}
    select = SelectOptions()
    assert (GAMMA, prune["rank"], prune["gamma0"], prune["bounds"]) == (select.gamma, select.rank, select.gamma0, select.bounds)
    assert prune["method"] == PruneOptions().method
    assert PruneOptions().layout is None  # chosen by the kept units, as without --layout
    bounds = {p.name: p.default for p in bounds_command.params}
    assert bounds["method"] == inspect.signature(BoundsOptions).parameters["method"].default


def test_python_api(digits: Path) -> None:
    query = package.make_query("digits.onnx", np.load("seven.npy"))
    result = package.prune(query, package.PruneOptions(method="act"))
    assert result.units_total == 832
    assert len(package.bounds(query, package.BoundsOptions(eps=0.01)).layers) == 3
