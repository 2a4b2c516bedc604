"""Properties by other tools: points are replayed, proofs are claims, several boxes are several questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import onnxsub.verifiers.property as module
from onnxsub.errors import UnsupportedOperatorError
from onnxsub.model import Model, load_model
from onnxsub.properties import Case, Clause, Property, parse_property, write_property
from onnxsub.runtime import Runtime
from onnxsub.verifiers.external.tool import SAT, UNSAT, Claim, Job
from onnxsub.verifiers.options import Limits
from onnxsub.verifiers.property import decide_property
from onnxsub.verifiers.result import VerifyResult
from onnxsub.verifiers.verify import VerifyOptions
from tests.random_models import random_model
from tests.verifiers.external_tools import Stand, program, says


@pytest.fixture
def model() -> Model:
    return load_model(random_model(4, kind="dense", activations=("Relu",), classes=3))


def clause(*rows: tuple[list[float], float], strict: bool = False) -> Clause:
    return Clause(np.array([a for a, _ in rows]), np.array([b for _, b in rows]), np.full(len(rows), strict))


def unit(model: Model, *cases: tuple[Clause, ...]) -> Property:
    n = int(np.prod(model.input_shape))
    return Property(tuple(Case(np.zeros(n), np.ones(n), c) for c in cases), (n,), (model.outputs,))


def stand(answer: Callable[[Job], Claim] | None = None) -> Stand:
    return Stand(answer, reader=None)


def thresholds(model: Model) -> tuple[Clause, Clause]:
    """A clause that some inputs satisfy and one that none does."""
    n = int(np.prod(model.input_shape))
    points = np.random.default_rng(0).random((500, n)).astype(np.float32)
    y = Runtime(model).logits(points.reshape(-1, *model.input_shape)).astype(np.float64)
    return clause(([-1, 0, 0], -float(np.median(y[:, 0])))), clause(([-1, 0, 0], -(y[:, 0].max() + 100)))


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., VerifyResult]:
    def asked(tool: object, model: Model, question: Property, **options: object) -> VerifyResult:
        # the honest stand-in asks our own verifier, by the same function
        monkeypatch.setattr(module, "external_tool", lambda spec: tool if spec == "marabou" else None)
        return decide_property(model, question, VerifyOptions(Limits(**options), verifier="marabou"))  # type: ignore[arg-type]

    return asked


def test_an_honest_tool(model: Model, ask: Callable[..., VerifyResult]) -> None:
    some, none = thresholds(model)
    found = ask(stand(), model, unit(model, (none, some)))
    assert (found.status, found.verifier, found.solver, found.runs) == ("violated", "stand", None, 1)
    assert found.witness is not None
    assert found.witness.confirmed
    assert "replayed on the file" in found.reason
    found = ask(stand(), model, unit(model, (none, none)))
    assert (found.status, found.vnncomp) == ("proved", "unsat")
    assert "its claim, not proved here" in found.reason
    assert found.to_json()["settings"]["tool"] == "stand"


def test_each_box_is_a_question_of_its_own(model: Model, ask: Callable[..., VerifyResult]) -> None:
    some, none = thresholds(model)
    tool = stand()
    found = ask(tool, model, unit(model, (none,), (some,), (none,)))
    assert found.witness is not None
    assert (found.status, found.witness.case, len(tool.asked)) == ("violated", 1, 2)
    assert all(len(job.question.cases) == 1 for job in tool.asked)
    assert not tool.asked[0].folder.exists()


def test_a_wrong_witness_is_not_believed(model: Model, ask: Callable[..., VerifyResult]) -> None:
    _, none = thresholds(model)
    found = ask(stand(says(SAT, lambda job: np.full(job.question.inputs, 0.5))), model, unit(model, (none,)))
    assert (found.status, found.vnncomp) == ("unknown", "unknown")
    assert "rejected: its point does not satisfy the property" in found.reason
    assert found.witness is not None
    assert found.witness.kind == "rejected"
    found = ask(stand(says(SAT)), model, unit(model, (none,)))
    assert found.status == "unknown"
    assert "without a point, rejected" in found.reason


def test_a_point_outside_of_the_box_is_moved_into_it_first(model: Model, ask: Callable[..., VerifyResult]) -> None:
    some, _ = thresholds(model)
    found = ask(stand(says(SAT, lambda job: np.full(job.question.inputs, 7.0))), model, unit(model, (some,)))
    if found.status == "violated":
        assert found.witness is not None
        assert found.question is not None
        assert found.question.cases[0].contains(found.witness.x)


def test_one_box_without_an_answer_leaves_it_open(model: Model, ask: Callable[..., VerifyResult]) -> None:
    _, none = thresholds(model)
    answers = iter((UNSAT, "unknown"))

    def answer(job: Job) -> Claim:
        word = next(answers)
        return Claim(word, f"stand says {word}", (word,) * job.question.clauses)

    found = ask(stand(answer), model, unit(model, (none,), (none,)))
    assert (found.status, found.clauses) == ("unknown", (("proved",), ("unknown",)))
    assert "stand says unknown" in found.reason


def test_what_a_tool_does_not_read_is_refused(ask: Callable[..., VerifyResult]) -> None:
    model = load_model(random_model(3, kind="dense", activations=("PRelu",), classes=3))
    with pytest.raises(UnsupportedOperatorError, match="which it does not read"):
        ask(Stand(), model, unit(model, (clause(([-1, 0, 0], 0.0)),)))


def test_a_command_reads_the_property_as_it_is_written(tmp_path: Path, model: Model) -> None:
    some, none = thresholds(model)
    question = unit(model, (none, some))
    for word, status in (("unsat", "proved"), ("timeout", "unknown"), ("sat\n((X_0 0.5))", "unknown")):
        code = f"import shutil, sys\nshutil.copy(sys.argv[4], {str(tmp_path / 'asked.vnnlib')!r})\n"
        code += f"open(sys.argv[5], 'w').write({word!r})\n"
        tool = program(tmp_path / "run_instance.sh", code)
        found = decide_property(model, question, VerifyOptions(Limits(timeout=60), verifier=f"command:{tool}"))
        assert found.status == status, found.reason
        again = parse_property((tmp_path / "asked.vnnlib").read_text())
        assert write_property(again) == write_property(question)
