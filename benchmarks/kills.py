"""SIGKILL and SIGTERM at random moments of commands that are at work: is anything lost, done twice, or left behind?

    python -m benchmarks.kills [--kills 34] [--seed 0] [--only prune,train] [--log FILE]

Of each command as many kills as `--kills` says, SIGKILL and SIGTERM in turns, each at a moment that a seed draws, between the
command's first word about its work (so after its imports) and the end of an undisturbed run. After each: which processes are left
two seconds after its end (this process adopts every orphan, so none can hide), what the next start of the same command finds. It
must end as an undisturbed one does, with the same result, without a `.part` file or a temporary folder, without a unit lost or
done again. A kill that comes after the end is drawn anew. `--log`: rows of JSON; kills that stand there are not done again.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.common import DATA, load_note, table

ROOT = Path(__file__).parents[1]
MODELS = ROOT / "models"
PATIENCE = 2.0
"""Seconds after the end of a command in which all that it started must end."""
_LATE = 40
_TIMES = ("time", "second", "elapsed", "path", "written", "run", "attempts", "image", "checkpoint", "output", "done_now", "speed")
_SUBREAPER = 36


@dataclass(frozen=True)
class Case:
    """A command line in a folder of its own, in which `{shared}` is the folder of inputs."""

    name: str
    words: str
    ledger: bool = False
    prepare: str = ""


CASES = (
    Case("prune", f"prune {MODELS}/mnist-c-adv0.1.onnx --x0 {{shared}}/mnist.npy -o sub.onnx"),
    Case("bounds", f"bounds {MODELS}/mnist-c-adv0.3.onnx --x0 {{shared}}/mnist.npy --eps 0.02 --method alpha-crown"),
    Case(
        "evaluate",
        f"evaluate {MODELS}/digits.onnx --data {{shared}}/ten.npz --array x --labels y --methods lin --gammas 0.9 "
        "--timeout 600 --nodes 2 --jobs 2 --limit 2 --run run",
        ledger=True,
    ),
    Case(
        "robustness",
        f"robustness {MODELS}/mnist-c-adv0.1.onnx --data {{shared}}/mnist.npz --array x --labels y --eps 0.03 "
        "--timeout 600 --nodes 2 --jobs 2 --run run",
        ledger=True,
    ),
    Case("report", "report run", prepare="finished"),
    Case(
        "train",
        "zoo train C --dataset little --data {shared}/little.npz --epochs 12 --threads 1 --attacked 20 -o net.onnx",
    ),
)  # fmt: skip


def shared_files(folder: Path) -> None:
    """Images of MNIST and of the digits, in one folder."""
    with np.load(DATA / "data" / "mnist.npz") as archive:
        x, y = archive["x_test"][:2000], archive["y_test"][:2000]
    np.save(folder / "mnist.npy", (x[:1, None] / 255).astype(np.float32))
    np.savez(folder / "mnist.npz", x=(x[:4, None] / 255).astype(np.float32), y=y[:4].astype(np.int64))
    np.savez(folder / "little.npz", x_train=x[:1500], y_train=y[:1500], x_test=x[1500:1700], y_test=y[1500:1700])
    with np.load(MODELS / "digits_anchors.npz") as archive:
        np.savez(folder / "ten.npz", x=archive["x"], y=archive["y"])


def begin(case: Case, shared: Path, folder: Path, out: IO[bytes], err: IO[bytes]) -> subprocess.Popen[bytes]:
    """Starts the command in that folder."""
    words = [*case.words.format(shared=shared).split(), *([] if case.name == "report" else ["--json"]), "-v"]
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp"), "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    env = {**os.environ, **own}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "onnxsub", *words], cwd=folder / "work", env=env, stdout=out, stderr=err,
    )  # fmt: skip


def first_word(process: subprocess.Popen[bytes], err: Path) -> float:
    """Waits for the first line about the work; the moment."""
    while process.poll() is None and b" s] " not in err.read_bytes():
        time.sleep(0.01)
    return time.monotonic()


def lay(case: Case, shared: Path, folder: Path) -> None:
    """The folders of one try."""
    (folder / "tmp").mkdir(parents=True)
    (folder / "home").mkdir()
    (folder / "work").mkdir()
    if case.prepare:
        subprocess.run(["cp", "-a", str(shared / case.prepare), str(folder / "work" / "run")], check=True)


def finish(case: Case, shared: Path, folder: Path) -> tuple[int, float, str]:
    """The command to its end: exit code, seconds after the first word, standard error."""
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err, begin(case, shared, folder, out, err) as process:
        began = first_word(process, folder / "err")
        code = process.wait(600)
    return code, time.monotonic() - began, (folder / "err").read_text(errors="replace")


def result(case: Case, folder: Path) -> Any:
    """What an undisturbed run and one that was killed must have in common: documents without times, files, weights."""
    found: dict[str, Any] = {}
    if case.name != "report":
        found["document"] = timeless(json.loads((folder / "out").read_text()))
    for path in sorted((folder / "work").rglob("*")):
        name = str(path.relative_to(folder / "work"))
        if path.suffix == ".onnx":
            found[name] = [numpy_helper.to_array(w).tobytes() for w in onnx.load(path).graph.initializer]
        elif path.suffix in (".csv", ".md", ".tex", ".svg"):
            found[name] = "" if case.ledger else path.read_bytes()
        elif not path.name.endswith(("-wal", "-shm")):
            found[name] = ""
    return found


def timeless(value: Any) -> Any:
    """A document without what depends on the clock."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if not (k.endswith("_s") or any(word in k for word in _TIMES))}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def apart(found: Any, wanted: Any, where: str = "") -> list[str]:
    """Where two documents differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [line for k in {**found, **wanted} for line in apart(found.get(k), wanted.get(k), f"{where}/{k}")]
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [line for i, pair in enumerate(zip(found, wanted, strict=True)) for line in apart(*pair, f"{where}/{i}")]
    return [] if found == wanted else [f"{where}: {str(found)[:60]} for {str(wanted)[:60]}"]


def units(run: Path) -> dict[int, tuple[Any, ...]]:
    """State, end and checksum of every unit of a run; nothing where the ledger is not there yet."""
    try:
        with sqlite3.connect(f"file:{run / 'ledger.sqlite'}?mode=ro", uri=True) as db:
            rows = db.execute("SELECT id, state, finished, seconds, checksum FROM units").fetchall()
    except sqlite3.OperationalError:
        return {}
    return {row[0]: row[1:] for row in rows}


def orphans() -> list[str]:
    """Living processes that this one has adopted."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if int(parent) == os.getpid() and state not in "ZX":
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()[:200]!r}")
        except (OSError, ValueError, IndexError):
            continue
    return found


