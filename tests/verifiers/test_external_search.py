"""The distance from decisions of other tools: honest, silent and lying ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxsub.cli.main import run
from onnxsub.errors import InputError, UnsupportedOperatorError
from onnxsub.instance import Instance
from onnxsub.model import load_model
from onnxsub.passes.attack import AttackOptions, attack
from onnxsub.passes.select import SelectOptions
from onnxsub.pruning.prune import PruneOptions
from onnxsub.query import Query, make_query
from onnxsub.region import InputSpace
from onnxsub.verifiers.distance import DistanceOptions, distance
from onnxsub.verifiers.external.decide import decide_external
from onnxsub.verifiers.external.marabou import VARIABLE, Marabou
from onnxsub.verifiers.external.search import distance_external, unanswered
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Claim, Job, Tool
from onnxsub.verifiers.measure import measure
from onnxsub.verifiers.options import ExactOptions, Limits
from onnxsub.verifiers.result import DistanceResult
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.handmade import Net
from tests.verifiers.external_tools import Stand, chain_of, program, says, small_query

TOL = 1e-5
CLOSE = Limits(tol=TOL)


def ours_of(query: Query, tol: float = 1e-6) -> DistanceResult:
    return measure(Instance.of(query), ExactOptions(Limits(tol=tol)), "milp")


@pytest.mark.parametrize("space", [InputSpace(), InputSpace(mean=(0.3,), std=(0.4,))])
@pytest.mark.parametrize("seed", range(4))
def test_an_honest_tool_gives_the_distance_of_our_milp(seed: int, space: InputSpace) -> None:
    query = small_query(seed, space=space)
    ours = ours_of(query, TOL)
    theirs = distance_external(query.model, query, Stand(), CLOSE)
    assert theirs.status == ours.status
    if ours.status == "exact":
        assert theirs.upper - theirs.lower <= TOL
        assert max(theirs.lower, ours.lower) <= min(theirs.upper, ours.upper) + 1e-6
        assert theirs.witness is not None
        assert theirs.witness.confirmed
        assert theirs.targets[theirs.witness.label].status == "exact"
    assert (theirs.verifier, theirs.solver) == ("stand", None)


def test_a_bad_start_is_made_good() -> None:
    query = small_query(0)
    exact = measure(Instance(query.network, query.x0, query.label, query.space), verifier="milp").upper
    far = np.random.default_rng(0).random((2000, *query.x0.shape)).astype(np.float32)
    point = far[int(query.margins(far)[0].argmax())]
    assert query.margins(point[None])[0][0] > 0
    found = distance_external(query.model, query, Stand(), CLOSE, start=point)
    assert found.status == "exact"
    assert found.upper == pytest.approx(exact, abs=2 * TOL)


@pytest.mark.parametrize("answer", [says(UNKNOWN), says(SAT), says(SAT, lambda job: job.question.cases[0].lower)])
def test_a_tool_without_an_answer_leaves_the_rest(answer: Callable[[Job], Claim]) -> None:
    """Bounds and attack are ours, and stay."""
    query = small_query(0)
    exact = measure(Instance(query.network, query.x0, query.label, query.space), verifier="milp").upper
    found = distance_external(query.model, query, Stand(answer), Limits(tol=1e-12))
    assert found.lower - 1e-6 <= exact <= found.upper + 1e-6
    assert np.isfinite(found.upper)
    if found.status == "bracket":
        assert found.reason is not None
        assert "stand says" in found.reason
        assert unanswered(found)


def test_a_bracket_says_whether_the_tool_had_a_part_in_it() -> None:
    query = small_query(0)
    honest = Stand()

    def once(job: Job) -> Claim:
        return honest.ask(job) if not honest.asked else Claim.nothing(job, "stand: ended with code 9")

    silent = distance_external(query.model, query, Stand(says(UNKNOWN)), Limits(tol=1e-12))
    assert silent.reason is not None
    assert silent.reason.startswith("no answer in 3 runs, the bracket is that of our bounds and the attack; at radius")
    heard = distance_external(query.model, query, Stand(once), Limits(tol=1e-12))
    assert (heard.status, unanswered(heard)) == ("bracket", False)
    assert not unanswered(distance_external(query.model, query, honest, CLOSE))


def test_a_tool_that_dies_half_way_keeps_what_it_said() -> None:
    query = small_query(0)
    honest = Stand()

    def answer(job: Job) -> Claim:
        return honest.ask(job) if len(honest.asked) < 2 else Claim.nothing(job, "stand: ended with code 9")

    found = distance_external(query.model, query, Stand(answer), Limits(tol=1e-9))
    exact = measure(Instance(query.network, query.x0, query.label, query.space), verifier="milp").upper
    assert found.lower - 1e-6 <= exact <= found.upper + 1e-6


def test_what_a_tool_claims_is_said_to_be_its_claim() -> None:
    """A tool that always says unsat: the lower end is not ours beyond what bounds certify."""
    query = small_query(0)
    found = distance_external(query.model, query, Stand(says(UNSAT)), Limits())
    assert found.reason is not None
    assert "is the claim of stand" in found.reason


@pytest.mark.parametrize("wrong", [{"tol": 0.0}, {"timeout": -1.0}])
def test_options_are_checked(wrong: dict[str, Any]) -> None:
    query = small_query(0)
    with pytest.raises(InputError):
        distance_external(query.model, query, Stand(), Limits(**wrong))


def test_ctrl_c_gives_the_bracket() -> None:
    def stop(job: Job) -> Claim:
        raise KeyboardInterrupt

    query = small_query(0)
    found = distance_external(query.model, query, Stand(stop), Limits(tol=1e-12))
    assert found.interrupted
    assert 0 < found.lower <= found.upper < np.inf


def test_the_clock_ends_the_search() -> None:
    query = small_query(0)
    tool = Stand()
    found = distance_external(query.model, query, tool, Limits(timeout=1e-3))
    assert found.lower <= found.upper
    assert len(tool.asked) <= 1
    if not tool.asked and found.status == "bracket":
        assert found.reason is not None
        assert found.reason.startswith("the time was over before stand was asked")
        assert unanswered(found)


def via_tool(monkeypatch: pytest.MonkeyPatch, tool: Tool, query: Query) -> DistanceResult:
    monkeypatch.setattr("onnxsub.verifiers.distance.external_tool", lambda name: tool)
    options = DistanceOptions(CLOSE, via=PruneOptions("act", SelectOptions(gamma=0.5)), verifier="marabou")
    return distance(query, options)


def test_via_a_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    query = small_query(0)
    ours = distance(query, DistanceOptions(CLOSE, via=PruneOptions("act", SelectOptions(gamma=0.5))))
    theirs = via_tool(monkeypatch, Stand(), query)
    assert theirs.original is not None
    assert ours.original is not None
    assert theirs.status == ours.status == "exact"
    assert theirs.upper == pytest.approx(ours.upper, abs=3 * TOL)
    assert theirs.original.upper == pytest.approx(ours.original.upper, rel=1e-3)


def test_a_lie_about_the_substitute_certifies_nothing_of_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    """The substitute may be the original on the ball; a tool's `unsat` still is no proof."""
    query = small_query(0)
    exact = measure(Instance(query.network, query.x0, query.label, query.space), verifier="milp").upper
    theirs = via_tool(monkeypatch, Stand(says(UNSAT)), query)
    assert theirs.original is not None
    assert not theirs.original.exact
    assert theirs.original.lower <= exact + 1e-6


