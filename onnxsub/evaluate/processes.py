"""The engine of this machine: worker processes, each killed with everything that it started when a unit outlasts its limit."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from onnxsub.evaluate.lock import MARK, end_family
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.evaluate.worker import read_message, write_message
from onnxsub.isolation import python_module, python_path

if TYPE_CHECKING:
    from onnxsub.evaluate.plan import RunSettings

__all__ = ["WORKER", "Processes"]

WORKER = "onnxsub.evaluate.worker"

_START = 60.0
"""Seconds that a new worker may take to begin, in addition to the limit of its first unit."""


class Processes:
    """Up to `jobs` worker processes, started when they are needed.

    Args:
        run_id: name of the run; marks the workers, so that they are found again after a kill.
        module: that a worker runs.
    """

    def __init__(self, jobs: int, run_id: str, module: str = WORKER) -> None:
        self.jobs = jobs
        self._module = module
        self._run_id = run_id
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}
        self._ended: queue.SimpleQueue[tuple[_Worker, Outcome | None]] = queue.SimpleQueue()

    def submit(self, task: Task, limit: float | None) -> None:
        """Hands a task to an idle worker, else to a new one."""
        worker = self._idle.pop() if self._idle else self._new(task.threads)
        self._busy[task.id] = worker
        worker.begin(task, limit)

    def _new(self, threads: int) -> _Worker:
        return _Worker(python_module(self._module), f"{self._run_id}:{secrets.token_hex(4)}", self._ended, threads)

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """What has ended; workers that are over their limit are killed."""
        deadline = time.monotonic() + seconds
        found: list[Outcome] = []
        while not found:
            now = time.monotonic()
            # a kill is noticed like any other end of a worker: by the end of its output
            for worker in self._busy.values():
                if worker.deadline is not None and now >= worker.deadline and not worker.killed:
                    worker.kill()
            next_kill = min((w.deadline for w in self._busy.values() if w.deadline is not None and not w.killed), default=deadline)
            if now >= deadline and self._ended.empty():
                break
            with contextlib.suppress(queue.Empty):
                found += self._settled(*self._ended.get(timeout=max(min(deadline, next_kill) - now, 0.001)))
        while not self._ended.empty():
            found += self._settled(*self._ended.get())
        return found

    def close(self) -> None:
        """Kills the busy workers and lets the idle ones go."""
        for worker in [*self._busy.values(), *self._idle]:
            worker.kill()
        self._busy.clear()
        self._idle.clear()
        end_family(f"{self._run_id}:")  # one that was being started when Ctrl-C came is in no list

    def _settled(self, worker: _Worker, outcome: Outcome | None) -> list[Outcome]:
        task = worker.task
        if outcome is not None and outcome.id in self._busy:
            worker.task = None
            worker.deadline = None
            del self._busy[outcome.id]
            if outcome.state == "died":
                worker.kill()  # what is left of its memory is better given back
            elif not worker.killed:
                self._idle.append(worker)
            return [outcome]
        if task is None or self._busy.get(task.id) is not worker:  # an idle one that was let go
            if worker in self._idle:
                self._idle.remove(worker)
            return []
        del self._busy[task.id]
        seconds = time.monotonic() - worker.began
        if worker.killed:
            return [Outcome(task.id, "failed", f"killed after {seconds:.0f} s, the hard limit of a unit", seconds=seconds)]
        reason = worker.last_words()
        worker.kill()  # what it had started may live on
        return [Outcome(task.id, "died", reason, seconds=seconds)]


class _Worker:
    """One child process and the thread that reads what it says."""

    def __init__(
        self, argv: list[str], mark: str, ended: queue.SimpleQueue[tuple[_Worker, Outcome | None]], threads: int
    ) -> None:
        self.mark = mark
        self.task: Task | None = None
        self.deadline: float | None = None
        self.began = 0.0
        self.killed = False
        self._ended = ended
        self._new = True
        self._settings: RunSettings | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the worker
        # one thread per worker and no spinning: beside busy neighbours anything else is many times slower
        env = {
            **os.environ, MARK: mark, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", **python_path(),
        }  # fmt: skip
        self._child: subprocess.Popen[bytes] = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=env, start_new_session=True,
        )  # fmt: skip
        assert self._child.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._child.stdout,), daemon=True)
        self._reader.start()

    def begin(self, task: Task, limit: float | None) -> None:
        self.task = task
        self.began = time.monotonic()
        self.deadline = None if limit is None else self.began + limit + (_START if self._new else 0.0)
        self._new = False
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, and the end of its output says so
            if task.settings is not self._settings:  # once for all units: a grid's are larger than a unit
                write_message(self._child.stdin, task.settings)
                self._settings = task.settings
            write_message(self._child.stdin, replace(task, settings=None))  # type: ignore[arg-type]  # as the worker expects it

    def _read(self, stream: IO[bytes]) -> None:
        while True:
            outcome: Any = None
            try:
                outcome = read_message(stream)
            except (EOFError, OSError):
                self._child.wait()
            self._ended.put((self, outcome))
            if outcome is None:
                return

    def kill(self) -> None:
        """Ends the process and all that it started."""
        if self.killed:
            return
        self.killed = True
        self._child.kill()
        end_family(self.mark)
        self._child.wait()
        self._reader.join()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def last_words(self) -> str:
        """Why the process ended, as far as can be told."""
        code = self._child.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            why = f"its process was ended by {name}" + (" (out of memory, or killed)" if name == "SIGKILL" else "")
        else:
            why = f"its process ended with exit code {code}"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"{why}: {lines[-1].strip()[:200]}" if lines else why
