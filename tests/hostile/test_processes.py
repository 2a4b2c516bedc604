"""What is left when this process is killed: no tool that it had started, no temporary folder after the next start, no half file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from onnxsub import scratch as scratches
from onnxsub.evaluate.lock import MARK
from onnxsub.evaluate.processes import Processes
from onnxsub.files import write_atomic
from onnxsub.scratch import part_name, scratch, sweep_parts
from tests.evaluate_tools import ROOT
from tests.verifiers.test_external_process import FAMILY, gone

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are known by /proc only")

ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def run(code: str, *arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=cwd, env=ENV, stdout=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_tools_end_with_the_process_that_started_them(tmp_path: Path, number: signal.Signals) -> None:
    """Also those in a session of their own, and where nothing can be done any more before the end."""
    code = (
        "import sys; from pathlib import Path; from onnxsub.verifiers.external.process import run_child\n"
        f"run_child([sys.executable, '-c', {FAMILY!r}, '600'], cwd=Path('.'))"
    )
    with run(code, cwd=tmp_path) as process:
        names = [tmp_path / name for name in ("child", "group", "session", "orphan", "scrubbed")]
        for _ in range(1500):
            if all(name.exists() and name.read_text() for name in names):
                break
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(10)
    assert all(gone(int(name.read_text())) for name in names)


def test_the_pool_of_adversarial_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import multiprocessing as m, os, time; from concurrent.futures import ProcessPoolExecutor\n"
        "from onnxsub.metrics.adversarial_pairs import _begin_worker\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, m.get_context('spawn'), initializer=_begin_worker)\n"
        "    print(pool.submit(os.getpid).result(), flush=True); time.sleep(600)"
    )
    (tmp_path / "pool.py").write_text(code)
    with subprocess.Popen([sys.executable, "pool.py"], cwd=tmp_path, env=ENV, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.kill()
    assert gone(worker)


def test_a_worker_that_is_in_no_list_ends_with_the_others() -> None:
    """Ctrl-C came between its start and the line that notes it."""
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    envs = [{**ENV, MARK: mark} for mark in ("some-run:1", "some-run2:1")]
    with subprocess.Popen(words, env=envs[0]) as worker, subprocess.Popen(words, env=envs[1]) as other:
        try:
            Processes(1, "some-run").close()
            assert worker.wait(10) == -signal.SIGKILL
            assert other.poll() is None
        finally:
            worker.kill()
            other.kill()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]; from pathlib import Path\n"
        "from onnxsub.files import atomic; from onnxsub.scratch import scratch\n"
        "with scratch() as folder, atomic('out.bin') as file:\n"
        "    (folder / 'model.onnx').write_bytes(b'x'); file.write(b'half'); file.flush()\n"
        "    print('ready', flush=True); sys.stdin.read()"
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        left = sorted(path.name for path in tmp_path.iterdir())
        assert len(left) == 2
        scratches._sweep.cache_clear()
        write_atomic(tmp_path / "own.bin", b"whole")  # the other one lives: its files are not touched
        with scratch():
            assert {path.name for path in tmp_path.iterdir()} >= set(left)
        other.kill()
    scratches._sweep.cache_clear()
    write_atomic(tmp_path / "own.bin", b"whole")
    with scratch():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["own.bin"]


def test_names_of_others_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = scratches._machine()
    names = [
        f".onnxsub-{machine}-1-gone-0.txt", ".onnxsub-00000000-999999-5-0.part", ".onnxsub-x.part", f"onnxsub-{machine}-999999-5-0",
        part_name(), "a.part",
    ]  # fmt: skip
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / "target").mkdir()
    (tmp_path / f".onnxsub-{machine}-999999-6-0.part").symlink_to(tmp_path / "target")
    sweep_parts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {*names, "target"}
    day = time.time() - 2 * 86400
    os.utime(tmp_path / names[1], (day, day))
    scratches._sweep.cache_clear()
    sweep_parts(tmp_path)
    assert not (tmp_path / names[1]).exists()  # another machine's, and nobody writes for a day
