"""Data, labels and names of classes of `evaluate`, `robustness` and `gate`: files and arrays, and what is told about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxsub
from onnxsub.api.runs import tell_notes
from onnxsub.evaluate import drive
from onnxsub.evaluate.samples import Samples
from tests.api.tools import batch, module
from tests.robustness_tools import Here


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples are looked at in this process."""
    monkeypatch.setattr(drive, "_engine", lambda *_: Here())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three inputs in a file without labels."""
    np.save(tmp_path / "x.npy", batch(3))
    return tmp_path / "x.npy"


def predicted() -> list[int]:
    """The classes of the three inputs."""
    return [onnxsub.make_query(module(), x, threads=1).label for x in batch(3)]


def gate(folder: Path, *args: Any, **more: Any) -> onnxsub.GateResult:
    """With a cache in the folder."""
    return onnxsub.gate(module(), *args, eps=0.001, nodes=5, min_proved=1.0, cache=folder / "cache", **more)


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_gate_takes_labels_in_memory(data: Path, in_memory: bool, tmp_path: Path) -> None:
    given: Any = batch(3) if in_memory else str(data)
    labels = np.array(predicted())
    first = gate(tmp_path, None, given, labels)
    assert (first.passed, first.new.computed) == (True, 3)
    assert gate(tmp_path, None, given, labels.tolist()).new.computed == 0
    other = gate(tmp_path, None, given, (labels + 1) % 3)
    assert (other.passed, other.new.computed) == (False, 3), "other labels are another run"
    assert [row.label for row in other.new.rows.values()] == [(y + 1) % 3 for y in predicted()]
    chosen = gate(tmp_path, None, given, labels, index=[2])
    assert [row.label for row in chosen.new.rows.values()] == predicted()[2:]
    if in_memory:
        assert gate(tmp_path, None, given, "predicted").passed
    else:
        with pytest.raises(onnxsub.InputError, match="3 images and 2 labels do not belong together"):
            gate(tmp_path, None, given, labels[:2])


@pytest.mark.parametrize("in_memory", [False, True])
def test_classes_say_which_class_a_label_of_a_gate_is(data: Path, in_memory: bool, tmp_path: Path) -> None:
    given: Any = batch(3) if in_memory else data
    named = [10 + y for y in predicted()]
    result = gate(tmp_path, None, given, named, classes=["10=0", "11=1", "12=2"])
    assert result.passed
    assert [row.label for row in result.new.rows.values()] == predicted()


def test_what_was_chosen_without_being_asked_for_is_a_warning(tmp_path: Path) -> None:
    names = np.array(["cat", "dog", "owl"])  # as many as the model has classes
    np.savez(tmp_path / "d.npz", x=batch(3), y=names)
    known = ["cat=0", "dog=1", "owl=2"]
    calls: list[Any] = [
        lambda **more: gate(tmp_path, None, tmp_path / "d.npz", labels="y", **more),
        lambda **more: onnxsub.robustness(
            module(), tmp_path / "d.npz", "y", eps=0.001, property="cr", run=tmp_path / f"r{len(more)}", **more
        ),
        lambda **more: onnxsub.evaluate(
            module(), tmp_path / "d.npz", "y", run=tmp_path / f"e{len(more)}", methods="lin", gammas=0.5, nodes=5, **more
        ),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match=f"classes are the sorted names: {names[0]} is 0.*another order: classes$") as heard:
            call()
        assert [Path(w.filename) for w in heard] == [Path(__file__)]
        call(classes=known)  # a warning would be an error here


def test_a_warning_has_the_words_of_python_and_the_file_that_called() -> None:
    noted = Samples("d", "", None, None, (0,), batch(1), None, notes=("give --classes, or --label-column",))
    with pytest.warns(UserWarning, match=r"^give classes, or labels$") as heard:
        tell_notes(noted)
    assert heard[0].filename == __file__
