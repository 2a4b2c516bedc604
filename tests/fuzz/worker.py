"""Reads fuzzed inputs in a process of its own, with a hook that sees every file that is written and every process that is started.

    python -m tests.fuzz.worker KIND FIRST COUNT FOLDER

One line of JSON per seed on standard output: exit codes, seconds, peak memory, and what is wrong (nothing, for an input that was
met in order). KIND may be several, separated by commas.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import sys
import time
import traceback
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main"]

_CODES = (0, 1, 2, 3, 4)
_DECOY = "from pathlib import Path\nPath('EXECUTED').touch()\n"
_MOVES = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
    "shutil.rmtree",
}  # fmt: skip
_STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "pty.spawn"}
_REACHES = {"socket.connect", "socket.bind", "pickle.find_class", "urllib.Request", "ftplib.connect"}


class Watch:
    """What the audit hook has seen since it was last asked."""

    def __init__(self) -> None:
        self.inside: tuple[str, ...] = ()
        self.seen: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.inside:
            return
        if event == "open":
            path, _, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if writes and not isinstance(path, int) and not self._may(path):
                self.seen.append(f"wrote {path!r}")
        elif event in _MOVES or event == "sqlite3.connect":
            if not all(self._may(a) for a in args[:2] if isinstance(a, str | bytes | os.PathLike)):
                self.seen.append(f"{event} {args!r}")
        elif event in _STARTS or event in _REACHES:
            self.seen.append(f"{event} {args[:1]!r}")

    def _may(self, path: Any) -> bool:
        full = os.path.realpath(os.fsdecode(path))
        return full.startswith(self.inside) or full == os.devnull


def main(kinds: str, first: int, count: int, folder: str) -> int:
    """Meets the inputs of so many seeds."""
    import matplotlib.font_manager  # noqa: F401 - what is imported before the hook is on is ours, a cache in the home folder too
    import onnxruntime  # noqa: F401
    import torch

    from onnxsub.cli.main import run
    from tests.fuzz.inputs import RUNS, finished_runs, make

    torch.set_num_threads(1)
    base = Path(folder).resolve()
    if "run" in kinds.split(","):
        shutil.rmtree(base / RUNS, ignore_errors=True)
        finished_runs(base)
    watch = Watch()
    sys.addaudithook(watch)
    own = os.fdopen(os.dup(1), "w")
    os.environ["TMPDIR"] = str(base)
    home = Path.cwd()
    for kind, seed in product(kinds.split(","), range(first, first + count)):
        place = base / f"{kind}-{seed}"
        place.mkdir()
        for name in ("torch.py", "numpy.py", "sitecustomize.py", "matplotlib.py", "colorsys.py"):
            (place / name).write_text(_DECOY)
        commands = make(kind, seed, place)
        os.chdir(place)
        before = set(place.iterdir())
        watch.inside = (str(base) + os.sep,)
        met = [_one(run, command) for command in commands]
        watch.inside = ()
        wrong = [w for _, _, words in met for w in words] + watch.seen
        watch.seen = []
        files = [str(getattr(module, "__file__", "") or "") for module in list(sys.modules.values())]
        if (place / "EXECUTED").exists() or any(file.startswith(str(place)) for file in files):
            wrong.append("a module of the working folder was imported")
        if kind == "onnx" and met[1][0] in (0, 1, 3):
            wrong += _disagrees(place / "m.onnx", seed)
        new = sorted(path.name for path in set(place.iterdir()) - before if path.name != "page")
        wrong += [f"left {new}"] if new else []
        os.chdir(home)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if peak > 2.0:
            wrong.append(f"{peak:.1f} GB")
        times = [round(seconds, 3) for _, seconds, _ in met]
        line = {"kind": kind, "seed": seed, "codes": [code for code, _, _ in met], "seconds": times, "peak": peak, "wrong": wrong}
        print(json.dumps(line), file=own, flush=True)
        if not wrong:
            shutil.rmtree(place)
    return 0


def _one(run: Any, command: list[str]) -> tuple[int, float, list[str]]:
    out, err, began = io.StringIO(), io.StringIO(), time.perf_counter()
    wrong = []
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            code = run(command)
    except BaseException as error:
        code, last = -1, traceback.extract_tb(error.__traceback__)[-1]
        wrong.append(f"{type(error).__name__}: {error} at {last.filename}:{last.lineno}")
    seconds = time.perf_counter() - began
    words = err.getvalue()
    if "internal error" in words or "Traceback" in words:
        wrong.append(f"{' '.join(command)}: {words[-300:]}")
    if code not in _CODES:
        wrong.append(f"exit code {code}")
    if code == 4 and sum(line.startswith("onnxsub: ") for line in words.splitlines()) != 1:
        wrong.append(f"not one line: {words[-300:]!r}")
    if any(c in out.getvalue() + words for c in "\x1b\u202e\x00"):
        wrong.append("a control character was printed")
    if seconds > 10:
        wrong.append(f"{seconds:.1f} s")
    return code, seconds, wrong


def _disagrees(path: Path, seed: int) -> list[str]:
    """A model that was accepted: its network against onnxruntime."""
    import torch

    from onnxsub.lower import lower
    from onnxsub.model import load_model
    from onnxsub.runtime import Runtime

    model = load_model(path)
    x = np.random.default_rng(seed).random((3, *model.input_shape)).astype(np.float32)
    ours = lower(model).forward(torch.from_numpy(x.astype(np.float64))).numpy().reshape(3, -1)
    theirs = Runtime(model).logits(x, one_by_one=True).astype(np.float64).reshape(3, -1)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(theirs) & np.isfinite(ours)
        apart = np.abs(ours - theirs)[finite].max(initial=0.0) / (1.0 + np.abs(theirs)[finite].max(initial=0.0))
    return [] if apart <= 1e-3 else [f"onnxruntime differs by {apart:.2g}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
