"""This tree against another one, question by question in turn: seconds of each, ratio, what is lost.

    python -m benchmarks.speed --before PATH [--rows exact,mnistfc,substitutes,whole,vnncomp] [--repeat 1] [--vnncomp-timeout 30]

| row | question |
|---|---|
| exact | wk17a, the five images with a published distance, to 1e-3 of the attack's |
| mnistfc | `mnist-net_256x2`, images 0 to 4, to 1e-3 |
| substitutes | wk17a, images 0 to 9, `--via lin:0.99` and `act:0.99`: the search on the substitute alone |
| whole | the same as users ask them, `onnxsub distance --via`: attack, substitute, search, what it proves of the model |
| vnncomp | the open VNN-COMP instances with a published verdict |

Each tree runs its own `benchmarks.exact` and `benchmarks.vnncomp`, one process per question, the trees in turn. Bar: no row slower
than 1.1 times, no instance lost. PATH is a checkout of the other version (`git worktree add PATH COMMIT`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.common import DATA, TREE, exact_rows, images_for, load_note, median, table

_EXACT = re.compile(r"^\s*\d+ bab\s+(\w+)\s.*?([\d.]+) s\s+(\d+) nodes", re.MULTILINE)
_VNNCOMP = re.compile(r"^\w+\s+\S+\s+(?:un)?sat\s+(\w+)\s+(\w+)\s+([\d.]+) s", re.MULTILINE)
_DECIDED = ("exact", "none", "right")


@dataclass(frozen=True)
class Asked:
    row: str
    name: str
    command: tuple[str, ...]


def questions(rows: list[str], limit: float, timeout: float, folder: Path) -> Iterator[Asked]:
    exact = ("benchmarks.exact", "--timeout", f"{timeout:g}", "--threads", "1")
    if "exact" in rows:
        for index, _ in exact_rows():
            yield Asked("exact", f"wk17a {index}", (*exact, "--network", "wk17a", "--indices", str(index), "--rtol", "1e-3"))
    if "mnistfc" in rows:
        for index in range(5):
            command = (*exact, "--network", "mnist-net_256x2", "--indices", str(index), "--rtol", "1e-3")
            yield Asked("mnistfc", f"mnist-net_256x2 {index}", command)
    if "substitutes" in rows:
        for via in ("lin:0.99", "act:0.99"):
            for index in range(10):
                command = (*exact, "--network", "wk17a", "--indices", str(index), "--via", via)
                yield Asked("substitutes", f"wk17a {index} {via}", command)
    if "whole" in rows:
        images, labels = images_for("wk17a")
        for via in ("lin:0.99", "act:0.99"):
            for index in range(10):
                anchor = folder / f"wk17a-{index}.npy"
                np.save(anchor, images[index])
                asked = (str(DATA / "nets" / "wk17a.onnx"), "--x0", str(anchor), "--label", str(labels[index]))
                limits = ("--via", via, "--timeout", f"{timeout:g}", "--json")
                yield Asked("whole", f"wk17a {index} {via}", ("onnxsub", "distance", *asked, *limits))
    if "vnncomp" in rows:
        from benchmarks.vnncomp import FAMILIES, instances

        for family in FAMILIES:
            for _, path, _ in instances(family, unknown=False):
                command = ("benchmarks.vnncomp", "--timeout", f"{limit:g}", "--families", family, "--only", path.name)
                yield Asked("vnncomp", path.name.removesuffix(".vnnlib.gz"), command)


def run(tree: Path, command: tuple[str, ...]) -> tuple[str, float]:
    """Status and seconds, as the tree's own benchmark prints them."""
    environment = {k: v for k, v in os.environ.items() if k != "ONNXSUB_TREE"} | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", "-m", *command]
    done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if command[0] == "onnxsub":
        if done.stdout:
            document = json.loads(done.stdout)
            return document["status"], document["time_s"]["total"]
    elif command[0] == "benchmarks.exact":
        if found := _EXACT.search(done.stdout):
            return found[1], float(found[2])
    elif found := _VNNCOMP.search(done.stdout):
        return found[2], float(found[3])
    return f"failed: {(done.stderr or done.stdout).strip()[-80:]}", float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of the other version; without it only this tree is measured")
    parser.add_argument("--rows", default="exact,mnistfc,substitutes,vnncomp")
    parser.add_argument("--repeat", type=int, default=1, help="the least time of so many counts")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds per distance")
    parser.add_argument("--vnncomp-timeout", type=float, default=30.0)
    args = parser.parse_args()
    trees = {"now": TREE.resolve()} | ({} if args.before is None else {"before": args.before.resolve()})
    print(load_note())
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    lost: list[str] = []
    folder = tempfile.TemporaryDirectory()
    for number, q in enumerate(questions(args.rows.split(","), args.vnncomp_timeout, args.timeout, Path(folder.name))):
        order = list(trees) if number % 2 else list(trees)[::-1]
        tries: dict[str, list[tuple[str, float]]] = {t: [] for t in order}
        for _ in range(args.repeat):
            for t in order:
                tries[t].append(run(trees[t], q.command))
        best = {t: min(tries[t], key=lambda r: (r[0] not in _DECIDED, r[1])) for t in trees}
        for t, answer in best.items():
            found.setdefault(q.row, {}).setdefault(t, []).append(answer)
        print(f"{q.row:12} {q.name:40}", *(f"{t} {s} {x:.2f} s" for t, (s, x) in best.items()), flush=True)
        if best.get("before", ("", 0.0))[0] in _DECIDED and best["now"][0] not in _DECIDED:
            lost.append(f"lost: {q.row} {q.name}: {best['now'][0]}")
    rows, slow = [], False
    for row, answers in found.items():
        sums = {t: sum(x for _, x in a) for t, a in answers.items()}
        medians = {t: median(x for _, x in a) for t, a in answers.items()}
        decided = {t: sum(s in _DECIDED for s, _ in a) for t, a in answers.items()}
        ratio = sums["now"] / sums["before"] if "before" in sums else float("nan")
        of_median = medians["now"] / medians["before"] if "before" in sums else float("nan")
        slow |= ratio > 1.1 or of_median > 1.1
        cells = [f"{decided[t]} of {len(answers[t])}, {sums[t]:.2f} s, median {medians[t]:.2f} s" for t in answers]
        rows.append((row, *cells, f"{ratio:.2f}", f"{of_median:.2f}"))
    print(table(("row", *trees, "ratio of sums", "of medians"), rows))
    print(*lost, load_note(), sep="\n")
    return 1 if slow or lost else 0


if __name__ == "__main__":
    sys.exit(main())
