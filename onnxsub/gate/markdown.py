"""The summary of a gate as Markdown, for a pull request or a job's page."""

from __future__ import annotations

import os
from pathlib import Path

from onnxsub.errors import OutputError
from onnxsub.gate.result import GateResult
from onnxsub.gate.tables import changed_table, checks_table, verdicts_table
from onnxsub.gate.words import evidence_words
from onnxsub.report.table import to_markdown

__all__ = ["STEP_SUMMARY", "append_summary", "markdown"]

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Environment variable that names the file of which GitHub makes a job's page."""

_MOST = 20


def markdown(result: GateResult) -> str:
    """Verdict, checks, counts, and the samples that were lost and won."""
    new, old = result.new, result.old
    lines = [f"## Robustness gate: {result.verdict}", "", f"`{_code(new.name)}` ({new.sha256[:12]})"]
    if old is not None:
        lines[-1] += f" against `{_code(old.name)}` ({old.sha256[:12]})"
    lines[-1] += f", {len(result.pairs):,} samples, radius {result.options.eps:g}"
    if result.comparison is not None:
        lines += ["", f"{evidence_words(result.comparison, result.options)}."]
    tables = [checks_table(result), verdicts_table(result)]
    tables += [changed_table("Samples lost", result.lost, _MOST)] if result.lost else []
    tables += [changed_table("Samples won", result.won, _MOST)] if result.won else []
    return "\n".join(lines) + "\n\n" + to_markdown(tables)


def append_summary(text: str) -> Path | None:
    """Adds the summary to the file that the environment names, as other steps of the job do; None where it names none.

    Raises:
        OutputError: it cannot be written.
    """
    named = os.environ.get(STEP_SUMMARY)
    if not named:
        return None
    try:
        with Path(named).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        why = error.strerror or error
        raise OutputError(f"cannot write ${STEP_SUMMARY} {named!r}: {why}; unset it or repair the path") from error
    return Path(named)


def _code(name: str) -> str:
    return name.replace("`", "'")
