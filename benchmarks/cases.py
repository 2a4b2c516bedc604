"""Inputs built to hurt, kinds 01 to 14: is every answer of the command line the right one?

    python -m benchmarks.cases [--cases DIR] [--kinds 01,02] [--no-stored] [--no-variants] [--in-process] [--only TEXT] [--all]

The stored example of each kind lies in DIR, by default the folder `cases` beside `ONNXSUB_DATA`; its right answer stands in that
folder's README. Variants are made by code with seeds (`case_numbers.py`, `case_shapes.py`): other networks, gains and constants,
and the VNN-LIB door; their right answers are known by construction or by `truth.py`. Every question is a process of its own
unless `--in-process`. One row per question that is not right (`--all`: every one), then a table of kinds. Exit code 1 if one is
not right.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from benchmarks.case_hostile import hostile
from benchmarks.case_judges import (
    Question,
    anchored,
    attacked,
    bracket,
    cancelled,
    in_time,
    original,
    proved,
    says,
    supported,
    violated,
)
from benchmarks.case_numbers import NUMBERS
from benchmarks.case_shapes import MODELS, SHAPES
from benchmarks.common import Done, command_line, in_process, load_note, table
from benchmarks.sampling import Anchor, logits_by_onnxruntime, nearest_sampled
from benchmarks.truth import pieces_of

__all__ = ["answer", "cases_folder", "stored"]


def cases_folder() -> Path:
    """Where the stored examples lie, if they are there."""
    return Path(os.environ.get("ONNXSUB_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")).resolve().parent / "cases"


def _anchor(x0: Path, label: int, *more: float) -> Anchor:
    return Anchor(np.load(x0).astype(np.float64).reshape(-1), label, *more)


def stored(folder: Path) -> Iterator[Question]:
    """The example of each kind, as the folder's README has it."""

    def case(kind: str, variant: str, arguments: tuple[str, ...], expected: str, judge: object, **files: Path | str) -> Question:
        home = folder / kind
        laid = {p.name: p for p in home.iterdir()} if not files else {name.replace("__", "."): f for name, f in files.items()}
        return Question(kind.replace("-", " ", 1), f"stored {variant}", arguments, expected, judge, laid)  # type: ignore[arg-type]

    kind = "01-nan-proved"
    at = _anchor(folder / kind / "x0.npy", 0)
    for verifier in ("bab", "milp"):
        ask = ("verify", "model.onnx", *anchored(at), "--eps", "0.2", "--verifier", verifier, "-o", "w.npy", "--timeout", "20")
        yield case(kind, verifier, ask, "violated", violated(at, 0.2))
    ask = ("distance", "model.onnx", *anchored(at), "--timeout", "20")
    yield case(kind, "distance", ask, "a bracket of 0.1", bracket(0.5 - float(np.float32(0.4))))

    kind = "02-original-exact"
    for name in ("model", "plain"):
        ask = ("distance", f"{name}.onnx", "--x0", "x0.npy", "--via", "act:1.0", "--timeout", "20")
        yield case(kind, name, ask, "original.lower <= 0.0446605", original(0.0446605))

    kind = "03-float32-cancellation"
    at = _anchor(folder / kind / "x0.npy", 0)
    for verifier in ("bab", "milp"):
        ask = ("verify", "model.onnx", *anchored(at), "--eps", "0.1", "--verifier", verifier, "-o", "w.npy", "--timeout", "20")
        yield case(kind, verifier, ask, "violated, or proved but for float32", cancelled(at, 0.1))

    digits, seven = MODELS / "digits.onnx", MODELS / "digits_seven.npy"
    files: dict[str, Path | str] = {"model__onnx": digits, "x0__npy": seven}
    ask = ("distance", "model.onnx", "--x0", "x0.npy", "--domain", "-1e6", "1e6", "--timeout", "20")
    yield case("04-wide-domain", "digits", ask, "exact only within 1e-6", bracket(0.1247, known=False), **files)

    kind = "05-crash-empty-window"
    space = (0.0, 255.0, 238.18851229546357, 407.2866164344325)
    x0, model = np.load(folder / kind / "x0.npy"), onnx.load(folder / kind / "model.onnx")
    at = _anchor(folder / kind / "x0.npy", 0, *space)
    at = Anchor(at.x0, int(logits_by_onnxruntime(model)(at.fed(at.x0)).argmax()), *space)
    near = nearest_sampled(pieces_of(model, most=400), at, np.random.default_rng(0), beyond=1e-9)
    ask = ("distance", "model.onnx", *anchored(at), "--verifier", "milp", "--tighten", "lp", "--timeout", "20")
    yield case(kind, f"of {x0.size} inputs", ask, f"a bracket, <= {near:.7g}", bracket(near, known=False))

    kind = "06-beyond-attack"
    nets = folder.parent / "data" / "nets"
    for name, path, start, eps in (
        ("digits", folder / kind / "model.onnx", "x0.npy", 0.20625),
        ("mnist-c-clean", MODELS / "mnist-c-clean.onnx", "mnist1.npy", 0.1073),
        ("NOR", nets / "salman_mnist_cnn_small_NOR.onnx", "mnist1.npy", 0.1077),
    ):  # fmt: skip
        if not path.is_file():
            continue
        x0 = np.load(folder / kind / start)
        at = Anchor(x0.astype(np.float64).reshape(-1), int(logits_by_onnxruntime(onnx.load(path))(x0).argmax()))
        ask = ("verify", "model.onnx", *anchored(at), "--eps", repr(eps), "--timeout", "40", "-o", "w.npy")
        files = {"model__onnx": path, "x0__npy": folder / kind / start}
        yield case(kind, name, ask, "violated, about 2 s", in_time(violated(at, eps), cpu=5.0), **files)

    text = (folder / "07-many-clauses" / "make.py").read_text()
    ask = ("verify", "model.onnx", "prop.vnnlib", "--timeout", "5")
    for count in (4000, 30000):
        judge = in_time(proved, cpu=10.0, peak=1.0)
        yield case("07-many-clauses", str(count), ask, "proved, <= 10 CPU s, <= 1 GB", judge, make__py=text, count=str(count))

    kind = "08-zero-width"
    yield case(kind, "info", ("info", "model.onnx"), "supported", supported)
    ask = ("model.onnx", "--x0", "x0.npy", "--timeout", "20")
    yield case(kind, "verify", ("verify", *ask, "--eps", "0.01"), "an answer", says("proved", "violated"))
    yield case(kind, "distance", ("distance", *ask), "a distance", says("exact"))
    yield case(kind, "prune", ("prune", *ask, "-o", "pruned.onnx"), "a substitute", says("exit 0"))

    kind = "09-softmax-tie"
    x0 = np.load(folder / kind / "x0.npy")
    label = int(logits_by_onnxruntime(onnx.load(folder / kind / "model.onnx"))(x0).argmax())
    at = _anchor(folder / kind / "x0.npy", label)
    ask = ("attack", "model.onnx", *anchored(at), "-o", "w.npy", "--timeout", "20")
    yield case(kind, "digits", ask, "strict in the file's output, or said", attacked(at))

    kind = "10-overflow"
    for verifier in ("bab", "milp"):
        ask = ("model.onnx", "--x0", "x0.npy", "--verifier", verifier, "--timeout", "20")
        right = says("proved", "unknown", reason=True)
        yield case(kind, f"verify {verifier}", ("verify", *ask, "--eps", "0.3"), "an answer and a reason", right)
        judge = bracket(float("inf"), least=0.09, reason=True)
        yield case(kind, f"distance {verifier}", ("distance", *ask), "lower >= 0.09, a reason", judge)


