"""Decisions by other tools: every `sat` is replayed, every failure has a reason."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxsub.errors import InputError, MissingDependencyError
from onnxsub.model import load_model, save_model
from onnxsub.passes.attack import attack
from onnxsub.query import Query
from onnxsub.region import InputSpace
from onnxsub.results import dumps
from onnxsub.verifiers.external.command import CommandTool
from onnxsub.verifiers.external.decide import decide_external
from onnxsub.verifiers.external.marabou import VARIABLE, Marabou
from onnxsub.verifiers.external.tool import SAT, UNKNOWN, UNSAT, Tool
from onnxsub.verifiers.registry import check_verifier, external_tool
from onnxsub.verifiers.result import VerifyResult
from onnxsub.verifiers.verify import VerifyOptions, verify
from tests.verifiers.external_tools import Stand, chain_of, program, says, small_query

posix = pytest.mark.skipif(sys.platform == "win32", reason="programs are started by their first line")
CONV = 0
"""Seed of a convolutional network whose substitute has a boundary inside the domain."""
NORMALISED = InputSpace(mean=(0.3,), std=(0.4,))


@pytest.mark.parametrize("space", [InputSpace(), NORMALISED])
@pytest.mark.parametrize("seed", range(4))
def test_an_honest_tool_agrees_with_ours(seed: int, space: InputSpace) -> None:
    query = small_query(seed, space=space)
    reached = attack(query).d_adv
    for eps in (0.5 * min(reached, 1.0), min(1.02 * reached, 1.0)):
        theirs, ours = decide_external(query.model, query, eps, Stand()), verify(query, eps)
        assert theirs.status == ours.status
        assert theirs.original is None
        assert (theirs.verifier, theirs.solver) == ("stand", None)
        if theirs.status == "violated":
            assert theirs.witness is not None
            assert theirs.witness.radius <= eps
            assert query.margins(theirs.witness.x[None])[0][0] >= 0
            assert theirs.targets[theirs.witness.label] == "violated"


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("space", [InputSpace(), NORMALISED])
def test_on_a_substitute_the_witness_is_replayed_on_both(flat: bool, space: InputSpace) -> None:
    query = small_query(CONV, "conv", space)
    file = chain_of(query, flat=flat)
    result = decide_external(file, query, 1.0, Stand())
    assert result.status == "violated"
    assert result.witness is not None
    assert result.original is not None
    assert result.witness.x.shape == query.x0.shape
    margin, _ = query.margins(result.witness.x[None])
    assert result.original.margin == pytest.approx(float(margin[0]), abs=1e-6)
    document = json.loads(dumps(result))
    assert document["original"]["kind"] == result.original.kind


def test_the_box_of_the_question_contains_the_ball() -> None:
    query = small_query(1, space=NORMALISED)
    tool = Stand(says(UNSAT))
    result = decide_external(query.model, query, 0.05, tool)
    (case,) = tool.asked[0].question.cases
    low, high = ((end.reshape(-1) - 0.3) / 0.4 for end in query.space.ball(query.x0, 0.05))
    assert (case.lower <= low).all()
    assert (case.upper >= high).all()
    assert result.status == "proved"
    assert "its claim, not proved here" in result.reason


def test_the_nearest_class_is_asked_about_first() -> None:
    query = small_query(2)
    tool = Stand(says(UNSAT))
    decide_external(query.model, query, 0.01, tool)
    logits = query.logits(query.x0[None])[0]
    first = tool.asked[0].question.cases[0].clauses[0].A[0]
    assert int(np.flatnonzero(first < 0)[0]) == max(query.targets, key=lambda t: logits[t])


def test_a_point_that_does_not_replay_is_rejected() -> None:
    """What Marabou once did: `sat` with a point whose margin is far below zero."""
    query = small_query(0)
    tool = Stand(says(SAT, lambda job: job.question.cases[0].lower))
    result = decide_external(query.model, query, 1e-4, tool)
    assert result.status == "unknown"
    assert "stand says sat, rejected" in result.reason
    assert result.witness is not None
    assert result.witness.kind == "rejected"
    assert set(result.targets.values()) == {"unknown"}


def test_a_point_far_outside_of_the_ball_is_not_believed() -> None:
    query = small_query(0)
    far = attack(query).x_adv
    assert far is not None
    result = decide_external(query.model, query, 1e-4, Stand(says(SAT, lambda job: far.reshape(-1))))
    assert result.status == "unknown"
    assert result.witness is None or not result.witness.confirmed


def test_no_point_at_all_is_rejected() -> None:
    query = small_query(0)
    result = decide_external(query.model, query, 0.5, Stand(says(SAT)))
    assert (result.status, result.witness) == ("unknown", None)
    assert "without a point" in result.reason


def test_ctrl_c_is_an_answer() -> None:
    def stop(job: object) -> None:
        raise KeyboardInterrupt

    query = small_query(0)
    result = decide_external(query.model, query, 0.1, Stand(stop))  # type: ignore[arg-type]
    assert (result.status, result.interrupted) == ("unknown", True)


def test_a_file_of_other_inputs_is_refused() -> None:
    query, other = small_query(0), small_query(3, "conv")
    with pytest.raises(InputError, match="inputs"):
        decide_external(other.model, query, 0.1, Stand())


def ask(tool: Tool, query: Query, eps: float = 0.01, timeout: float | None = 60.0) -> VerifyResult:
    return decide_external(query.model, query, eps, tool, timeout)


READ = """
import sys
version, category, model, question, results, seconds = sys.argv[-6:]
assert version == "v1" and model.endswith(".onnx") and "(declare-const X_0 Real)" in open(question).read() and int(seconds) >= 1
"""
"""The head of a tool of VNN-COMP."""

UNSAT_TOOL = READ + "open(results, 'w').write('unsat\\n')"


@posix
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("open(results, 'w').write('timeout')", "says timeout"),
        ("open(results, 'w').write('error\\n'); print('no licence')", "says error .no licence."),
        ("open(results, 'w').write('hello world\\n')", "'hello world', which is no answer"),
        ("open(results, 'wb').write(bytes(range(256)))", "which is no answer"),
        ("", "wrote no results"),
        ("open(results, 'w').write('unsat'); sys.exit(3)", "ended with code 3"),
        ("open(results, 'w').write('sat\\n((X_0 1')", "rejected"),
        ("open(results, 'w').write('sat')", "says sat and wrote no witness, rejected"),
        ("open(results, 'w').write('violated')", "says violated and wrote no witness, rejected"),
        ("open(results, 'w').write('violated\\n((X_0 1.0))')", "says violated, rejected: .*1 inputs"),
        ("open(results, 'w').write('holds'); sys.exit(3)", "ended with code 3"),
        ("raise ValueError('broken')", "ended with code 1 .ValueError: broken."),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11"),
    ],
)
def test_a_command_that_fails_is_unknown_with_the_reason(tmp_path: Path, code: str, reason: str) -> None:
    result = ask(CommandTool(str(program(tmp_path / "tool", READ + code))), small_query(0))
    assert result.status == "unknown"
    assert re.search(reason, result.reason), result.reason
    assert "\n" not in result.reason


@posix
def test_a_command_that_hangs_is_killed(tmp_path: Path) -> None:
    tool = CommandTool(str(program(tmp_path / "tool", READ + "open(results, 'w').write('unsat')\nimport time; time.sleep(600)")))
    result = ask(tool, small_query(0), timeout=1.5)
    assert result.status == "unknown"
    assert "killed at its limit" in result.reason


@posix
def test_the_words_of_2021(tmp_path: Path) -> None:
    """What nnenum's own script writes: `holds` is a claim as good as `unsat`; `violated` counts with a witness only."""
    query = small_query(0)
    result = ask(CommandTool(str(program(tmp_path / "holds", READ + "open(results, 'w').write('holds')"))), query)
    assert (result.status, set(result.targets.values())) == ("proved", {"proved"})
    assert "says holds: its claim, not proved here" in result.reason
    found = attack(query)
    assert found.x_adv is not None
    pairs = " ".join(f"(X_{i} {x!r})" for i, x in enumerate(found.x_adv.reshape(-1).tolist()))
    tool = program(tmp_path / "violated", READ + f"open(results, 'w').write('violated\\n({pairs})')")
    result = ask(CommandTool(str(tool)), query, eps=found.d_adv * 1.01)
    assert result.status == "violated"
    assert "says violated, replayed on the file" in result.reason


