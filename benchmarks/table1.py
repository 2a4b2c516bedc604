"""The table of the reference experiment, docs/table1.md: distances and solver times with and without pruning.

    python -m benchmarks.table1 run --run table1           every tenth of the first hundred images
    python -m benchmarks.table1 table --run table1         docs/table1.md's tables, of what is there
    python -m benchmarks.table1 save --run table1 --rows FILE.jsonl    its rows, a line each
    python -m benchmarks.table1 table --rows FILE.jsonl    the tables of rows that were saved

`run` goes on where it was stopped: one run folder of `onnxsub evaluate` per protocol, network and image, image by image over all
networks, so that what is there at any time is about all of them. Architecture C with both gammas; D and E, where their files lie
in `models/`, with 0.99. `paper` is the reference experiment (ranking by width, MILP), `trees` the same with branch and bound in
place of the MILP, `fast` our own ranking and engine (influence, branch and bound on the distance) on the same images. An original
is computed once per image and serves all methods and gammas. --timeout is that of a solver run (`paper`, `trees`) or of a distance
(`fast`); a folder keeps the one that it was begun with, and the table names it. "No run" in a row: bounds settle every radius of
the image that counts. "Error at least": an undecided radius only makes the network's distance too small, and the attack bounds it
from above; this is the least mean error over all that it may be.

`benchmarks/table1.jsonl` holds the rows of docs/table1.md by the protocol. `run --rows FILE` leaves out what the file has already,
so that a run goes on where its folders are gone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import common
from onnxsub.evaluate.drive import LEDGER, PLAN
from onnxsub.evaluate.ledger import EmptyLedgerError, Ledger
from onnxsub.evaluate.plan import read_plan
from onnxsub.evaluate.row import Row, rows_of
from onnxsub.evaluate.summary import Line, summarise
from onnxsub.files import write_atomic

ROOT = Path(__file__).parents[1]
C = ("mnist-c-clean", "mnist-c-adv0.1", "mnist-c-adv0.3", "cifar10-c-clean", "cifar10-c-adv2-255", "cifar10-c-adv8-255")
OTHERS = tuple(name.replace("-c-", f"-{letter}-") for letter in "de" for name in C)
METHODS = ("con", "lin", "act")
PROTOCOLS = {
    "paper": ("--protocol", "paper"), "trees": ("--protocol", "paper", "--verifier", "bab"), "fast": ("--protocol", "fast")
}  # fmt: skip

# error of the distance at gamma 0.9 and 0.99, and seconds per solver run with pruning: as published, of architecture C
_ERROR = {
    "mnist-c-clean": {"con": (0.39, 0.39), "lin": (0.0, 0.0054), "act": (0.016, 0.019)},
    "mnist-c-adv0.1": {"con": (0.19, 0.72), "lin": (0.0, 0.0068), "act": (0.0067, 0.01)},
    "mnist-c-adv0.3": {"con": (0.061, 0.3), "lin": (0.0, 0.031), "act": (0.01, 0.031)},
    "cifar10-c-clean": {"con": (2.1, 5.5), "lin": (0.0098, 0.0098), "act": (0.0098, 0.0098)},
    "cifar10-c-adv2-255": {"con": (2.8, 47.0), "lin": (0.019, 0.019), "act": (0.0, 0.0)},
    "cifar10-c-adv8-255": {"con": (1.5, 3.3), "lin": (0.013, 0.017), "act": (0.0018, 0.0033)},
}
_SECONDS = {
    "mnist-c-clean": {"lin": (31.6, 16.9), "act": (32.0, 17.2), "": (33.3, 33.3)},
    "mnist-c-adv0.1": {"lin": (None, 9.7), "act": (None, 3.8), "": (34.0, 34.0)},
    "mnist-c-adv0.3": {"lin": (None, 7.4), "act": (None, 2.2), "": (33.1, 33.1)},
    "cifar10-c-clean": {"lin": (None, 9.2), "act": (None, 11.0), "": (60.1, 60.1)},
    "cifar10-c-adv2-255": {"lin": (None, 19.3), "act": (None, 14.9), "": (63.0, 63.0)},
    "cifar10-c-adv8-255": {"lin": (None, 22.8), "act": (None, 13.8), "": (59.8, 59.8)},
}


def networks(names: str | None) -> list[str]:
    """Those that were asked for, or all whose file is there."""
    return names.split(",") if names else [n for n in (*C, *OTHERS) if (ROOT / "models" / f"{n}.onnx").is_file()]


def images(args: argparse.Namespace) -> list[int]:
    """Those that were asked for, or every tenth of the first hundred."""
    return [int(i) for i in args.images.split(",")] if args.images else list(range(0, 100, 10))


def folder_of(args: argparse.Namespace, protocol: str, name: str, index: int) -> Path:
    return Path(args.run) / f"{protocol}-{name}-{index:02d}"


def states(folder: Path) -> dict[str, int]:
    """The units of a run by state; none where it did not begin, or was killed before it had any."""
    if not (folder / LEDGER).exists():
        return {}
    try:
        with Ledger(folder / LEDGER, readonly=True) as ledger:
            return {} if ledger.empty else ledger.counts()
    except EmptyLedgerError:
        return {}


def is_finished(folder: Path) -> bool:
    """Whether no unit of a run is left to be done; one that was interrupted has its tables too."""
    units = states(folder)
    return bool(units) and units["pending"] == units["running"] == 0


def run(args: argparse.Namespace) -> None:
    """One folder after the other; those that are finished end at once."""
    done = {(protocol, row.model, row.index) for protocol, row, _ in saved(args)}
    for index in images(args):
        for protocol in args.protocols.split(","):
            for name in networks(args.networks):
                if (protocol, name, index) not in done:
                    _one(args, protocol, name, index)


def _one(args: argparse.Namespace, protocol: str, name: str, index: int) -> None:
    folder = folder_of(args, protocol, name, index)
    if is_finished(folder):
        return
    data = common.DATA / "data" / ("cifar10.npz" if name.startswith("cifar10") else "mnist.npz")
    # where the folder has been begun, its own limits hold
    new = [
        str(ROOT / "models" / f"{name}.onnx"), "--data", str(data), "--index", str(index), *PROTOCOLS[protocol],
        "--methods", ",".join(METHODS), "--gammas", (args.gammas or "0.9,0.99") if name in C and protocol != "fast" else "0.99",
        "--timeout", f"{args.timeout:g}", *(["--known-points"] if args.known_points and protocol != "fast" else []),
    ]  # fmt: skip
    begun = (folder / PLAN).exists()
    command = [sys.executable, "-m", "onnxsub", "evaluate", *([] if begun else new), "--run", str(folder), "--quiet"]
    print("$", *command[1:], flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def save(args: argparse.Namespace) -> None:
    """The rows of finished folders of the protocols, and all that the file has already."""
    lines = [
        json.dumps({"protocol": protocol, "timeout": limit, **asdict(row)}) + "\n"
        for protocol in PROTOCOLS
        for row, limit in sorted(known(args, protocol, finished=True), key=order)
    ]
    write_atomic(args.rows, "".join(lines).encode())


def order(found: tuple[Row, float]) -> tuple[int, int, int, float]:
    """By network, image, method and gamma."""
    network, method, gamma = place(found[0])
    return network, found[0].index, method, gamma


def saved(args: argparse.Namespace) -> Iterator[tuple[str, Row, float]]:
    """Protocol, row and time limit of every line of the file."""
    if args.rows and Path(args.rows).is_file():
        for line in Path(args.rows).read_text().splitlines():
            values = json.loads(line)
            kept = values.pop("kept_per_layer")
            protocol, limit = values.pop("protocol"), values.pop("timeout")
            yield protocol, Row(kept_per_layer=None if kept is None else tuple(kept), **values), limit


def rows(args: argparse.Namespace, protocol: str, *, finished: bool = False) -> Iterator[tuple[Row, float]]:
    """Every row of the folders of a protocol and the time limit that it was made with.

    Args:
        finished: of folders whose last unit is done only.
    """
    for name in (*C, *OTHERS):
        for index in images(args):
            folder = folder_of(args, protocol, name, index)
            if is_finished(folder) if finished else states(folder):
                limit = read_plan(folder / PLAN)["settings"]["timeout"]
                with Ledger(folder / LEDGER, readonly=True) as ledger:
                    # what is still to be done says nothing yet
                    yield from ((row, limit) for row in rows_of(ledger) if row.status != "pending")


def known(args: argparse.Namespace, protocol: str, *, finished: bool = False) -> list[tuple[Row, float]]:
    """The rows of the folders and of the file, each once; a folder's take the place of the file's. `finished`: as of `rows`."""
    of_file = [(row, limit) for kind, row, limit in saved(args) if kind == protocol]
    of_folders = rows(args, protocol, finished=finished) if protocol in args.protocols.split(",") else ()
    return list({(*place(row), row.index): (row, limit) for row, limit in (*of_file, *of_folders)}.values())


def tables(args: argparse.Namespace) -> None:
    """All tables as Markdown."""
    for protocol in ("paper", "trees"):
        found = known(args, protocol)
        if not found:
            continue
        limits = sorted({limit for _, limit in found})
        heads = [
            "network", "type", "gamma", "samples", "error, mean ± sd", "error at least", "certain: error", "attack alone",
            "undecided radii with / without", "pruning, s", "run with, s", "run without, s", "runs (samples)", "speed-up",
            "published: error", "published: s with / without", "why fewer than 5",
        ]  # fmt: skip
        print(f"{protocol}; time limit of a solver run: {', '.join(f'{x:g} s' for x in limits)}.\n")
        print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for line in sorted(summarise(row for row, _ in found), key=place):
            own = [row for row, _ in found if (row.model, row.method, row.gamma) == (line.model, line.method, line.gamma)]
            print(f"| {' | '.join(paper_cells(line, own))} |")
        print()
    found = known(args, "fast")
    if not found:
        return
    limits = sorted({limit for _, limit in found})
    heads = [
        "network", "type", "gamma", "samples", "d_bnd exact", "d_hat exact", "error", "attack alone", "pruning, s", "with, s",
        "without, s", "speed-up",
    ]  # fmt: skip
    print(f"fast; time limit of a distance: {', '.join(f'{x:g} s' for x in limits)}.\n")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for x in sorted(summarise(row for row, _ in found), key=place):
        cells = [
            x.model, f"`{x.method}`", f"{x.gamma:g}", x.samples - x.misclassified, x.exact_bnd, x.exact_hat, percent(x.difference),
            percent(x.attack_difference), number(x.prune_s), number(x.hat_s), number(x.bnd_s),
            number(x.speed_up if x.exact_hat else None),
        ]  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")


def paper_cells(x: Line, own: list[Row]) -> list[str]:
    """The cells of a line of the reference experiment."""
    which = 0 if x.gamma == 0.9 else 1
    error = _ERROR.get(x.model, {}).get(x.method)
    with_s, without_s = (_SECONDS.get(x.model, {}).get(key, (None, None))[which] for key in (x.method, ""))
    shares = [share(own, side) for side in ("hat", "bnd")]
    return [
        x.model, f"`{x.method}`", f"{x.gamma:g}", f"{x.counted}",
        f"{percent(x.difference)}{'' if x.sd is None else f' ± {percent(x.sd)}'}",
        percent(least_error(own)), "none" if not x.certain else f"{percent(x.certain_difference)} of {x.certain}",
        percent(x.attack_difference),
        " / ".join(shares), number(x.run_prune_s), *(
            f"{number(mean)}{'' if sd is None else f' ± {number(sd)}'}"
            for mean, sd in ((x.run_hat_s, x.run_hat_sd), (x.run_bnd_s, x.run_bnd_sd))
        ),
        f"{x.runs_hat} / {x.runs_bnd} ({x.paired})", number(x.run_speed_up), "-" if error is None else percent(error[which]),
        f"{number(with_s)} / {number(without_s)}", reason(x, own),
    ]  # fmt: skip


def least_error(own: list[Row]) -> float | None:
    """The mean error, whatever the truth is about the network's undecided radii.

    An undecided radius makes a distance by the protocol too small only, and the attack's point bounds it from above.
    """
    found = []
    for row in own:
        if row.protocol_hat is not None and row.protocol_bnd:
            most = max(row.protocol_bnd, row.protocol_bnd if row.protocol_adv is None else row.protocol_adv)
            nearest = min(max(row.protocol_hat, row.protocol_bnd), most)
            found.append(abs(row.protocol_hat / nearest - 1))
    return sum(found) / len(found) if found else None


def place(line: Line | Row) -> tuple[int, int, float]:
    """Where a line, and the rows that it is of, stand in the table."""
    return (*C, *OTHERS).index(line.model), METHODS.index(line.method), line.gamma


def reason(x: Line, own: list[Row]) -> str:
    """What became of the images where fewer than five have runs on both sides."""
    if x.paired >= 5:
        return ""
    sides = {side: sum(getattr(row, f"timed_{side}") == 0 for row in own) for side in ("hat", "bnd")}
    alone = sum(row.d_adv is None and row.label == row.predicted for row in own)
    said = [
        f"{len(own)} images run", *([f"{x.misclassified} misclassified"] if x.misclassified else []),
        *([f"{alone} without an adversarial point in the interval"] if alone else []),
        *(f"no run {word} on {sides[side]}" for side, word in (("hat", "with"), ("bnd", "without")) if sides[side]),
    ]  # fmt: skip
    return ", ".join(said)


def share(own: list[Row], side: str) -> str:
    """Radii that an undecided run ended, as a share of those asked about."""
    asked = sum(getattr(row, f"radii_{side}") or 0 for row in own)
    return "-" if not asked else f"{100 * sum(getattr(row, f'undecided_{side}') or 0 for row in own) / asked:.0f} %"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %" if abs(value) < 1 else f"{100 * value:,.0f} %"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "save", "table"])
    parser.add_argument("--run", default="table1", help="folder of the run folders")
    parser.add_argument("--rows", help="file of rows that were saved")
    parser.add_argument("--networks", help="by commas; default: all that are there")
    parser.add_argument(
        "--protocols",
        default="paper,fast",
        help="of paper, trees, fast; default: paper,fast; what a file has is shown and kept in any case",
    )
    parser.add_argument("--images", help="by commas; default: 0, 10, 20, ..., 90")
    parser.add_argument("--gammas", help="of architecture C by the protocol, by commas; default: 0.9,0.99")
    parser.add_argument("--known-points", action="store_true", help="see `onnxsub evaluate`; of the folders that are begun now")
    parser.add_argument("--timeout", type=float, default=20.0)
    args = parser.parse_args()
    if args.what == "save" and not args.rows:
        parser.error("save needs --rows FILE")
    if args.what != "run":
        tables(args) if args.what == "table" else save(args)
        return
    print(common.load_note())
    run(args)


if __name__ == "__main__":
    main()
