"""A child process with a hard end: at its time limit it is killed with everything that it started."""

from __future__ import annotations

import atexit
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

from onnxsub import family

__all__ = ["Finished", "run_child"]

_CAP = 64 * 2**20
_PIECE = 2**16
_LAST = 5.0
"""Seconds for what has been told to end."""
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
    """Runs a command to its end or to its limit. No process that it started is left behind, also where this one is killed.

    Args:
        cwd: folder that it runs in.
        stdin: what it reads.
        limit: seconds; None for none.
        env: variables beside those of this process.
        cap: bytes of each stream that are kept; what comes after them is read and dropped, so that the child does not block.

    Raises:
        OSError: it cannot be started.
    """
    mark = _Guardian.mark()
    (word,) = ("=".join(pair) for pair in mark.items())
    _Guardian.start()
    began = time.perf_counter()
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        child = subprocess.Popen(
            list(command), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
            env={**os.environ, **(env or {}), **mark}, start_new_session=True,
        )  # fmt: skip
        _Guardian.told("+", child.pid)
    assert child.stdout is not None
    assert child.stderr is not None
    readers = [_Reader(child.stdout, cap), _Reader(child.stderr, cap)]
    code: int | None = None
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.wait(None if limit is None else max(limit, 0.0))
    finally:
        # also after a good end: a helper that is still there would hold the pipes and the processor
        _end_family(child, word)
        child.wait()
        _Guardian.told("-", child.pid)
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
        """What was kept. The writers of the pipe are gone; one that could not be killed is not waited for."""
        self.join(_LAST)
        return bytes(self._kept)


class _Guardian:
    """A process that outlives this one, whatever ends it, and then ends the tools that it was running."""

    word = f"{_MARK}={secrets.token_hex(16)}"
    owner = 0
    stdin: IO[bytes] | None = None

    @classmethod
    def mark(cls) -> dict[str, str]:
        """The variable that a child is known by."""
        name, _, token = cls.word.partition("=")
        return {name: f"{token}.{secrets.token_hex(8)}."}

    @classmethod
    def start(cls) -> None:
        """Starts it, once."""
        if sys.platform == "win32" or not sys.executable or cls.owner == os.getpid():
            return
        cls.owner = os.getpid()  # after a fork every process has its own
        with contextlib.suppress(OSError):
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", family.__file__, cls.word], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, cwd="/", env={}, start_new_session=True,
            )  # fmt: skip
            cls.stdin = child.stdin
            atexit.register(cls.leave, child)

    @classmethod
    def told(cls, sign: str, leader: int) -> None:
        """`+`: the session of this child belongs to us from now on; `-`: no longer."""
        with contextlib.suppress(OSError, ValueError):
            if cls.stdin is not None:
                cls.stdin.write(f"{sign}{leader}\n".encode())
                cls.stdin.flush()

    @classmethod
    def leave(cls, child: subprocess.Popen[bytes]) -> None:
        """Lets it end."""
        if cls.owner != os.getpid() or cls.stdin is None:
            return
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            cls.stdin.close()
            child.wait(_LAST)


def _end_family(child: subprocess.Popen[bytes], word: str) -> None:
    """Kills the child and its descendants."""
    if sys.platform == "win32":
        if child.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(child.pid)], capture_output=True, check=False)
    elif Path("/proc/self/environ").exists():
        family.end_family(word, (child.pid,))
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
