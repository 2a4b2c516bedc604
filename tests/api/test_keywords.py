"""Keywords are the fields of the options; values of wrong types are errors of one line."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import onnxsub
from onnxsub.api.keywords import build, checked, in_python, keywords_of, refuse_unknown
from onnxsub.errors import InputError, OutputError


def test_fields_of_parts_are_keywords() -> None:
    known = keywords_of(onnxsub.DistanceOptions)
    assert known["timeout"].paths == (("limits", "timeout"),)
    assert known["gamma"].paths == (("via", "select", "gamma"),)
    assert known["method"].paths == (("via", "method"),)
    assert set(known["seed"].paths) == {("limits", "seed"), ("attack", "seed"), ("via", "attack", "seed")}
    assert known["verifier"].default == "bab"


def test_values_reach_their_fields_and_the_rest_stays_as_it_is_by_default() -> None:
    plain = onnxsub.DistanceOptions()
    made = build(onnxsub.DistanceOptions, {"timeout": 5, "solver": "scip", "seed": 3, "memory": 1, "verifier": "milp"})
    assert made.limits == onnxsub.Limits(timeout=5.0, seed=3)
    assert (made.milp.solver, made.verifier, made.bab.memory, made.attack.seed) == ("scip", "milp", 2**30, 3)
    assert made.via is None
    assert build(onnxsub.DistanceOptions, {}) == plain


def test_a_share_asks_for_a_substitute_and_a_number_stands_in_its_place() -> None:
    by_share = build(onnxsub.DistanceOptions, {"gamma": 0.9, "seed": 2})
    assert by_share.via is not None
    assert (by_share.via.method, by_share.via.select.gamma, by_share.via.attack.seed) == ("lin", 0.9, 2)
    by_number = build(onnxsub.PruneOptions, {"keep": 4})
    assert (by_number.select.gamma, by_number.select.keep) == (None, 4)


def test_keywords_change_options_that_are_given() -> None:
    base = onnxsub.DistanceOptions(onnxsub.Limits(timeout=9.0, nodes=7), verifier="milp")
    made = build(onnxsub.DistanceOptions, {"timeout": 3}, base)
    assert made.limits == onnxsub.Limits(timeout=3.0, nodes=7)
    assert made.verifier == "milp"


@pytest.mark.parametrize(
    ("value", "kind", "wanted"),
    [(3, float, 3.0), (np.float32(0.5), float, 0.5), (np.int64(4), int, 4), (None, int | None, None),
     ([0.5, 1], tuple[float, ...], (0.5, 1.0)), (0.5, tuple[float, ...], (0.5,)),
     (np.array([1, 28, 28]), tuple[int, ...], (1, 28, 28)), (np.bool_(True), bool, True)],
)  # fmt: skip
def test_values_become_pythons_own(value: object, kind: object, wanted: object) -> None:
    found = checked("x", value, kind)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [("3", float, "a number"), (True, int, "a whole number"), (2.5, int | None, "a whole number"), (1, str, "a string"),
     ("abc", tuple[float, ...], "a sequence of numbers"), ((1.0,), tuple[float, float], "a sequence of 2 numbers"),
     (np.zeros((3, 3)), float, "of type ndarray"), (object(), np.ndarray, "an array of numbers")],
)  # fmt: skip
def test_wrong_types_are_said_in_one_line(value: object, kind: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        checked("x", value, kind)
    assert "\n" not in str(raised.value)


def test_an_unknown_keyword_names_the_one_that_may_be_meant() -> None:
    with pytest.raises(InputError, match="is timeout meant"):
        refuse_unknown("distance", {"timout": 3}, keywords_of(onnxsub.DistanceOptions))


def test_errors_name_keywords_in_place_of_options() -> None:
    with pytest.raises(OutputError, match=r"^give exact_on, or lower and upper$"), in_python():
        raise OutputError("give --exact-on, or --domain LO HI")


@pytest.mark.parametrize(
    ("call", "names"),
    [("distance", {"timeout", "gamma", "method", "verifier", "label", "lower", "upper", "mean", "std", "run"}),
     ("verify", {"eps", "nodes", "solver", "target", "scale"}), ("attack", {"restarts", "device"}),
     ("prune", {"layout", "keep", "path"}),
     ("evaluate", {"methods", "gammas", "jobs", "limit"}), ("robustness", {"metric", "eps", "error"}), ("gate", {"max_drop"}),
     ("report", {"images", "title"}), ("bounds", {"method", "eps"}), ("compare", {"samples"}), ("make_query", {"lower", "target"})],
)  # fmt: skip
def test_signatures_list_the_keywords(call: str, names: set[str]) -> None:
    parameters = inspect.signature(getattr(onnxsub, call)).parameters
    assert names <= set(parameters)
    assert len(set(parameters)) == len(parameters)


def test_every_option_of_the_command_line_is_a_keyword() -> None:
    """What the command line says otherwise: files and anchors (arguments here), and where things are printed."""
    from onnxsub.cli.main import cli

    other = {
        "model", "other", "x0", "output", "scores", "as_json", "quiet", "verbose", "domain", "via", "bounds", "prop",
        "folder", "models", "property_", "value_range", "new", "delta", "vnncomp", "fail_on", "help", "page",
        "junit", "markdown", "badge", "sarif", "run", "runs", "method", "config", "limits",
    }  # fmt: skip
    context = cli.make_context("onnxsub", ["info"], resilient_parsing=True)
    checked_options = 0
    for name in ("distance", "verify", "attack", "prune", "bounds", "compare", "evaluate", "robustness", "gate", "report"):
        command = cli.get_command(context, name)
        assert command is not None
        known = set(inspect.signature(getattr(onnxsub, name)).parameters) | {"verifier"}
        for parameter in command.params:
            if parameter.name in other or (name in ("bounds", "compare") and parameter.name in ("seed", "device")):
                continue
            if name == "robustness" and parameter.name == "batch":
                continue  # of several models and radii, which the call does not take
            assert parameter.name in known, f"{name} has no keyword for {parameter.opts}"
            checked_options += 1
    assert checked_options > 80
