"""What the checks against hostile files and broken machines cost, as a share of the work of `evaluate`; how fast `info` answers.

    python -m benchmarks.checks [--samples 10] [--runs 9]

`evaluate` on the bundled network does everything in this process, and each check is replaced by itself with a clock around it
(seconds of the processor; a check within another one counts once). `info` is the whole command in fresh processes.
"""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import load_note, median, table
from benchmarks.startup import seconds

MODELS = Path(__file__).parents[1] / "models"
MOST, LONGEST = 0.02, 0.4


class Clocks:
    """Seconds of the processor in each check, and calls."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._inside = 0

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a clock."""

        @functools.wraps(function)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            self._inside += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._inside -= 1
                self.calls[name] += 1
                if not self._inside:
                    self.spent[name] += time.thread_time() - began  # type: ignore[assignment]

        return clocked


def clocked() -> Clocks:
    """Puts clocks around all checks of this process."""
    from onnxsub import check_finite, costs, files, isolation, limits, scratch, visible, watched
    from onnxsub.evaluate import drive, lock, seals

    clocks = Clocks()
    for owner, names in (
        (costs.Costs, ("constant", "kept", "__init__")),
        (limits.Limits, ("check",)),
        (seals.Seals, ("bind", "check", "take_over", "keep", "check_file", "_row")),
    ):
        for name in names:
            setattr(owner, name, clocks.around(f"{owner.__name__}.{name}", getattr(owner, name)))
    functions = [getattr(check_finite, name) for name in check_finite.__all__]
    functions += [watched.refuse_programs, watched.has_programs, watched.only_live, watched._run_apart]
    functions += [files.refuse_links, drive._refuse_links, drive._same_units, drive._refuse_programs, lock.end_family]
    functions += [scratch._sweep, visible.visible, limits.limits, limits.check_regular, isolation.python_path, seals.plan_checksum]
    for function in functions:
        new = clocks.around(function.__name__, function)
        for module in [m for n, m in list(sys.modules.items()) if n.partition(".")[0] == "onnxsub"]:
            for name, value in list(vars(module).items()):
                if value is function:
                    setattr(module, name, new)
    return clocks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=2, help="of the search per distance: few, so that the checks weigh most")
    parser.add_argument("--runs", type=int, default=9, help="of info")
    args = parser.parse_args()
    print(load_note())
    import torch

    from onnxsub.evaluate import distances  # noqa: F401 - what a worker imports, so that its names are clocked too
    from onnxsub.evaluate.plan import Plan
    from onnxsub.evaluate.run import evaluate
    from onnxsub.evaluate.samples import Choice, read_samples
    from onnxsub.evaluate.settings import Settings
    from tests.robustness_tools import Here

    torch.set_num_threads(1)
    clocks = clocked()
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        samples = read_samples(MODELS / "digits_anchors.npz", Choice(limit=args.samples), "x", "y")
        settings = Settings(methods=("lin",), gammas=(0.9,), timeout=600.0, nodes=args.nodes)
        plan = Plan.of((str(MODELS / "digits.onnx"),), samples, settings)
        assert evaluate(plan, Path(folder) / "run", engine=Here()).finished
    whole = time.process_time() - began
    rows = [(name, clocks.calls[name], f"{1000 * spent:.1f}") for name, spent in clocks.spent.most_common(8)]
    print(table(("check", "calls", "milliseconds of the processor"), rows))
    share = sum(clocks.spent.values()) / whole
    print(f"all checks {100 * share:.2f} % of {whole:.1f} s of the processor, {args.samples} samples")
    times = [seconds("info", str(MODELS / "digits.onnx")) for _ in range(args.runs)]
    print(f"onnxsub info: median {median(times):.2f} s, worst {max(times):.2f} s; {load_note()}")
    return 0 if share <= MOST and median(times) <= LONGEST else 1


if __name__ == "__main__":
    sys.exit(main())