def reap() -> None:
    """Collects adopted processes that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def one_kill(case: Case, shared: Path, folder: Path, moment: float, number: signal.Signals, wanted: Any) -> dict[str, Any] | None:
    """One kill and the start after it: what was not as it should be; None: the command had ended before."""
    lay(case, shared, folder)
    wrong: list[str] = []
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err, begin(case, shared, folder, out, err) as process:
        first_word(process, folder / "err")
        time.sleep(moment)
        if process.poll() is not None:
            return None
        process.send_signal(number)
        at = time.monotonic()
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            return {"wrong": ["it did not end within 60 s of the signal"]}
        took = time.monotonic() - at
    said = (folder / "err").read_text(errors="replace")
    if code == wanted[0]:
        return None  # the result was out already
    if code != (-9 if number == signal.SIGKILL else 130):
        wrong.append(f"exit code {code}")
    if "Traceback" in said or "internal error" in said:
        wrong.append(f"said {said[-300:]!r}")
    time.sleep(PATIENCE)
    if left := orphans():
        wrong.append(f"left after {PATIENCE:g} s: {left}")
    reap()
    run = folder / "work" / "run"
    before = units(run) if case.ledger else {}
    parts = [path.name for path in folder.rglob("*.part")]
    code, _, said = finish(case, shared, folder)
    if code != wanted[0]:
        wrong.append(f"the next start ended with {code}: {said[-300:]!r}")
    else:
        after = units(run) if case.ledger else {}
        lost = [i for i in before if i not in after] + [i for i, row in after.items() if row[0] != "done"]
        double = [i for i, row in before.items() if row[0] == "done" and after.get(i) != row]
        if lost or double or (case.ledger and len(after) != wanted[2]):
            wrong.append(f"units lost {lost}, done twice {double}, {len(after)} of {wanted[2]}")
        found = result(case, folder)
        if found != wanted[1]:
            wrong.append(f"another result: {apart(found, wanted[1])[:3]}")
    wrong += [f"{path} is left" for path in folder.rglob("*.part")]
    own = [path for place in ("tmp", "home") for path in (folder / place).rglob("*") if path.is_file()]
    wrong += [f"{path} is left" for path in own if "matplotlib" not in str(path)]  # its cache of fonts
    time.sleep(0.1)
    wrong += [f"after the next start: {line}" for line in orphans()]
    done = sum(row[0] == "done" for row in before.values())
    return {"wrong": wrong, "ended": round(took, 2), "parts": len(parts), "done_before": done}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=34, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(case.name for case in CASES))
    parser.add_argument("--log", type=Path, help="default: none")
    args = parser.parse_args()
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    print(load_note())
    lines = args.log.read_text().splitlines() if args.log and args.log.exists() else []
    rows = [json.loads(line) for line in lines]
    with tempfile.TemporaryDirectory() as name:
        shared = Path(name) / "shared"
        shared.mkdir()
        shared_files(shared)
        for case in [case for case in CASES if case.name in args.only.split(",")]:
            rows += kills(case, shared, args, {row["kill"] for row in rows if row["case"] == case.name})
    print(summary(rows))
    print(load_note())
    return 1 if any(row["wrong"] for row in rows) else 0


def kills(case: Case, shared: Path, args: argparse.Namespace, have: set[int]) -> list[dict[str, Any]]:
    """The kills of one command that are not there yet."""
    if have >= set(range(args.kills)):
        return []
    if case.prepare and not (shared / case.prepare).exists():
        source = next(c for c in CASES if c.name == "evaluate")
        lay(source, shared, shared / "made")
        code, _, said = finish(source, shared, shared / "made")
        assert code == 0, said
        (shared / "made" / "work" / "run").rename(shared / case.prepare)
    calm = shared.parent / f"{case.name}-calm"
    lay(case, shared, calm)
    code, length, said = finish(case, shared, calm)
    assert code in (0, 1, 3), said
    wanted = (code, result(case, calm), len(units(calm / "work" / "run")))
    print(f"{case.name}: {length:.1f} s of work, {wanted[2]} units", flush=True)
    rows = []
    for i in sorted(set(range(args.kills)) - have):
        number = (signal.SIGKILL, signal.SIGTERM)[i % 2]
        rng = np.random.default_rng((args.seed, i, *case.name.encode()))
        for attempt in range(_LATE):
            moment = float(rng.uniform(0.0, length))
            folder = shared.parent / f"{case.name}-{i}-{attempt}"
            row = one_kill(case, shared, folder, moment, number, wanted)
            if row is None or not row["wrong"]:
                subprocess.run(["rm", "-rf", str(folder)], check=True)
            if row is not None:
                break
        assert row is not None, "every kill came too late"
        row |= {"case": case.name, "kill": i, "signal": number.name, "moment": round(moment, 3), "late": attempt}
        rows.append(row)
        if args.log:
            with args.log.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if row["wrong"]:
            print(f"{case.name} {i} {number.name} at {moment:.2f} s: {'; '.join(row['wrong'])[:600]}", flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> str:
    """A row for each command."""
    lines = []
    names = [case.name for case in CASES]
    groups: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [(n, lambda r, n=n: r["case"] == n) for n in names]  # type: ignore[misc]
    for name, chosen in [*groups, ("all", lambda r: True)]:
        own = [row for row in rows if chosen(row)]
        if own:
            ends = max(row.get("ended", 0.0) for row in own)
            lines.append((name, len(own), sum(bool(r["wrong"]) for r in own), sum(r.get("parts", 0) for r in own), f"{ends:.1f}"))
    return table(("command", "kills", "not as they should be", ".part files at the kill", "longest end, s"), lines)


if __name__ == "__main__":
    sys.exit(main())
