"""Runs command lines in processes that are forked from one that has imported everything: cheap enough for every command.

    python -P tests/hostile/commands_server.py

One JSON document per line comes in: `argv`, `cwd`, `env` (changes; null removes), `streams` (0, 1, 2 -> `closed`, `broken`, or a
path), `seconds`. One goes out: `code` (None: it never ended), and what no stream shows: exceptions that were internal errors, that
nobody caught, or that were dropped.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any


def child(job: dict[str, Any], report: int) -> None:
    """The command line, as a shell would start it."""

    def tell(what: str, error: BaseException | None) -> None:
        lines = traceback.format_exception(error) if error is not None else []
        os.write(report, json.dumps(f"{what}: {''.join(lines)[-900:]}").encode() + b"\n")

    from onnxsub.cli import main as command_line
    from onnxsub.errors import OnnxsubError

    usual = command_line._failed

    def failed(error: Exception) -> int:
        if not isinstance(error, OnnxsubError | OSError):
            tell("internal error", error)
        return usual(error)

    command_line._failed = failed
    sys.unraisablehook = lambda u: tell("dropped", u.exc_value)
    threading.excepthook = lambda a: tell("in a thread", a.exc_value)
    for name, value in job["env"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.chdir(job["cwd"])
    for number, what in job["streams"].items():
        n = int(number)
        if what == "closed":
            os.close(n)
        elif what == "broken":
            read, write = os.pipe()
            os.dup2(write, n)
            os.close(read)
            os.close(write)
        else:
            opened = os.open(what, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if n and not what.startswith("/dev/") else 0), 0o600)
            os.dup2(opened, n)
            os.close(opened)
    # as the interpreter makes them when it starts
    for name, n in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        closed = job["streams"].get(str(n)) == "closed"
        old = getattr(sys, name)
        mode = "w" if n else "r"
        setattr(sys, name, None if closed else open(n, mode, encoding=old.encoding, errors=old.errors, closefd=False))  # noqa: SIM115
    sys.argv = ["onnxsub", *job["argv"]]
    try:
        from onnxsub.__main__ import main

        main()
    except BaseException as error:
        tell("nobody caught", error)
        os._exit(99)


def main() -> None:
    """Answers until standard input ends."""
    from onnxsub.cli.main import COMMANDS

    commands = [f"onnxsub.cli.{name.replace('-', '_')}" for name in COMMANDS]
    for name in ("onnxruntime", "pyarrow.parquet", "scipy.stats", "torch", *commands):  # not matplotlib, which looks for its cache
        importlib.import_module(name)
    for line in sys.stdin:
        job = json.loads(line)
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(read)
            child(job, write)
        os.close(write)
        deadline = time.monotonic() + job["seconds"]
        ended, status = 0, 0
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        with os.fdopen(read) as told:
            errors = [json.loads(text) for text in told]
        print(json.dumps({"code": os.waitstatus_to_exitcode(status) if ended else None, "errors": errors}), flush=True)


if __name__ == "__main__":
    main()
