"""How long a terminal is silent while `distance` and `verify` work: the longest time between two writes to it.

    python -m benchmarks.silence [--data FOLDER] [--timeout S] [NAME ...]

Each command runs in a pseudo-terminal of its own, with standard output in a file: what comes through the terminal is standard error
alone. Times are from the start of the process to its end, imports included. Per run: exit code, seconds, writes, the longest
silence and when it began.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """A network, its anchor, and the radius that is decided."""

    name: str
    model: str
    x0: tuple[str, ...]
    eps: float
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Silence:
    """What a terminal saw of one command."""

    code: int
    seconds: float
    writes: int
    longest: float
    at: float
    text: str


def cases(data: Path) -> list[Case]:
    mnist = ("--x0", str(data / "data" / "mnist.npz"), "--array", "x_test", "--index")
    cifar = ("--x0", str(data / "data" / "cifar10.npz"), "--array", "x_test", "--index")
    nets = data / "nets"
    own = ("--x0", str(data / "models" / "mnist_cnn.npy"))
    return [
        Case("digits", str(ROOT / "models" / "digits.onnx"), ("--x0", str(ROOT / "models" / "digits_seven.npy")), 0.1),
        Case("wk17a", str(nets / "wk17a.onnx"), (*mnist, "0"), 0.12),
        Case("mnist-net_256x2", str(nets / "mnist-net_256x2.onnx"), (*mnist, "3"), 0.03),
        Case("mnist-net_256x2, milp", str(nets / "mnist-net_256x2.onnx"), (*mnist, "3"), 0.03, ("--verifier", "milp")),
        Case("resnet_2b", str(nets / "resnet_2b.onnx"), (*cifar, "2"), 0.008),
        Case("mnist_cnn", str(data / "models" / "mnist_cnn.onnx"), own, 0.05),
    ]


def watch(arguments: list[str]) -> Silence:
    """Runs a command with a terminal as its standard error, and notes when something is written to it."""
    here, there = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR")} | {"TERM": "xterm", "COLUMNS": "120"}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=there, env=environment)
        os.close(there)
        times, text = [0.0], b""
        while True:
            ready, _, _ = select.select([here], [], [], 0.05)
            if ready:
                part = b""
                with contextlib.suppress(OSError):  # what a terminal says when its other end is closed
                    part = os.read(here, 65536)
                if not part:
                    break
                text += part
                times.append(time.perf_counter() - began)
        code = process.wait()
        times.append(time.perf_counter() - began)
        os.close(here)
        out.seek(0)
        json.loads(out.read())  # one document and nothing else
    gaps = np.diff(times)
    worst = int(gaps.argmax())
    return Silence(code, times[-1], len(times) - 2, float(gaps[worst]), times[worst], text.decode(errors="replace"))


def lines(text: str) -> list[str]:
    """What stood on the line, once each."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return list(dict.fromkeys(part.strip() for part in re.split(r"[\r\n]+", plain) if part.strip()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ONNXSUB_DATA", "data")))
    parser.add_argument("--timeout", default="25")
    parser.add_argument("--show", action="store_true", help="print the lines")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    worst = 0.0
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for case in cases(options.data):
        if options.names and case.name not in options.names:
            continue
        for command in ("distance", "verify"):
            how = ["--eps", str(case.eps)] if command == "verify" else []
            limits = ["--timeout", options.timeout, "--threads", "1", "--json"]
            found = watch([sys.executable, "-m", "onnxsub", command, case.model, *case.x0, *how, *case.more, *limits])
            worst = max(worst, found.longest)
            print(
                f"| {case.name} | `{command}` | {found.code} | {found.seconds:.1f} | {found.writes} | {found.longest:.2f} | "
                f"{found.at:.1f} |", flush=True,
            )  # fmt: skip
            if options.show:
                print("\n".join(f"    {line}" for line in lines(found.text)))
    print(f"longest silence {worst:.2f} s")
    return int(worst > 2.0)


if __name__ == "__main__":
    sys.exit(main())
