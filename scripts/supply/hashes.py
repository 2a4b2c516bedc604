"""SHA-256 of the archives behind `constraints.txt`, as comments in it.

    python scripts/supply/hashes.py check     what pip would install has the hashes that are listed; nothing is installed
    python scripts/supply/hashes.py update    lists those of this platform and Python, beside the ones that are listed already

pip's own mode (`--require-hashes`) takes all or nothing: it refuses the project's folder itself, and a pin such as torch 2.13.0,
which has another archive on every index and platform. So a hash belongs to the name of an archive. An archive that is listed must
have the hash that is listed; one that is not (another platform, another build of torch) is named, and is an error with `--strict`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FILE = Path(__file__).parents[2] / "constraints.txt"
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s#]+)")
_LISTED = re.compile(r"#\s+(\S+)\s+sha256:([0-9a-f]{64})\s*$")

__all__ = ["compare", "listed", "main", "rewritten"]


def listed(text: str) -> dict[str, str]:
    """Archive -> hash."""
    return {match[1]: match[2] for line in text.splitlines() if (match := _LISTED.match(line.strip()))}


def compare(known: dict[str, str], found: dict[str, str]) -> tuple[list[str], list[str]]:
    """Archives whose hash is another one, and those that are not listed."""
    return sorted(a for a in found if a in known and known[a] != found[a]), sorted(a for a in found if a not in known)


def rewritten(text: str, found: dict[str, str]) -> str:
    """The file with these archives under their pins; those of the same pin that are listed already stay."""
    known = {**listed(text), **found}
    lines = []
    for line in text.splitlines():
        if _LISTED.match(line.strip()):
            continue
        lines.append(line)
        if pin := _PIN.match(line):
            lines += [f"#   {archive} sha256:{known[archive]}" for archive in sorted(known) if _is_of(archive, pin[1], pin[2])]
    return "\n".join(lines) + "\n"


def _is_of(archive: str, name: str, version: str) -> bool:
    project, _, rest = archive.partition("-")
    if archive.endswith((".tar.gz", ".zip")):
        project, _, rest = re.sub(r"\.(tar\.gz|zip)$", "", archive).rpartition("-")
    own = re.sub(r"[-_.]+", "-", project).lower() == re.sub(r"[-_.]+", "-", name).lower()
    return own and re.split(r"[-+]", rest)[0] == version


def _resolved() -> dict[str, str]:
    """What pip would install of every pin, by its own report."""
    pins = [f"{m[1]}=={m[2]}" for line in FILE.read_text().splitlines() if (m := _PIN.match(line))]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", str(report), *pins]
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
        install = json.loads(report.read_text())["install"]
    found = {}
    for entry in install:
        info = entry["download_info"]
        found[info["url"].rsplit("/", 1)[-1].split("#")[0].replace("%2B", "+")] = info["archive_info"]["hashes"]["sha256"]
    return found


def main(words: list[str]) -> int:
    """Checks or updates; 1 where an archive is not the one that is listed."""
    if words[:1] not in (["check"], ["update"]):
        print(__doc__, file=sys.stderr)
        return 2
    text, found = FILE.read_text(), _resolved()
    if words[0] == "update":
        FILE.write_text(rewritten(text, found))
        return 0
    wrong, new = compare(listed(text), found)
    for archive in wrong:
        print(f"{archive} is not the archive that constraints.txt lists: sha256 {found[archive]}")
    for archive in new:
        print(f"not listed: {archive} sha256 {found[archive]}")
    print(f"{len(found) - len(wrong) - len(new)} of {len(found)} archives as listed, {len(new)} not listed, {len(wrong)} wrong")
    return 1 if wrong or (new and "--strict" in words) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
