"""What the project is built from: hashes of archives, notices."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
HASHES: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "supply" / "hashes.py"))
NOTICES: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "supply" / "notices.py"))
TEXT = (ROOT / "constraints.txt").read_text()


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_pin_has_the_hash_of_an_archive() -> None:
    lines = TEXT.splitlines()
    pins = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    assert len(pins) > 100
    for i in pins:
        listed = re.match(r"#   \S+\.(whl|tar\.gz|zip) sha256:[0-9a-f]{64}$", lines[i + 1])
        assert listed, f"{lines[i]}: run scripts/supply/hashes.py update"
    assert HASHES["rewritten"](TEXT, {}) == TEXT


def test_another_archive_under_a_listed_name_is_found() -> None:
    known = HASHES["listed"](TEXT)
    name = next(archive for archive in known if archive.startswith("numpy-"))
    other = "torch-2.13.0-cp311-none-macosx_11_0_arm64.whl"
    assert HASHES["compare"](known, known) == ([], [])
    assert HASHES["compare"](known, {name: "0" * 64, other: "1" * 64}) == ([name], [other])


def test_archives_of_other_builds_are_listed_beside_each_other() -> None:
    text = "torch==2.13.0\ntorchx==2.13.0\na.b_c==1.0\n"
    one, two = "torch-2.13.0-cp311-none-any.whl", "torch-2.13.0+cpu-cp311-none-any.whl"
    found = {one: "1" * 64, two: "2" * 64, "a_b_c-1.0.tar.gz": "3" * 64}
    new = HASHES["rewritten"](text, found)
    assert new.splitlines()[:3] == ["torch==2.13.0", f"#   {two} sha256:{'2' * 64}", f"#   {one} sha256:{'1' * 64}"]
    assert HASHES["listed"](new) == found
    assert HASHES["rewritten"](new, {"torch-2.12.0-py3-none-any.whl": "4" * 64}) == new


def test_the_notices_name_what_the_package_needs() -> None:
    named = set(re.findall(r"^\| ([a-z0-9-]+) \|", (ROOT / "THIRD_PARTY_NOTICES.md").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needs = [*project["dependencies"], *(n for extra in ("cpu", "gurobi", "scip", "ray", "report") for n in extras[extra])]
    assert {plain(Requirement(text).name) for text in needs} <= named
    found = NOTICES["closure"]("onnxsub", {"cpu"})
    assert {"numpy", "onnx", "torch"} <= set(found)
    assert all(NOTICES["licence_of"](known) for known in found.values())
