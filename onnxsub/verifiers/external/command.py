"""Any tool with the command line of VNN-COMP: `run_instance.sh v1 CATEGORY MODEL.onnx PROPERTY.vnnlib RESULTS TIMEOUT`.

RESULTS begins with `sat`, `unsat`, `timeout`, `unknown` or `error`; behind `sat` stands the witness. The property is VNN-LIB 1.0.
Tools that stopped at the words of 2021 write `violated` for `sat` and `holds` for `unsat`; they had no witnesses then.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsub.errors import InputError, OptionError
from onnxsub.files import one_line
from onnxsub.properties import read_witness, write_property
from onnxsub.verifiers.external.process import Finished, run_child
from onnxsub.verifiers.external.tool import SAT, UNSAT, Claim, Job

__all__ = ["CommandTool", "from_detail", "nnenum_from_detail"]

_NO_LIMIT = 86400
"""Seconds that a tool is told when there is no limit: its command line has no word for that."""
_MOST_BYTES = 64 * 2**20
_WORDS = {SAT: SAT, "violated": SAT, UNSAT: UNSAT, "holds": UNSAT}
"""What a tool writes to what that claims."""


@dataclass(frozen=True)
class CommandTool:
    """A tool as a command.

    Attributes:
        command: program and first arguments, quoted as for a shell; no shell is run.
        reader: the entry of `READERS` that says what it reads; None: not known, it is asked as it is.
        category: the second argument; some tools choose their settings by it.

    Raises:
        InputError: the command is empty or its quotes do not match.
    """

    command: str
    reader: str | None = None
    category: str = "onnxsub"

    def __post_init__(self) -> None:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise OptionError(f"--verifier command: {self.command!r} cannot be split ({error}); mind the quotes") from error
        if not words:
            raise OptionError("--verifier command: says no command; give one, for example command:tool/run_instance.sh")

    @property
    def name(self) -> str:
        return f"{self.reader or 'command'}:{self.command}"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"tool": self.name, "category": self.category}

    def ask(self, job: Job) -> Claim:
        """One run of the command, with all clauses as one disjunction."""
        question, results = job.folder / "property.vnnlib", job.folder / "results.txt"
        question.write_text(write_property(job.question, "1.0"))
        results.unlink(missing_ok=True)
        seconds = _NO_LIMIT if job.limit is None else max(1, int(job.limit - 1))
        head, *rest = shlex.split(self.command)
        # a relative path means what it means here, not in the tool's folder; links stay: behind its link, the interpreter of a
        # virtual environment is another one
        program = str(Path(head).absolute()) if "/" in head else head
        given = ["v1", self.category, str(job.path), str(question), str(results), str(seconds)]
        try:
            done = run_child([program, *rest, *given], cwd=job.folder, limit=job.limit)
        except OSError as error:
            return Claim.nothing(job, f"{self.name}: {head!r} cannot be started ({error.strerror or one_line(error)})")
        try:
            # a pipe has no end, and a link leads to a file that is not the tool's answer
            handle = os.open(results, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(handle, "rb") as file:
                regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
                text = file.read(_MOST_BYTES).decode(errors="replace") if regular else ""
        except OSError:
            text = ""
        return self._read(job, done, text)

    def _read(self, job: Job, done: Finished, text: str) -> Claim:
        first = text.lstrip().partition("\n")[0].strip()
        # the oldest form has the witness on the line of the word
        word = first.partition("(")[0].strip().lower()
        claimed = _WORDS.get(word)
        if claimed == SAT:
            return self._read_witness(job, done, word, text.lstrip()[len(word) :])
        if done.timed_out:
            why = f"killed at its limit of {job.limit or 0:.3g} s"
        elif done.code != 0:
            why = f"ended with code {done.code}" + (f" ({done.last_words})" if done.last_words else "")
        elif claimed == UNSAT:
            clauses = (UNSAT,) * job.question.clauses
            return Claim(UNSAT, f"{self.name} says {word}", clauses, None, done.seconds)
        elif word in ("timeout", "unknown", "error"):
            why = f"says {word}" + (f" ({done.last_words})" if word == "error" and done.last_words else "")
        elif not text.strip():
            why = "it wrote no results" + (f" ({done.last_words})" if done.last_words else "")
        else:
            why = f"its results begin with {one_line(first, 60)!r}, which is no answer"
        return Claim.nothing(job, f"{self.name}: {why}", done.seconds)

    def _read_witness(self, job: Job, done: Finished, word: str, text: str) -> Claim:
        """What stands behind `sat` or `violated`; without a point that can be replayed the word is worth nothing."""
        if not text.strip():
            return Claim.nothing(job, f"{self.name}: it says {word} and wrote no witness, rejected", done.seconds)
        try:
            x, _ = read_witness(text, job.question)
        except InputError as error:
            return Claim.nothing(job, f"{self.name}: it says {word}, rejected: {one_line(error)}", done.seconds)
        return Claim(SAT, f"{self.name} says {word}", Claim.nothing(job, "").clauses, x, done.seconds)


def from_detail(detail: str) -> CommandTool:
    """The tool for `--verifier command:"PROGRAM ARGUMENTS"`."""
    return CommandTool(detail)


def nnenum_from_detail(detail: str) -> CommandTool:
    """The tool for `--verifier nnenum:"PROGRAM ARGUMENTS"`: a command whose files are checked against nnenum's operators first."""
    return CommandTool(detail, reader="nnenum")
