"""What the benchmarks share: where the data lies, the images that fit a network, medians, the machine's load, processes.

Environment:
    ONNXSUB_DATA: the folder that holds `nets/`, `data/` and `gt/`.
    ONNXSUB_TREE: a folder whose `onnxsub` is measured in place of the one beside `benchmarks`, for comparisons of versions. It has
        to be set before the first import of `onnxsub`, so a benchmark imports this module first.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported

import json
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [  # noqa: F822 - DATA comes from __getattr__
    "DATA", "LABELS", "TREE", "Answer", "Done", "anchors", "ask_ball", "ask_distance", "ask_property", "command_line", "exact_rows",
    "images_for", "in_process", "load_note", "median", "network_path", "process", "space_of", "table",
]  # fmt: skip

TREE = Path(os.environ.get("ONNXSUB_TREE", Path(__file__).resolve().parents[1]))
if "ONNXSUB_TREE" in os.environ and str(TREE) not in sys.path[:1]:
    sys.path.insert(0, str(TREE))

_MODELS = Path(__file__).resolve().parents[1] / "models"
_DATA = Path(os.environ.get("ONNXSUB_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))


def __getattr__(name: str) -> Path:
    """`DATA`, looked at when it is asked for: what needs no networks runs without them."""
    if name != "DATA":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not (_DATA / "nets").is_dir():
        sys.exit(f"no networks in {_DATA}; set ONNXSUB_DATA to the folder that holds nets/, data/ and gt/")
    return _DATA


# networks that want normalised inputs: mean, std
_NORMALISED = {
    "convSmallRELU__Point": ((0.1307,), (0.3081,)),
    "mnist_conv_maxpool": ((0.5,), (1.0,)),
    "cifar_base_kw": ((0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
    "resnet_2b": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
}


def space_of(name: str) -> dict[str, tuple[float, ...]]:
    """Keyword arguments `mean` and `std` of `InputSpace` for a network of the data folder."""
    if name not in _NORMALISED:
        return {}
    mean, std = _NORMALISED[name]
    return {"mean": mean, "std": std}


def network_path(name: str) -> Path:
    """The file of a network: of the data folder, or the bundled `digits`."""
    return _MODELS / "digits.onnx" if name == "digits" else __getattr__("DATA") / "nets" / f"{name}.onnx"


def images_for(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Test images in [0, 1] (float32, per-sample layout of the network) and labels; of `digits` its ten bundled anchors."""
    if name == "digits":
        with np.load(_MODELS / "digits_anchors.npz") as archive:
            return archive["x"], archive["y"]
    data = "cifar10" if "cifar" in name or "resnet" in name else "fashion_mnist" if "fashion" in name else "mnist"
    with np.load(_DATA / "data" / f"{data}.npz") as archive:
        x, y = archive["x_test"].astype(np.float32) / 255, archive["y_test"]
    if data == "cifar10":
        return (x if name == "cifar10_small" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))), y
    if name == "mnist-net_256x2":
        return x.reshape(-1, 784, 1), y
    return (x[..., None] if name == "cnn_max_mninst2" else x[:, None]), y


LABELS = "y_test"


def anchors(name: str, count: int) -> list[int]:
    """Indices of the first `count` test images (right or wrong: callers skip what is misclassified)."""
    return list(range(count))


def exact_rows() -> list[tuple[int, float]]:
    """(test index, exact distance) of wk17a."""
    import csv

    with (_DATA / "gt" / "wk17a_linf0.1_mipverify_idx0_249.csv").open() as file:
        rows = [(int(r["test_index"]), r["min_linf_distance"]) for r in csv.DictReader(file)]
    return [(i, float(d)) for i, d in rows if d]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def load_note() -> str:
    """The machine's load, since a busy neighbour changes every timing."""
    return f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores"


@dataclass(frozen=True)
class Done:
    """A process that ended, or was ended.

    Attributes:
        code: exit code; negative: the signal that ended it.
        seconds: wall clock, imports included.
        cpu: seconds of the processor.
        peak: largest resident memory, GB.
        document: the JSON that it printed; empty where it printed none.
        error: the last line of standard error.
        killed: it ran past its limit.
    """

    code: int
    seconds: float
    cpu: float
    peak: float
    document: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    killed: bool = False

    @property
    def status(self) -> str:
        """The document's status, or what happened in place of one."""
        if self.killed:
            return "killed"
        return str(self.document.get("status", f"exit {self.code}"))


