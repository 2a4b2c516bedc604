"""A child process with a hard end: at its time limit it is killed with everything that it started."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import signal
import socket
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
    word = f"{_MARK}={secrets.token_hex(16)}."
    began = time.perf_counter()
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        start = _Direct if sys.platform == "win32" or not sys.executable else _Guarded
        tool = start(list(command), source, str(cwd.absolute()), {**os.environ, **(env or {}), _MARK: word.partition("=")[2]})
    readers = [_Reader(pipe, cap) for pipe in (tool.process.stdout, tool.process.stderr) if pipe is not None]
    code: int | None = None
    try:
        code = tool.wait(None if limit is None else max(limit, 0.0))
    finally:
        # also after a good end: a helper that is still there would hold the pipes and the processor
        tool.end(word)
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


class _Guarded:
    """A tool under a guardian of its own (`onnxsub/family.py`), which outlives this process, whatever ends it."""

    def __init__(self, command: list[str], stdin: IO[bytes], cwd: str, env: Mapping[str, str]) -> None:
        self._ours, theirs = socket.socketpair()
        self.leader = 0
        # the environment is empty: nobody who looks for a mark finds the guardian before it has ended the tool
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", family.__file__, str(theirs.fileno())], stdin=stdin, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, cwd="/", env={}, start_new_session=True, pass_fds=(theirs.fileno(),),
            )  # fmt: skip
        try:
            with contextlib.suppress(OSError):  # it is gone, which its silence says
                self._ours.sendall(json.dumps({"args": command, "cwd": cwd, "env": dict(env)}).encode() + b"\n")
            self._words = self._ours.makefile("r")
            number, _, leader = (self._words.readline() or f"{errno.ECHILD} 0").partition(" ")
            self.leader = int(leader)
            if int(number):
                raise OSError(int(number), os.strerror(int(number)), command[0])
        except BaseException:
            self.end("")
            self._close_pipes()
            raise

    def wait(self, seconds: float | None) -> int | None:
        """The exit code; None: it has not ended by then."""
        try:
            own = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        said = self._words.readline()
        return int(said) if said else own or -signal.SIGKILL  # the guardian itself was killed

    def end(self, word: str) -> None:
        """Nothing that the tool started is left; those that killed their guardian are known by the word."""
        self._ours.shutdown(socket.SHUT_RDWR)
        try:
            self.process.wait(_LAST)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._ours.close()
        if word:
            family.end_family(word, (self.leader,))

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class _Direct:
    """A tool without one, where there are no such things as descriptors that are passed on."""

    def __init__(self, command: list[str], stdin: IO[bytes], cwd: str, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd, env=dict(env)
        )

    def wait(self, seconds: float | None) -> int | None:
        """The exit code; None: it has not ended by then."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def end(self, word: str) -> None:
        """Kills it and its descendants."""
        if self.process.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(self.process.pid)], capture_output=True, check=False)
        self.process.wait()
