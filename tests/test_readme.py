"""Every example of the README and of docs/python-api.md runs, and prints what it says it prints (but for the figures)."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from onnxsub.cli.main import run

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """One block of a document."""

    where: str
    kind: str
    text: str


def examples(name: str) -> Iterator[Example]:
    text = (ROOT / name).read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Example(f"{name}:{line}", found.group(1), found.group(2))


EXAMPLES = [*examples("README.md"), *examples("docs/python-api.md")]


def shape_of(output: str) -> list[str]:
    """Lines without figures and states: times, last digits and which class is excluded first differ from machine to machine."""
    figures = re.compile(r"(?<![\w.])[-+]?(\d[\d,]*(\.\d+)?(e[-+]?\d+)?|inf)(?!\w)")
    states = re.compile(r"\b(exact|excluded|cutoff|strict|tie)(?=,|$)")
    lines = (" ".join(states.sub("*", figures.sub("#", line.rstrip())).split()) for line in output.splitlines())
    return [line for line in lines if line]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Each `$ command` of a console block and the output that follows it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def test_there_are_examples_of_both_kinds() -> None:
    assert {e.kind for e in EXAMPLES if e.where.startswith("README.md")} == {"console", "python"}


def test_console_examples_in_their_order(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In one folder, because later ones read what earlier ones wrote."""
    ran = 0
    for example in EXAMPLES:
        if example.kind != "console":
            continue
        for command, output in commands(example.text):
            program, *args = shlex.split(command)
            assert program == "onnxsub", f"{example.where}: only onnxsub is run here"
            capfd.readouterr()
            code = run(args)
            captured = capfd.readouterr()
            assert code == 0, f"{example.where}: {command}: {captured.err}"
            assert shape_of(captured.out) == shape_of(output), f"{example.where}: {command}"
            ran += 1
    assert ran >= 4


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.kind == "python"], ids=lambda e: e.where)
def test_python_examples(checkout: Path, example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(example.text, example.where, "exec"), {"__name__": "__example__"})
    printed = capsys.readouterr().out
    promised = "\n".join(re.findall(r"  # -> (.*)$", example.text, re.MULTILINE))
    if promised:
        assert shape_of(printed) == shape_of(promised)
