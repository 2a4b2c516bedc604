"""THIRD_PARTY_NOTICES.md: what the package depends on, under which licence, as the installed packages state it themselves.

    python scripts/supply/notices.py > THIRD_PARTY_NOTICES.md
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

__all__ = ["closure", "licence_of", "main"]

_EXTRAS = {"cpu", "gurobi", "scip", "marabou", "ray", "report", "images", "all"}
_HEAD = """# Third-party notices

The wheel of onnxsub holds code of its own only. It needs, or uses where an extra is installed, the packages below, which come in
archives of their own under licences of their own; versions are those of `constraints.txt`. Made by `make notices`.

Gurobi is not free software: its licence comes from its maker. The networks in `models/` were trained with this package;
`models/README.md` says on which data.

| package | version | licence | where |
|---|---|---|---|"""


def closure(name: str, extras: set[str]) -> dict[str, Distribution]:
    """The packages that a package needs, and those that they need, as far as they are installed."""
    found: dict[str, Distribution] = {}
    todo = [(name, frozenset(extras))]
    seen = set()
    while todo:
        entry = todo.pop()
        if entry in seen:
            continue
        seen.add(entry)
        try:
            known = distribution(entry[0])
        except PackageNotFoundError:
            continue
        if _plain(entry[0]) != _plain(name):
            found[_plain(entry[0])] = known
        for text in known.requires or ():
            need = Requirement(text)
            environments = [{"extra": extra} for extra in (entry[1] or {""})]
            if need.marker is None or any(need.marker.evaluate(e) for e in environments):
                todo.append((need.name, frozenset(need.extras)))
    return found


def licence_of(known: Distribution) -> str:
    """By its expression, else by its classifiers, else by the first line of its text."""
    data = known.metadata
    if data.get("License-Expression"):
        return str(data["License-Expression"])
    named = [c.split(" :: ") for c in data.get_all("Classifier") or () if c.startswith("License :: ")]
    classes = [words[-1] for words in named if words[-1] != "OSI Approved"]
    text = (data.get("License") or "").strip().splitlines()
    return ", ".join(classes) or (text[0] if len(text) == 1 else "see its archive")


def _where(known: Distribution) -> str:
    urls = dict(line.split(", ", 1) for line in known.metadata.get_all("Project-URL") or () if ", " in line)
    labels = ("homepage", "home", "source", "repository", "source code", "github")
    named = [url for label, url in urls.items() if label.lower() in labels]
    return known.metadata.get("Home-page") or (named or list(urls.values()) or [""])[0]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Prints the table."""
    print(_HEAD)
    for name, known in sorted(closure("onnxsub", _EXTRAS).items()):
        version = known.version.partition("+")[0]
        print(f"| {name} | {version} | {licence_of(known).replace('|', '/')} | {_where(known)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