def process(arguments: Sequence[str], *, limit: float, folder: Path, tree: Path | None = None, memory: float = 8.0) -> Done:
    """Runs `python ARGUMENTS` in `folder` with the `onnxsub` of `tree`, by itself, and measures it.

    Args:
        limit: seconds after which it is killed.
        memory: GB of address space that it may take; beyond that its allocations fail.
    """
    environment = {**os.environ, "PYTHONPATH": str(tree or TREE), "PYTHONDONTWRITEBYTECODE": "1"}
    most = int(memory * 2**30)
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            [sys.executable, *arguments], stdout=out, stderr=err, cwd=folder, env=environment, start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
        )  # fmt: skip
        killed = False
        while True:
            pid, state, used = os.wait4(child.pid, os.WNOHANG)
            if pid:
                break
            if time.perf_counter() - began > limit and not killed:
                killed = True
                os.killpg(child.pid, signal.SIGKILL)
            time.sleep(0.01)
        child.returncode = os.waitstatus_to_exitcode(state)
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        text, lines = out.read().decode(errors="replace"), err.read().decode(errors="replace").strip().splitlines()
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = {}
    cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
    return Done(child.returncode, seconds, cpu, peak, document, lines[-1] if lines else "", killed)


def command_line(arguments: Sequence[str], *, limit: float, folder: Path, tree: Path | None = None, memory: float = 8.0) -> Done:
    """`onnxsub ARGUMENTS --json --quiet` as `process` runs it."""
    words = ["-m", "onnxsub", *arguments, "--json", "--quiet"]
    return process(words, limit=limit, folder=folder, tree=tree, memory=memory)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a question in this process was answered, by whatever version of the library.

    Attributes:
        x: the witness, float32; `fed`: in the units that the model is fed (by a property), else un-normalised.
    """

    status: str
    seconds: float
    nodes: int = 0
    reason: str = ""
    x: np.ndarray | None = None
    fed: bool = False
    lower: float = 0.0
    upper: float = float("inf")
    kind: str = ""


def _limits(**limits: Any) -> dict[str, Any]:
    """What limits are called in the options of this version, or of one in which they belonged to the MILP's."""
    try:
        from onnxsub.verifiers.options import Limits
    except ImportError:
        from onnxsub.verifiers.milp.options import MilpOptions  # type: ignore[import-not-found]

        return {"milp": MilpOptions(**limits)}
    return {"limits": Limits(**limits)}


def ask_ball(query: Any, eps: float, verifier: str = "bab", timeout: float | None = None, **more: Any) -> Answer:
    """`onnxsub.verify` on the ball; `more` are further limits: `threads`, `seed`, `tol`."""
    from onnxsub.verifiers.verify import VerifyOptions, verify

    began = time.perf_counter()
    found = verify(query, eps, VerifyOptions(**_limits(timeout=timeout, **more), verifier=verifier))
    return _answer(found, time.perf_counter() - began, fed=False)


def ask_property(model: Any, question: Any, verifier: str = "bab", timeout: float | None = None, **more: Any) -> Answer:
    """`decide_property` on a property."""
    from onnxsub.verifiers.property import decide_property

    try:
        from onnxsub.verifiers.property import PropertyOptions as Options
    except ImportError:  # a version with the same options for both doors
        from onnxsub.verifiers.verify import VerifyOptions as Options

    began = time.perf_counter()
    found = decide_property(model, question, Options(**_limits(timeout=timeout, **more), verifier=verifier))
    return _answer(found, time.perf_counter() - began, fed=True)


def ask_distance(query: Any, verifier: str = "bab", timeout: float | None = None, **more: Any) -> Answer:
    """`onnxsub.distance` of the model itself."""
    from onnxsub.verifiers.distance import DistanceOptions, distance

    began = time.perf_counter()
    found = distance(query, DistanceOptions(**_limits(timeout=timeout, **more), verifier=verifier))
    return _answer(found, time.perf_counter() - began, fed=False)


def _answer(found: Any, seconds: float, *, fed: bool) -> Answer:
    w = found.witness
    if w is not None and not w.confirmed:
        w = None
    x, kind = (None, "") if w is None else (np.asarray(w.x), str(w.kind))
    lower, upper = float(getattr(found, "lower", 0.0)), float(getattr(found, "upper", float("inf")))
    reason = str(getattr(found, "reason", None) or "")
    return Answer(found.status, seconds, int(found.nodes), reason, x, fed, lower, upper, kind)


def in_process(arguments: Sequence[str], *, folder: Path) -> Done:
    """`onnxsub ARGUMENTS --json --quiet` in this process: no imports to pay for, no limit, no figure of memory."""
    import contextlib
    import io

    from onnxsub.cli.main import run

    out, err = io.StringIO(), io.StringIO()
    began, cpu = time.perf_counter(), time.process_time()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([*arguments, "--json", "--quiet"])
    lines = err.getvalue().strip().splitlines()
    document = json.loads(out.getvalue()) if out.getvalue() else {}
    seconds = time.perf_counter() - began
    return Done(int(code), seconds, time.process_time() - cpu, 0.0, document, lines[-1] if lines else "")
