"""The engine of this machine: worker processes, each killed with everything that it started when a unit outlasts its limit.

A worker is handed a message of units, the next one when it has nothing left to do. It answers each as it ends, so that it is known
which one was under way when a worker is lost; what it has not begun after a twentieth of a second it gives back.
"""

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
from collections import deque
from collections.abc import Sequence
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

_AT_ONCE = 32
"""Units of a message, so that one more can wait here: a worker gets it before the outcomes of the last one are booked."""

_KEEP = 0.05
"""Seconds that outcomes may be kept until the worker has nothing left to do: one commit for many of them."""


class Processes:
    """Up to `jobs` worker processes, started when they are needed.

    Args:
        run_id: name of the run; marks the workers, so that they are found again after a kill.
        module: that a worker runs.

    Attributes:
        queue: units that may wait for each of them, beside the one that it does.
    """

    queue = 2 * _AT_ONCE - 1

    def __init__(self, jobs: int, run_id: str, module: str = WORKER) -> None:
        self.jobs = jobs
        self._module = module
        self._run_id = run_id
        self._workers: list[_Worker] = []
        self._waiting: deque[_Handed] = deque()
        self._ended: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    @property
    def pids(self) -> list[int]:
        """The workers."""
        return [worker.pid for worker in self._workers]

    def submit(self, task: Task, limit: float | None) -> None:
        """Notes a task, which `wait` hands out."""
        self._waiting.append((task, limit))

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """What has ended; workers that are over their limit are killed."""
        deadline = time.monotonic() + seconds
        found: list[Outcome] = []
        while not found:
            self._hand_out()
            now = time.monotonic()
            # a kill is noticed like any other end of a worker: by the end of its output
            for worker in self._workers:
                worker.kill_over(now)
            if now >= deadline and self._ended.empty():
                for worker in list(self._workers):  # what was kept
                    found += self._collected(worker)
                break
            next_kill = min((w.deadline for w in self._workers if w.deadline is not None), default=deadline)
            with contextlib.suppress(queue.Empty):
                found += self._collected(self._ended.get(timeout=max(min(deadline, next_kill) - now, 0.001)))
        while not self._ended.empty():
            found += self._collected(self._ended.get())
        self._hand_out()
        return found

    def close(self) -> None:
        """Kills the busy workers and lets the idle ones go."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        self._waiting.clear()
        end_family(f"{self._run_id}:")  # one that was being started when Ctrl-C came is in no list

    def _hand_out(self) -> None:
        """Shares what is waiting out over the idle workers, and over new ones where there may be more."""
        if not self._waiting:
            return
        idle = [worker for worker in self._workers if worker.idle]
        while len(idle) < len(self._waiting) and len(self._workers) < self.jobs:
            mark = f"{self._run_id}:{secrets.token_hex(4)}"
            idle.append(_Worker(python_module(self._module), mark, self._ended, self._waiting[len(idle)][0].threads))
            self._workers.append(idle[-1])
        for left in range(len(idle), 0, -1):
            share = min(-(-len(self._waiting) // left), _AT_ONCE)
            if share:
                idle[left - 1].begin([self._waiting.popleft() for _ in range(share)])

    def _collected(self, worker: _Worker) -> list[Outcome]:
        """The outcomes of a worker since they were last collected; what it gives back waits again."""
        found, back, gone = worker.collect()
        if found and found[-1].state == "died":
            worker.kill()  # what is left of its memory is better given back
            more, back, gone = worker.collect()
            found += more
        if gone:
            if worker in self._workers:
                self._workers.remove(worker)
            if back and (lost := worker.blamed(back[0])) is not None:
                found.append(lost)
                back = back[1:]
            worker.kill()  # what it had started may live on
        self._waiting.extendleft(reversed(back))
        return found


_Handed = tuple[Task, float | None]  # and its limit in seconds


class _Worker:
    """One child process and the thread that reads what it says."""

    def __init__(self, argv: list[str], mark: str, ended: queue.SimpleQueue[_Worker], threads: int) -> None:
        self.mark = mark
        self._ended = ended
        self._lock = threading.Lock()
        self._handed: deque[_Handed] = deque()  # the first one is under way
        self._outcomes: list[Outcome] = []
        self._back: list[_Handed] = []
        self._began = 0.0  # of the unit that is under way
        self._kept = 0.0  # since when the first outcome is
        self._gone = False
        self._victim: int | None = None
        self._killed = False
        self._start = _START
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

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do and can be handed something: it reads, so that no message waits in its pipe."""
        return not (self._handed or self._gone or self._killed)

    @property
    def deadline(self) -> float | None:
        """When the unit that is under way is over its limit; None: never."""
        with self._lock:
            if self._killed or not self._handed or self._handed[0][1] is None:
                return None
            return self._began + self._handed[0][1] + self._start

    def begin(self, handed: list[_Handed]) -> None:
        """Hands the worker, which is idle, some units."""
        with self._lock:
            self._handed.extend(handed)
            self._began = time.monotonic()
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, and the end of its output says so
            settings = handed[0][0].settings
            if settings is not self._settings:  # once for all units: a grid's are larger than a unit
                write_message(self._child.stdin, settings)
                self._settings = settings
            write_message(self._child.stdin, [task.bearing(None) for task, _ in handed])

    def _read(self, stream: IO[bytes]) -> None:
        while True:
            message: Any = None
            try:
                message = read_message(stream)
            except (EOFError, OSError):
                self._child.wait()
            with self._lock:
                tell = self._note(message)
            if tell:
                self._ended.put(self)
            if message is None:
                return

    def _note(self, message: Outcome | int | None) -> bool:
        """What the worker said: an outcome, how many units it gives back, or nothing more; whether that is to be told now."""
        if message is None:
            self._gone = True
            return True
        if isinstance(message, int):
            self._back += [self._handed.popleft() for _ in range(message)]
            return True
        self._handed.popleft()
        self._start, self._began = 0.0, time.monotonic()
        self._kept = self._kept if self._outcomes else self._began
        self._outcomes.append(message)
        return not self._handed or message.state == "died" or self._began - self._kept >= _KEEP

    def collect(self) -> tuple[list[Outcome], list[_Handed], bool]:
        """The outcomes, the units that were given back, and whether the process is gone: then all that it had are given back."""
        with self._lock:
            found, back = self._outcomes, self._back
            self._outcomes, self._back = [], []
            if self._gone:
                back += self._handed
                self._handed.clear()
            return found, back, self._gone

    def kill_over(self, now: float) -> None:
        """Kills the worker where the unit that is under way is over its limit."""
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        with self._lock:
            self._victim = self._handed[0][0].id if self._handed else None
        self.kill()

    def kill(self) -> None:
        """Ends the process and all that it started."""
        if self._killed:
            return
        self._killed = True
        self._child.kill()
        end_family(self.mark)
        self._child.wait()
        self._reader.join()
        for stream in (self._child.stdin, self._child.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def blamed(self, handed: _Handed) -> Outcome | None:
        """The outcome of the unit that was under way when the process ended; None: that was not its doing."""
        seconds, unit = time.monotonic() - self._began, handed[0].id
        if not self._killed:
            return Outcome(unit, "died", self._last_words(), seconds=seconds)
        if self._victim == unit:
            return Outcome(unit, "failed", f"killed after {seconds:.0f} s, the hard limit of a unit", seconds=seconds)
        return None

    def _last_words(self) -> str:
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
