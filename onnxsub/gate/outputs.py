"""Everything that a gate writes, by the option that asks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxsub.errors import OptionError, OutputError
from onnxsub.files import make_folder, write_atomic
from onnxsub.gate.badge import badge
from onnxsub.gate.junit import junit
from onnxsub.gate.markdown import append_summary, markdown
from onnxsub.gate.pages import gate_page
from onnxsub.gate.result import GateResult
from onnxsub.gate.sarif import sarif
from onnxsub.report.picture import check_matplotlib

__all__ = ["check_outputs", "write_outputs"]

_FILES = ("junit", "markdown", "badge", "sarif")


def check_outputs(files: Mapping[str, str]) -> None:
    """Finds out before the work begins whether the outputs can be written.

    Args:
        files: option without its dashes -> the file, or the folder of the page.

    Raises:
        OutputError: the folder of a file is missing or not writable. OptionError: the badge is no `.svg`. MissingDependencyError:
            the page needs matplotlib.
    """
    for option, name in files.items():
        path = Path(name)
        if option == "page":
            check_matplotlib()
            if path.exists() and not path.is_dir():
                raise OutputError(f"--page {name!r} is a file; give a folder")
        elif path.is_dir():
            raise OutputError(f"--{option} {name!r} is a folder; give the name of a file in it")
        elif option == "badge" and path.suffix.lower() != ".svg":
            raise OptionError(f"--badge {name!r} has the ending {path.suffix!r}; it is an SVG, give a name that ends in .svg")
        elif not path.parent.is_dir():
            raise OutputError(f"--{option} {name!r}: there is no folder {str(path.parent)!r}; create it or choose another one")
        elif not os.access(path.parent, os.W_OK):
            raise OutputError(f"--{option} {name!r}: the folder {str(path.parent)!r} is not writable; choose another one")


def write_outputs(result: GateResult, files: Mapping[str, str], command: Sequence[str]) -> dict[str, str]:
    """Writes the files, and the summary of a job where the environment names one. Returns what was written where.

    Raises:
        OutputError: one of them cannot be written. MissingDependencyError: the page needs matplotlib.
    """
    written = {}
    make = {"junit": junit, "markdown": lambda r: markdown(r).encode(), "badge": badge, "sarif": sarif}
    for option in _FILES:
        if option in files:
            write_atomic(files[option], make[option](result))
            written[option] = files[option]
    if "page" in files:
        written["page"] = str(_write_page(Path(files["page"]), gate_page(result, command)))
    summary = append_summary(markdown(result))
    return written if summary is None else {**written, "summary": str(summary)}


def _write_page(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for name, data in contents.items():
        target = folder / name
        make_folder(target.parent, "choose another --page")
        write_atomic(target, data)
    return folder / "index.html"