def test_a_file_that_the_tool_does_not_read_costs_no_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    n = Net(4)
    query = make_query(load_model(n.model(n.gemm(n.node("Abs", ["x"]), 4, 3), 3)), np.full(4, 0.5, np.float32))
    monkeypatch.setattr("onnxsub.verifiers.distance.external_tool", lambda name: Stand())
    monkeypatch.setattr("onnxsub.verifiers.distance.Attacker", None)  # the attack would be made of it
    with pytest.raises(UnsupportedOperatorError, match="layout chain"):
        distance(query, DistanceOptions(verifier="marabou"))


@pytest.fixture(scope="module")
def marabou() -> Marabou:
    python = os.environ.get(VARIABLE, sys.executable)
    if subprocess.run([python, "-c", "import maraboupy"], capture_output=True, check=False).returncode:
        pytest.skip(f"no maraboupy in {python}; set {VARIABLE} to an interpreter that has it")
    return Marabou(python)


@pytest.mark.parametrize(("seed", "kind"), [(0, "dense"), (3, "conv"), (4, "conv"), (2, "residual")])
def test_marabou_itself_on_substitutes(marabou: Marabou, seed: int, kind: str) -> None:
    """Seeds that Marabou answers in a second: on one in five it needs minutes, before and after any change of the file's rows."""
    query = small_query(seed, kind)
    file = chain_of(query, flat=kind == "conv")
    ours = verify(make_query(file, query.x0.reshape(file.input_shape), query.label), 0.2, VerifyOptions())
    theirs = decide_external(file, query, 0.2, marabou, 60.0)
    assert theirs.status == ours.status
    assert "marabou 2" in theirs.reason


