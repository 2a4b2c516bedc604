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
from onnxsub.budget import OutOfTime
from onnxsub.cli.bounds import BOUND_METHODS
from onnxsub.cli.bounds import command as bounds_command
from onnxsub.cli.prune import GAMMA, LAYOUTS, RANKERS, RANKS, SUBSTITUTES
from onnxsub.cli.prune import command as prune_command
from tests.clock import Clock

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


def test_units_ranked_on_estimates_are_said_to_be(digits: Path, onnxsub: Run) -> None:
    words = ("prune", "digits.onnx", "--x0", "seven.npy", "--keep", 5, "--threads", 1, "--bounds", "estimate", "-o", "g.onnx")
    ran = onnxsub(*words)
    assert ran.code == 0
    assert "827 of 832 units, lin, ranked by influence on estimated widths in" in ran.out
    document = onnxsub(*words, "--json").json
    assert document["settings"]["bounds"] == "estimate"
    assert document["settings"]["attack"]["effort"] == 1.0
    assert document["preserves"]["x_adv"] < 1e-4
    assert onnxsub("info", "g.onnx", "--json").json["substitute"]["bounds"] == "estimate"


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
    from onnxsub.passes.select import RANKERS as KNOWN_RANKERS
    from onnxsub.passes.select import RANKS as KNOWN_RANKS
    from onnxsub.passes.select import SelectOptions
    from onnxsub.passes.substitute import METHODS as KNOWN_SUBSTITUTES
    from onnxsub.propagate import METHODS as KNOWN_BOUNDS
    from onnxsub.pruning.prune import PruneOptions

    assert set(BOUND_METHODS) == set(KNOWN_BOUNDS)
    assert set(LAYOUTS) == set(KNOWN_LAYOUTS)
    assert set(RANKS) == set(KNOWN_RANKS)
    assert set(RANKERS) == set(KNOWN_RANKERS)
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


LIMITED = ("digits.onnx", "--x0", "seven.npy", "--threads", 1)


def test_bounds_that_are_cut_short_say_that_nothing_is_known(
    digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxsub.budget.time", Clock())
    ran = onnxsub("bounds", *LIMITED, "--eps", 0.05, "--timeout", 4, "--json", "-o", "annotated.onnx")
    assert ran.code == 3
    assert ran.line.startswith("onnxsub: bounds stopped: the time limit ended it in the stage 'bounds'")
    assert "--timeout" in ran.line
    assert "nothing is known" in ran.line
    assert not Path("annotated.onnx").exists()
    assert not Path("annotated.npz").exists()


@pytest.mark.parametrize(("looks", "stage"), [(5, "attack"), (400, "select")])
def test_a_prune_that_is_cut_short_writes_nothing(
    digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch, looks: int, stage: str
) -> None:
    if stage == "select":

        def ended(*_: object, **__: object) -> None:
            raise OutOfTime

        monkeypatch.setattr("onnxsub.passes.select.compute_bounds", ended)
        looks = 10**6
    clock = Clock()
    monkeypatch.setattr("onnxsub.budget.time", clock)
    if stage == "select":
        monkeypatch.setattr("onnxsub.passes.select._bounds", lambda *_: clock.end())
    for more, extra in (((), ""), (("--best-effort",), "no round")):
        clock.now = 0.0
        ran = onnxsub("prune", *LIMITED, "--timeout", looks, "-o", "g.onnx", "--json", *more)
        assert ran.code == 3
        assert ran.line.startswith(f"onnxsub: prune stopped: the time limit ended it in the stage '{stage}'")
        assert "nothing was written" in ran.line
        assert extra in ran.line
        assert not Path("g.onnx").exists()


def test_best_effort_says_how_much_was_pruned(digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxsub.passes import select

    real, rounds = select._bounds, []

    def two_rounds(*args: Any) -> Any:
        rounds.append(1)
        if len(rounds) == 3:
            raise OutOfTime
        return real(*args)

    monkeypatch.setattr(select, "_bounds", two_rounds)
    ran = onnxsub("prune", *LIMITED, "--best-effort", "--timeout", 1000, "-o", "g.onnx", "--json")
    assert ran.code == 0
    assert "after 2 whole rounds, fewer than was asked for" in ran.err
    document = ran.json
    assert (document["complete"], document["stage"], document["rounds"]) == (False, "select", 2)
    assert document["units_pruned"] == 832 - sum(document["kept_per_layer"])
    assert 0 < document["units_pruned"] < 0.99 * 832
    x = np.load("seven.npy")
    f = onnxruntime.InferenceSession("digits.onnx").run(None, {"image": x})[0]
    g = onnxruntime.InferenceSession("g.onnx").run(None, {"image": x})[0]
    np.testing.assert_allclose(f, g, atol=1e-4)


def test_a_comparison_that_is_cut_short_is_undecided(digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load("digits.onnx")
    last = next(t for t in model.graph.initializer if list(t.dims) == [10])
    values = onnx.numpy_helper.to_array(last)
    last.CopyFrom(onnx.numpy_helper.from_array(values + np.float32(0.25), last.name))
    onnx.save(model, "other.onnx")
    monkeypatch.setattr("onnxsub.budget.time", Clock())
    arguments = ("compare", *LIMITED, "other.onnx", "--eps", 0.05, "--json", "-o", "q.vnnlib")
    ran = onnxsub(*arguments, "--timeout", 0.5)
    assert ran.code == 3
    assert (ran.json["stage"], ran.json["certified"], ran.json["points"]) == ("sampled", None, 1)
    assert ran.json["at_x0"] == pytest.approx(0.25, abs=1e-5)
    assert "'sampled'" in ran.err
    assert "'q.vnnlib' was not written" in ran.err
    assert not Path("q.vnnlib").exists()
    assert "nothing" in onnxsub(*arguments[:-3], "--timeout", 0.5).out
    ran = onnxsub(*arguments, "--timeout", 10**6)
    assert (ran.code, ran.json["stage"]) == (0, None)
    assert ran.json["certified"] >= 0.25 - 1e-5
    assert Path("q.vnnlib").exists()


def test_an_attack_that_is_cut_short_names_the_stage(digits: Path, onnxsub: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxsub.budget.time", Clock())
    ran = onnxsub("attack", *LIMITED, "--timeout", 100, "--json")
    assert ran.code == 0
    assert ran.json["timed_out"] is True
    assert ran.json["stage"] in ("scout", "descend")
    assert ran.json["found"] is True
    assert ran.json["stage"] in ran.err
