"""The engine of a Ray cluster: the same units as Ray tasks, on this machine or on many."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxsub.errors import InputError, MissingDependencyError
from onnxsub.evaluate.plan import Plan
from onnxsub.evaluate.task import Outcome, Task
from onnxsub.files import one_line
from onnxsub.isolation import python_environment, safe_children, source_root
from onnxsub.results import VERSION

__all__ = ["RayCluster"]


@dataclass(frozen=True, eq=False)
class _Flight:
    """A task under way."""

    task: Task
    began: float
    limit: float | None


class _NoFolders(list[str]):
    """The folders of the driver that Ray puts first on the path of its workers, the working folder among them: none."""

    def extend(self, folders: Iterable[str]) -> None:
        """Takes none."""


class RayCluster:
    """Up to `jobs` Ray tasks at a time. A task whose worker or node is lost ends as `died`, so that the ledger counts the tries.

    Args:
        plan: its models travel to the cluster once, as bytes; nodes need no files.
        address: of a running cluster (`HOST:PORT`, `ray://...`, `auto`); None starts a local one with `jobs` processors.

    Raises:
        MissingDependencyError: Ray is not installed. InputError: no cluster there.
    """

    queue = 0

    def __init__(self, jobs: int, plan: Plan[Any], address: str | None) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise MissingDependencyError('--engine ray needs Ray; run pip install "onnxsub[ray]"') from error
        self.jobs = jobs
        self._flights: dict[Any, _Flight] = {}
        self._killed: set[Any] = set()
        self._connect(address, plan.settings.threads)
        self._models = {m.sha256: self._ray.put(m.source.SerializeToString()) for m in plan.loaded}
        # ledger and scheduler count the tries, so Ray makes none of its own
        self._remote = self._ray.remote(max_retries=0)(_work)
        # Ray tells of lost workers on standard output, which belongs to the result
        self._redirect = contextlib.ExitStack()
        self._redirect.enter_context(contextlib.redirect_stdout(sys.stderr))

    def _connect(self, address: str | None, threads: int) -> None:
        env = {"OMP_WAIT_POLICY": "PASSIVE", **python_environment()}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [env["PYTHONPATH"], source_root()]))
        job = self._ray.job_config.JobConfig()
        job._py_driver_sys_path = _NoFolders()
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False, "job_config": job}
        if address is None:
            settings |= {"num_cpus": self.jobs * threads, "include_dashboard": False, "runtime_env": {"env_vars": env}}
        else:
            settings |= {"address": address}
        try:
            with safe_children():
                self._ray.init(**settings)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = f"at {address!r}" if address else "on this machine"
            raise InputError(
                f"no Ray cluster {where}: {one_line(error)}; start one with `ray start --head`, or check --address, and "
                "RAY_AUTH_MODE where the cluster wants a token"
            ) from error

    def submit(self, task: Task, limit: float | None) -> None:
        """Hands a task to the cluster; it waits there for `threads` processors."""
        sent = replace(task, model=b"")  # the bytes come from the cluster's own store
        reference = self._remote.options(num_cpus=task.threads).remote(sent, self._models[task.sha256], VERSION)
        self._flights[reference] = _Flight(task, time.monotonic(), limit)

    def wait(self, seconds: float) -> Sequence[Outcome]:
        """What has ended; tasks over their limit are cancelled by force, which kills their process."""
        now = time.monotonic()
        for reference, flight in self._flights.items():
            if flight.limit is not None and now > flight.began + flight.limit and reference not in self._killed:
                self._killed.add(reference)
                self._ray.cancel(reference, force=True)
        ready, _ = self._ray.wait(list(self._flights), num_returns=1, timeout=seconds)
        return [self._outcome(reference) for reference in ready]

    def close(self) -> None:
        """Cancels what is under way and leaves the cluster; a local one ends."""
        for reference in self._flights:
            with contextlib.suppress(Exception):  # the cluster may be gone already
                self._ray.cancel(reference, force=True)
        self._ray.shutdown()
        self._redirect.close()

    def _outcome(self, reference: Any) -> Outcome:
        flight = self._flights.pop(reference)
        seconds = time.monotonic() - flight.began
        try:
            outcome: Outcome = self._ray.get(reference)
            return outcome
        except self._ray.exceptions.RayError as error:
            if reference in self._killed:
                return Outcome(flight.task.id, "failed", f"killed after {seconds:.0f} s, the hard limit of a unit", seconds=seconds)
            reason = f"its Ray worker was lost: {type(error).__name__}: {one_line(error, 200)}"
            return Outcome(flight.task.id, "died", reason, seconds=seconds)


def _work(task: Task, model: bytes, version: str) -> Outcome:
    """A unit in a Ray worker process."""
    from onnxsub.evaluate.work import work

    os.environ.pop("PYTHONSAFEPATH", None)  # this process has begun; a tool of the user's may want the folder of its own script
    if version != VERSION:
        return Outcome(task.id, "failed", f"a node has onnxsub {VERSION}, the run is of {version}; install that one on all nodes")
    return work(replace(task, model=model))