def answer(question: Question, *, inside: bool = False) -> tuple[str, str, Done]:
    """`right`, `undecided` or `wrong`; what is not right; what the process left."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        question.lay(folder)
        if "make.py" in question.files:  # the folder of many clauses holds its generator
            _make(folder)
        if inside:
            done = in_process(question.arguments, folder=folder)
        else:
            done = command_line(question.arguments, limit=question.limit, folder=folder)
        why = question.judge(done, folder)
    return ("right" if not why else "undecided" if why.startswith("undecided") else "wrong"), why, done


def _make(folder: Path) -> None:
    import subprocess

    subprocess.run([sys.executable, "make.py", (folder / "count").read_text()], cwd=folder, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=cases_folder(), help="the folder of stored examples")
    parser.add_argument("--kinds", default="", help="numbers of kinds, by commas")
    parser.add_argument("--only", default="", help="questions whose variant holds this text")
    parser.add_argument("--no-stored", action="store_true")
    parser.add_argument("--no-variants", action="store_true")
    parser.add_argument("--in-process", action="store_true", help="no process per question: faster, without limits")
    parser.add_argument("--all", action="store_true", help="a row for every question")
    args = parser.parse_args()
    print(load_note())
    kinds = [k.strip() for k in args.kinds.split(",") if k.strip()]
    questions: list[Question] = []
    if not args.no_stored:
        if not args.cases.is_dir():
            sys.exit(f"no examples in {args.cases}; name the folder with --cases, or give --no-stored")
        questions += [*stored(args.cases), *hostile(args.cases)]
    if not args.no_variants:
        makers = NUMBERS | SHAPES
        questions += [q for kind in sorted(makers) if not kinds or kind in kinds for q in makers[kind]()]
    chosen = [q for q in questions if (not kinds or q.kind[:2] in kinds) and args.only in q.variant]
    tally: Counter[tuple[str, str]] = Counter()
    for q in sorted(chosen, key=lambda q: q.kind):
        grade, why, done = answer(q, inside=args.in_process)
        tally[q.kind, grade] += 1
        if args.all or grade != "right":
            got = done.status if grade == "right" else why
            print(f"{grade:9} {q.kind:24} {q.variant:32} expected: {q.expected}; got: {got} ({done.seconds:.1f} s)", flush=True)
    words = ("right", "undecided", "wrong")
    rows = [(k, *(tally[k, w] for w in words)) for k in sorted({k for k, _ in tally})]
    print(table(("kind", *words), [*rows, ("all", *(sum(r[i] for r in rows) for i in (1, 2, 3)))]))
    return 0 if all(w == "right" for _, w in tally) else 1


if __name__ == "__main__":
    sys.exit(main())
