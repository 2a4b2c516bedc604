"""A child process with a hard end: at its time limit it is killed with everything that it started."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Finished", "run_child"]

_CAP = 64 * 2**20
_PIECE = 2**16
_SWEEPS = 200
_MARK = "ONNXSUB_CHILD"
"""Environment variable by which descendants are known again, also those that left the session."""


@dataclass(frozen=True)
class Finished:
    """How a child ended.

    Attributes:
        code: exit code (negative: the signal that ended it); None where it was killed at the limit.
        stdout, stderr: what it printed, the first bytes up to the cap.
        truncated: it printed more than that.
        seconds: wall clock.
    """

    code: int | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    seconds: float

    @property
    def timed_out(self) -> bool:
        return self.code is None

    @property
    def last_words(self) -> str:
        """The last line of standard error, else of standard output, for a message."""
        for stream in (self.stderr, self.stdout):
            lines = stream.decode(errors="replace").strip().splitlines()
            if lines:
                return lines[-1].strip()[:200]
        return ""


def run_child(
    command: Sequence[str],
    *,
    cwd: Path,
    stdin: bytes = b"",
    limit: float | None = None,
    env: Mapping[str, str] | None = None,
    cap: int = _CAP,
) -> Finished:
    """Runs a command to its end or to its limit. No process that it started is left behind, also after Ctrl-C.

    Args:
        cwd: folder that it runs in.
        stdin: what it reads.
        limit: seconds; None for none.
        env: variables beside those of this process.
        cap: bytes of each stream that are kept; what comes after them is read and dropped, so that the child does not block.

    Raises:
        OSError: it cannot be started.
    """
    mark = secrets.token_hex(16)
    began = time.perf_counter()
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        child = subprocess.Popen(
            list(command), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
            env={**os.environ, **(env or {}), _MARK: mark}, start_new_session=True,
        )  # fmt: skip
    assert child.stdout is not None
    assert child.stderr is not None
    readers = [_Reader(child.stdout, cap), _Reader(child.stderr, cap)]
    code: int | None = None
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(None if limit is None else max(limit, 0.0))
    finally:
        # also after a good end: a helper that is still there would hold the pipes and the processor
        _end_family(child, mark)
        child.wait()
        out, err = (reader.end() for reader in readers)
    return Finished(code, out, err, any(r.truncated for r in readers), time.perf_counter() - began)


class _Reader(threading.Thread):
    """Reads a pipe to its end and keeps the first bytes."""

    def __init__(self, pipe: IO[bytes], cap: int) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._cap = cap
        self._kept = bytearray()
        self.truncated = False
        self.start()

    def run(self) -> None:
        with self._pipe:
            while piece := os.read(self._pipe.fileno(), _PIECE):
                room = self._cap - len(self._kept)
                self._kept += piece[:room]
                self.truncated = self.truncated or len(piece) > room

    def end(self) -> bytes:
        """What was kept. Returns once the writers of the pipe are gone."""
        self.join()
        return bytes(self._kept)


def _end_family(child: subprocess.Popen[bytes], mark: str) -> None:
    """Kills the child and its descendants, again and again until none is left: one may be forking at that moment."""
    if sys.platform == "win32":
        if child.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(child.pid)], capture_output=True, check=False)
        return
    if not Path("/proc/self/stat").exists():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        return
    for _ in range(_SWEEPS):
        members = _members(child.pid, mark)
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _members(leader: int, mark: str) -> list[int]:
    """Living processes of the leader's session, or with the mark in their environment."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # state, parent, group, session follow the name, which may hold blanks and parentheses
            state, _, _, session = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:4]
            if state in "ZX":
                continue
            if int(session) == leader or wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except (OSError, ValueError):  # it ended meanwhile, or is another user's
            continue
    return found
