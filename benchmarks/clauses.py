"""Properties of many clauses on a small network: seconds and memory, each in a process of its own.

    python -m benchmarks.clauses [1000 4000 30000] [--flavours made,bounds,rows,tree,sat] [--timeout 60] [--memory 8]

`made` is the stored example of the cases folder (`07-many-clauses/make.py`), the others are those of `case_shapes.CLAUSES`. Bar:
30,000 clauses within 5 s beyond imports and 1 GB, and a cost that is linear in their number. "Beyond imports" is the time less that
of the same command on 10 clauses.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from benchmarks.case_shapes import CLAUSES, many_clauses
from benchmarks.cases import cases_folder
from benchmarks.common import Done, command_line, load_note, table


def ask(flavour: str, count: int, args: argparse.Namespace) -> tuple[Done, str]:
    """What one command line took, and the right answer."""
    with tempfile.TemporaryDirectory() as name:
        folder, right = Path(name), "proved"
        if flavour == "made":
            made = args.cases / "07-many-clauses" / "make.py"
            subprocess.run([sys.executable, str(made), str(count)], cwd=folder, check=True)
        else:
            model, text, right = many_clauses(count, flavour, args.seed)
            onnx.save(model, folder / "model.onnx")
            (folder / "prop.vnnlib").write_text(text)
        words = (
            "verify",
            "model.onnx",
            "prop.vnnlib",
            "--timeout",
            str(args.timeout),
            "--threads",
            "1",
            "--verifier",
            args.verifier,
        )
        return command_line(words, limit=2 * args.timeout + 30, folder=folder, memory=args.memory), right


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", default=[1000, 4000, 30000])
    parser.add_argument("--flavours", default=",".join(("made", *CLAUSES)))
    parser.add_argument("--verifier", default="bab")
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--memory", type=float, default=8.0, help="GB of address space that a process may take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=Path, default=cases_folder(), help="the folder of stored examples")
    args = parser.parse_args()
    print(load_note())
    rows, wrong = [], 0
    for flavour in args.flavours.split(","):
        base, _ = ask(flavour, 10, args)
        for count in args.counts:
            done, right = ask(flavour, count, args)
            wrong += done.status != right
            got = done.status if done.status == right else f"**{done.status}** {done.error[:60]}"
            times = (done.seconds, done.seconds - base.seconds, done.cpu, done.cpu - base.cpu)
            rows.append((flavour, count, right, got, *(f"{t:.1f}" for t in times), f"{done.peak:.2f}"))
            print(*rows[-1], file=sys.stderr, flush=True)
    print(table(("clauses", "number", "right", "got", "seconds", "beyond imports", "CPU s", "beyond imports", "peak GB"), rows))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