@posix
def test_a_program_is_started_by_the_name_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter of a virtual environment is a link to another one."""
    program(tmp_path / "tool", READ + "assert sys.argv[0].endswith('/alias'), sys.argv[0]\nopen(results, 'w').write('unsat')")
    (tmp_path / "alias").symlink_to("tool")
    monkeypatch.chdir(tmp_path)
    for command in ("./alias", str(tmp_path / "alias")):
        result = ask(CommandTool(command), small_query(0))
        assert result.status == "proved", result.reason


@posix
def test_a_command_is_given_its_arguments_and_believed_after_the_replay(tmp_path: Path) -> None:
    query = small_query(0)
    found = attack(query)
    assert found.x_adv is not None
    np.save(tmp_path / "x.npy", found.x_adv.reshape(-1))
    code = (
        READ + "import numpy as np\nx = np.load(sys.argv[1])\n"
        "pairs = [f'(X_{i} {v:.17f})' for i, v in enumerate(x)]\n"
        "open(results, 'w').write('sat\\n(' + '\\n'.join(pairs) + ')\\n')\n"
    )
    tool = CommandTool(f"'{program(tmp_path / 'a tool', code)}' '{tmp_path / 'x.npy'}'")
    result = ask(tool, query, eps=found.d_adv * 1.01)
    assert (result.status, result.verifier) == ("violated", tool.name)
    result = ask(CommandTool(str(program(tmp_path / "other", UNSAT_TOOL))), query)
    assert result.status == "proved"
    assert set(result.targets.values()) == {"proved"}


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    result = ask(CommandTool(str(tmp_path / "absent")), small_query(0))
    assert result.status == "unknown"
    assert "cannot be started (No such file or directory)" in result.reason


ANSWERS = """
import json, sys
job = json.load(sys.stdin)
n = len(job["clauses"])
say = lambda **d: print(json.dumps(d), flush=True)
"""
"""The head of a stand-in for an interpreter that runs Marabou's worker."""


