"""A child process and its end."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from onnxsub.verifiers.external.process import run_child

PYTHON = sys.executable
posix = pytest.mark.skipif(sys.platform == "win32", reason="processes are made as POSIX has it")


def test_input_output_and_exit_code(tmp_path: Path) -> None:
    code = "import sys, os; print(sys.stdin.read()[::-1], os.getcwd(), os.environ['EXTRA']); sys.stderr.write('oops'); sys.exit(7)"
    done = run_child([PYTHON, "-c", code], cwd=tmp_path, stdin=b"abc", env={"EXTRA": "more"})
    assert done.stdout.decode().split() == ["cba", str(tmp_path.resolve()), "more"]
    assert (done.code, done.last_words, done.timed_out, done.truncated) == (7, "oops", False, False)


def test_much_output_is_cut_off_and_does_not_block(tmp_path: Path) -> None:
    code = "import sys; [sys.stdout.write('x' * 100000) for _ in range(50)]; sys.stderr.write('end')"
    done = run_child([PYTHON, "-c", code], cwd=tmp_path, cap=1000, limit=60)
    assert done.stdout == b"x" * 1000
    assert (done.code, done.truncated, done.stderr) == (0, True, b"end")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        run_child([str(tmp_path / "absent")], cwd=tmp_path)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    # killed but not yet collected by whoever adopted it
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def gone(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


FAMILY = """
import os, subprocess, sys, time
inner = "import time, sys; open(sys.argv[1], 'w').write(str(__import__('os').getpid())); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", inner, "child"])
subprocess.Popen([sys.executable, "-c", inner, "group"], process_group=0)
subprocess.Popen([sys.executable, "-c", inner, "session"], start_new_session=True)
subprocess.Popen(["sh", "-c", "nohup $0 -c \\"$1\\" orphan >/dev/null 2>&1 &", sys.executable, inner])
if os.path.exists("/proc/self/environ"):  # nothing to know it by, and no parent
    scrubbed = "import os, sys; os.setsid(); os.fork() and os._exit(0); os.execve(sys.executable, sys.argv[1:], {})"
    subprocess.Popen([sys.executable, "-c", scrubbed, sys.executable, "-I", "-c", inner, "scrubbed"], env={})
else:
    open("scrubbed", "w").write(open("child").read())
def pids():
    return [open(n).read() if os.path.exists(n) else "" for n in ("child", "group", "session", "orphan", "scrubbed")]
while not all(pids()):
    time.sleep(0.02)
print(*pids(), flush=True)
time.sleep(float(sys.argv[1]))
"""


@posix
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="without /proc only the process group is known")
@pytest.mark.parametrize("ends_by_itself", [False, True])
def test_nothing_that_it_started_is_left(tmp_path: Path, ends_by_itself: bool) -> None:
    """Children in a process group or a session of their own (as `timeout` and `setsid` make them), orphans without a mark."""
    done = run_child([PYTHON, "-c", FAMILY, "0" if ends_by_itself else "600"], cwd=tmp_path, limit=60 if ends_by_itself else 5)
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 5
    assert all(gone(pid) for pid in pids)
    assert done.code == (0 if ends_by_itself else None)
    assert done.timed_out is not ends_by_itself


@posix
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="without /proc only the process group is known")
def test_a_tool_that_kills_its_guardian(tmp_path: Path) -> None:
    """It is still known by its session and its mark."""
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); os.kill(os.getppid(), 9); time.sleep(600)"
    done = run_child([PYTHON, "-c", code], cwd=tmp_path, limit=60)
    assert done.code == -signal.SIGKILL
    assert done.seconds < 50
    assert gone(int((tmp_path / "pid").read_text()))


@posix
@pytest.mark.parametrize(("code", "wanted"), [("import os; os.kill(os.getpid(), 15)", -15), ("raise SystemExit(255)", 255)])
def test_the_exit_code_is_the_tools(tmp_path: Path, code: str, wanted: int) -> None:
    done = run_child([PYTHON, "-c", code], cwd=tmp_path, limit=60, env={"ODD": "a\nb\udcff", "": ""})
    assert done.code == wanted


@posix
def test_a_limit_that_is_over_already(tmp_path: Path) -> None:
    done = run_child([PYTHON, "-c", "import time; time.sleep(600)"], cwd=tmp_path, limit=-1.0)
    assert done.timed_out


@posix
def test_control_c_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    started: list[int] = []
    wait = subprocess.Popen.wait

    def interrupted(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if not started:
            started.append(self.pid)
            raise KeyboardInterrupt
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_child([PYTHON, "-c", "import time; time.sleep(600)"], cwd=tmp_path)
    assert gone(started[0])
