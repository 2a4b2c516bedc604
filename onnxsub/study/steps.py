"""The core of every study: named steps with a result each, done once, whatever happens in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnxsub.documents import read_json
from onnxsub.errors import InputError
from onnxsub.files import make_folder, write_atomic
from onnxsub.scratch import sweep_parts

__all__ = ["Steps"]

_SETTINGS = "study.json"


class Steps:
    """The folder of one study. A step's result is a JSON file that is whole or absent, so a kill loses at most one step.

    Args:
        folder: made where it is not there.
        settings: all that decides the results, as plain values.

    Raises:
        InputError: the folder is of a study with other settings, or no study. OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        mine = json.loads(json.dumps(settings))
        path = folder / _SETTINGS
        if path.exists():
            theirs = _read(path)
            for key in {**theirs, **mine}:
                if theirs.get(key) != mine.get(key):
                    raise InputError(
                        f"{str(folder)!r} is of a study with other settings: {key} is {theirs.get(key)!r} there and "
                        f"{mine.get(key)!r} here; use the same options, or another --run"
                    )
            return
        if folder.is_dir():
            sweep_parts(folder)  # a kill within the first write leaves nothing else
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{str(folder)!r} is there and no study; choose another --run")
        self._write(path, mine)

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of step `name`: read where it is there, else computed by `work` and written. Plain values only.

        Args:
            name: parts with `/` between them become folders.
        """
        path = self.folder / "steps" / f"{name}.json"
        if path.exists():
            return _read(path)
        # through JSON in both cases, so that a resumed study sees what an undisturbed one does
        result = json.loads(json.dumps(work()))
        self._write(path, result)
        return result

    def _write(self, path: Path, value: Any) -> None:
        make_folder(path.parent, "choose another --run")
        write_atomic(path, (json.dumps(value, indent=1) + "\n").encode())


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} is damaged; delete it, and the same command computes it again") from error
