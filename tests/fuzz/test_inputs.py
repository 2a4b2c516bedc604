"""Malformed inputs by a seeded generator, the quick part of `make fuzz`: a result or one line, and nothing else happens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import batch
from tests.fuzz.inputs import KINDS
from tests.fuzz.worker import Watch


def test_a_few_of_every_kind(tmp_path: Path) -> None:
    rows, end = batch(",".join(KINDS), 0, 10, tmp_path)
    assert not end
    assert [row for row in rows if row["wrong"]] == []
    assert {row["kind"] for row in rows} == set(KINDS)
    codes = {code for row in rows for code in row["codes"]}  # type: ignore[attr-defined]
    assert codes >= {0, 4}, "some are read, some are not"


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_many(kind: str, tmp_path: Path) -> None:
    rows, end = batch(kind, 100, 100, tmp_path)
    assert not end
    assert [row for row in rows if row["wrong"]] == []


def test_the_hook_sees_what_it_should(tmp_path: Path) -> None:
    """A check that cannot fail would be none."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    code = f"""
import json, os, subprocess, sys
from pathlib import Path
from tests.fuzz.worker import Watch
watch = Watch()
sys.addaudithook(watch)
watch.inside = ({str(inside)!r} + os.sep,)
(Path({str(inside)!r}) / "mine").write_text("x")
good = list(watch.seen)
Path({str(outside)!r}).write_text("x")
os.rename({str(outside)!r}, {str(outside)!r} + "2")
subprocess.run([sys.executable, "-c", ""])
watch.inside = ()
print(json.dumps([good, watch.seen]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    good, bad = json.loads(done.stdout)
    assert good == []
    assert [words.split(" ")[0] for words in bad][:3] == ["wrote", "os.rename", "subprocess.Popen"]
    assert Watch().seen == []