@posix
@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("say(version='9'); [say(clause=i, word='unsat') for i in range(n)]", "proved", "marabou 9 says unsat"),
        ("say(version='9'); say(clause=0, word='unsat')", "unknown", "marabou 9: ended before its answer, 1 of 2"),
        ("say(version='9'); [say(clause=i, word='TIMEOUT') for i in range(n)]", "unknown", "says TIMEOUT, 2 of 2"),
        ("[say(clause=i, word='unsat') for i in range(n)]; print('Segmentation fault')", "unknown", "what is no answer"),
        ("say(clause=7, word='unsat')", "unknown", "what is no answer"),
        ("say(clause=0, word='sat', x=[1.0])", "unknown", "what is no answer"),
        ("say(error='no maraboupy here')", "unknown", "no maraboupy here"),
        ("say(clause=0, word='unsat'); sys.exit('died')", "unknown", "ended with code 1 .died., 1 of 2"),
        ("say(version='9'); say(clause=0, word='sat', x=job['lower'])", "unknown", "marabou 9 says sat, rejected"),
        ("say(clause=0, word='unsat'); import time; time.sleep(600)", "unknown", "killed at its limit of .*, 1 of 2"),
    ],
)
def test_what_the_worker_prints(tmp_path: Path, code: str, status: str, reason: str) -> None:
    limit = 2.0 if "sleep" in code else 60.0
    result = ask(Marabou(str(program(tmp_path / "python", ANSWERS + code))), small_query(0), eps=1e-4, timeout=limit)
    assert result.status == status, result.reason
    assert re.search(reason, result.reason), result.reason
    if "1 of 2" in reason:
        assert sorted(result.targets.values()) == ["proved", "unknown"]


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    result = ask(Marabou(str(tmp_path / "absent")), small_query(0))
    assert "cannot be started" in result.reason


def test_an_interpreter_without_maraboupy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    if importlib.util.find_spec("maraboupy") is not None:
        pytest.skip("this interpreter has maraboupy")
    result = ask(Marabou(sys.executable), small_query(0))
    assert result.status == "unknown"
    assert "pip install maraboupy" in result.reason
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(MissingDependencyError, match="pip install maraboupy"):
        external_tool("marabou")


def test_verifiers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "py311")
    assert external_tool("milp") is None
    assert external_tool("marabou") == Marabou("py311")
    assert external_tool("marabou:other") == Marabou("other")
    assert external_tool("command:'a b' c") == CommandTool("'a b' c")
    assert external_tool("nnenum:tool") == CommandTool("tool", reader="nnenum")
    for wrong in ("gurobi", "command", "command:", "milp:fast", ""):
        with pytest.raises(InputError, match="--verifier"):
            check_verifier(wrong)
    with pytest.raises(InputError, match="quotes"):
        external_tool("command:'a")


@posix
def test_verify_takes_the_tool_by_name(tmp_path: Path) -> None:
    query = small_query(0)
    name = f"command:{program(tmp_path / 'tool', UNSAT_TOOL)}"
    result = verify(query, 1e-3, VerifyOptions(verifier=name))
    assert (result.status, result.verifier) == ("proved", name)


def test_the_words_are_three() -> None:
    assert {SAT, UNSAT, UNKNOWN} == {"sat", "unsat", "unknown"}


def test_a_saved_file_is_asked_about_by_its_path(tmp_path: Path) -> None:
    query = small_query(3, "conv")
    file = chain_of(query)
    save_model(file.source, tmp_path / "g.onnx")
    tool = Stand()
    result = decide_external(tmp_path / "g.onnx", query, 1e-4, tool)
    assert result.status == "proved"
    assert not tool.asked[0].folder.exists()
    assert load_model(tmp_path / "g.onnx").sha256 != query.model.sha256