def test_marabou_itself_finds_a_distance(marabou: Marabou) -> None:
    query = small_query(0)
    file = chain_of(query)
    same = make_query(file, query.x0, query.label)
    ours = measure(Instance(same.network, query.x0, query.label, query.space), ExactOptions(CLOSE), "milp")
    theirs = distance_external(file, query, marabou, Limits(timeout=60.0, tol=TOL))
    assert theirs.status == ours.status == "exact"
    assert theirs.upper == pytest.approx(ours.upper, abs=3 * TOL)


def test_marabou_itself_on_a_real_substitute(marabou: Marabou, net_path: Callable[[str], Path], data_dir: Path) -> None:
    with np.load(data_dir / "data" / "mnist.npz") as archive:
        image = archive["x_test"][8].astype(np.float32)[None] / 255
    query = make_query(net_path("wk17a"), image)
    via = PruneOptions("lin", SelectOptions(gamma=0.99, rank="width"), attack=AttackOptions(steps=40, threads=1))
    options = DistanceOptions(Limits(timeout=60, threads=1), via=via, attack=via.attack, verifier=f"marabou:{marabou.python}")
    theirs, ours = distance(query, options), distance(query, replace(options, verifier="milp"))
    assert theirs.status == ours.status == "exact"
    assert theirs.upper == pytest.approx(ours.upper, abs=1e-5)
    assert theirs.original is not None
    assert theirs.original.lower <= 0.0940014207 <= theirs.original.upper + 1e-5


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.slow
def test_our_own_script_is_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(__file__).parents[2] / "scripts" / "vnncomp" / "run_instance.sh"
    monkeypatch.setenv("ONNXSUB_PYTHON", sys.executable)
    query = small_query(0)
    reached = attack(query).d_adv
    for eps, status in ((0.2 * reached, "proved"), (1.05 * reached, "violated")):
        result = verify(query, eps, VerifyOptions(Limits(timeout=60.0), verifier=f"command:{script}"))
        assert result.status == status


def test_the_command_line_takes_a_tool(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    models = Path(__file__).parents[2] / "models"
    tool = program(tmp_path / "tool", "import sys\nopen(sys.argv[5], 'w').write('unsat\\n')\n")
    question = [str(models / "digits.onnx"), "--x0", str(models / "digits_seven.npy"), "--json"]
    assert run(["verify", *question, "--eps", "0.001", "--verifier", f"command:{tool}"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert (document["status"], document["verifier"], document["solver"]) == ("proved", f"command:{tool}", None)
    assert "not proved here" in document["reason"]
    assert run(["verify", *question, "--eps", "0.001", "--verifier", "command:./absent"]) == 4
    assert "there is no program './absent' that can be started" in capfd.readouterr().err
    assert run(["verify", *question, "--eps", "0.001", "--verifier", "nothing"]) == 2
    assert "is unknown" in capfd.readouterr().err
    assert run(["distance", *question[:-1], "--via", "lin:0.9", "--verifier", f"command:{tool}", "--timeout", "30"]) == 0
    assert "the lower end is the claim" in " ".join(capfd.readouterr().out.split())
