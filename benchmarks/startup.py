"""Wall time of the commands that must answer at once, each in a fresh process.

    python -m benchmarks.startup [--runs 9]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from benchmarks.common import DATA, load_note, median


def seconds(*args: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "onnxsub", *args], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    args = parser.parse_args()
    print(load_note())
    for command in (("--help",), ("info", str(DATA / "nets" / "wk17a.onnx"))):
        times = [seconds(*command) for _ in range(args.runs)]
        print(f"onnxsub {' '.join(command[:1])}: median {median(times):.2f} s, worst {max(times):.2f} s")


if __name__ == "__main__":
    main()
