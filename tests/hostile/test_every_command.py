"""Every command: streams closed, broken or full, in a bare locale, where nothing can be written, onto its own input."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate_tools import ROOT

COMMANDS: dict[str, Any] = runpy.run_path(str(ROOT / ".ci" / "commands.py"))
EVERY: list[str] = COMMANDS["EVERY"]
LONG = ("demo", "study", "zoo", "gate", "adversarial", "importance", "evaluate", "distance")
SHORT = [line for line in EVERY if not line.startswith(LONG) and "--metric" not in line and "report grid" not in line]
"""What the quick part runs."""
BARE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NOWHERE = {"HOME": "/proc/none", "MPLCONFIGDIR": "/proc/none", "XDG_CONFIG_HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none"}
CONDITIONS: dict[str, tuple[dict[str, str], set[int]]] = {
    "stdout closed": ({"1": "closed"}, {0, 1, 3}),
    "stderr closed": ({"2": "closed"}, {0, 1, 3}),
    "all closed": ({"0": "closed", "1": "closed", "2": "closed"}, {0, 1, 3}),
    "no reader": ({"1": "broken"}, {141}),
    "no reader of messages": ({"2": "broken"}, {0, 1, 3}),
    "a full disk": ({"1": "/dev/full"}, {4}),
    "messages to a full disk": ({"2": "/dev/full"}, {0, 1, 3}),
}
"""Streams, and the exit codes that are right for a command that could do its work."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="streams and folders are made as Linux has them")


class Server:
    """The process that forks them, in a bare locale."""

    seconds = 60.0
    """That a command may take."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        env = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"}
        words = [sys.executable, "-P", str(Path(__file__).with_name("commands_server.py"))]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder,
            env={**env, **BARE, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        )  # fmt: skip

    def __call__(
        self, argv: list[str], cwd: Path, streams: dict[str, str] | None = None, env: dict[str, str] | None = None
    ) -> tuple[int | None, str, str]:
        """Exit code, standard output and error of one command line; fails where an error was an internal one."""
        out, err = self._folder / "out", self._folder / "err"
        job = {
            "argv": argv, "cwd": str(cwd), "env": env or {}, "seconds": self.seconds,
            "streams": {"0": "/dev/null", "1": str(out), "2": str(err), **(streams or {})},
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        said = [path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in (out, err)]
        for path in (out, err):
            path.unlink(missing_ok=True)
        assert answer["errors"] == [], (argv, streams)
        assert answer["code"] is not None, f"{argv} with {streams} never ended"
        assert not any("internal error" in text or "Traceback" in text for text in said), (argv, said)
        return answer["code"], said[0], said[1]

    def close(self) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


def prepared(folder: Path) -> Path:
    """A folder with the networks, and the images of `zoo train`."""
    shutil.copytree(ROOT / "models", folder / "models")
    subprocess.run([sys.executable, "-c", COMMANDS["IMAGES"]], cwd=folder, check=True)
    return folder


def test_each_command_once(server: Server, tmp_path: Path) -> None:
    """The quick ones, in turns with all conditions; nothing can be written at home."""
    folder = prepared(tmp_path)
    assert len(SHORT) > 10
    for i, line in enumerate(SHORT):
        name = list(CONDITIONS)[i % len(CONDITIONS)]
        streams, right = CONDITIONS[name]
        code, _, err = server(shlex.split(line), folder, streams, NOWHERE)
        assert code in right, f"{line} with {name}: {code}, {err}"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CONDITIONS))
def test_every_command(server: Server, tmp_path: Path, name: str) -> None:
    folder = prepared(tmp_path)
    streams, right = CONDITIONS[name]
    silent = 0
    for line in EVERY:
        code, _, err = server(shlex.split(line), folder, streams, NOWHERE)
        if "1" in streams and code == 0 and code not in right:
            # a result that went into a file: nothing is written to standard output, so nothing is wrong with it
            code, out, err = server(shlex.split(line), folder, None, NOWHERE)
            assert (code, out) == (0, ""), f"{line} with {name}: {err}"
            silent += 1
            continue
        assert code in right, f"{line} with {name}: {code}, {err}"
    assert silent < len(EVERY) / 3


def heads() -> list[list[str]]:
    """Every command without its arguments."""
    found = [words[:2] if words[0] in ("zoo", "study") else words[:1] for words in map(shlex.split, EVERY)]
    return [list(head) for head in dict.fromkeys(map(tuple, found))]


def test_wrong_usage_and_help(server: Server, tmp_path: Path) -> None:
    """The way out of every command."""
    assert len(heads()) > 20
    names = ("all closed", "no reader", "a full disk", "stderr closed")
    for i, head in enumerate(heads()):
        streams, right = CONDITIONS[names[i % 3]]
        code, _, err = server([*head, "--help"], tmp_path, streams, NOWHERE)
        assert code in right & {0, 4, 141}, f"{head} --help with {names[i % 3]}: {code}, {err}"
        code, out, err = server([*head, "--no-such-option"], tmp_path, CONDITIONS[names[i % 4]][0], NOWHERE)
        assert code == 2, f"{head} with {names[i % 4]}"
        assert out == ""
        code, out, err = server([*head, "--no-such-option", "\udcff\u202e\x1b[2J"], tmp_path, None, NOWHERE)
        assert (code, out) == (2, "")
        assert "\x1b" not in err


@pytest.mark.parametrize("lines", [pytest.param(EVERY, marks=pytest.mark.slow), SHORT], ids=["all", "short"])
def test_a_working_folder_that_cannot_be_written(server: Server, tmp_path: Path, lines: list[str]) -> None:
    """Results of their own name go into the working folder; nothing else needs it."""
    folder = prepared(tmp_path)
    wrote = {}
    for line in lines:
        words = [str(folder / w) if (folder / w).exists() and ("/" in w or "." in w) else w for w in shlex.split(line)]
        code, _, err = server(words, Path("/proc"), None, NOWHERE)
        wrote[line] = code
        assert code in (0, 1, 2, 3, 4), line
        if code in (2, 4):
            assert len([text for text in err.splitlines() if text.startswith("onnxsub: ")]) == 1, err
    assert wrote["info models/digits.onnx"] == 0
    assert {code for line, code in wrote.items() if " -o " in line} == {4}


@pytest.mark.parametrize("lines", [pytest.param(EVERY, marks=pytest.mark.slow), SHORT], ids=["all", "short"])
def test_outputs_that_are_inputs_pipes_or_devices(server: Server, tmp_path: Path, lines: list[str]) -> None:
    """Nothing is replaced, nothing is waited for."""
    folder = prepared(tmp_path)
    os.mkfifo(folder / "fifo")
    devices = []
    try:
        os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        devices = ["device"]
    except PermissionError:
        pass
    tried = 0
    for line in lines:
        words = shlex.split(line)
        if "-o" not in words:
            continue
        at = words.index("-o") + 1
        inputs = [w for i, w in enumerate(words) if i != at and (folder / w).is_file()]
        before = {name: (folder / name).read_bytes() for name in inputs}
        for target in [*inputs, "fifo", *devices]:
            ending = Path(words[at]).suffix
            named = target
            if target in ("fifo", *devices) and ending:  # some commands know what to write by the ending
                named = f"{target}{ending}"
                if not (folder / named).exists():
                    (folder / named).symlink_to(folder / target)
            code, _, err = server([*words[:at], named, *words[at + 1 :]], folder, None, NOWHERE)
            assert code in (2, 4), f"{line} -o {target}: {code}"
            assert "onnxsub: " in err
            assert {name: (folder / name).read_bytes() for name in inputs} == before, f"{line} -o {target}"
            assert stat.S_ISFIFO((folder / "fifo").stat().st_mode)
            assert not devices or stat.S_ISCHR((folder / "device").stat().st_mode)
            tried += 1
    assert tried >= (20 if lines is EVERY else 6)


def options_with_files() -> list[tuple[str, str]]:
    """A command line of each command, and each of its options that takes a file or a folder."""
    import click

    from onnxsub.cli.main import cli

    context = cli.make_context("onnxsub", ["info"], resilient_parsing=True)
    found = []
    for head in heads():
        command = cli.get_command(context, head[0])
        if len(head) > 1:
            assert isinstance(command, click.Group)
            command = command.get_command(context, head[1])
        assert command is not None
        line = next(line for line in EVERY if shlex.split(line)[: len(head)] == head)
        for option in command.params:
            about = str(getattr(option, "metavar", "") or "")
            if isinstance(option, click.Option) and any(word in about for word in ("FILE", "DIR", "RUN", "FOLDER")):
                found.append((line, option.opts[0]))
    return found


PIPES = {"--config": "toml", "--grid": "toml", "--reference": "csv", "--classes": "json", "--scores": "json", "-o": "onnx"}
"""The ending that an option takes; others take an array."""


@pytest.mark.parametrize("every", [pytest.param(True, marks=pytest.mark.slow), False], ids=["all", "short"])
def test_pipes_as_every_file(server: Server, tmp_path: Path, every: bool) -> None:
    """No option waits for a pipe that nobody writes into, and brackets without an end are no error of ours."""
    shutil.copytree(ROOT / "models", tmp_path / "models")
    for ending in ("npy", "toml", "json", "csv", "onnx"):
        os.mkfifo(tmp_path / f"fifo.{ending}")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "deep.toml").write_text("x = " + "[" * 100_000)
    options = options_with_files()
    assert len(options) > 60
    if not every:  # each name once
        options = [(line, name) for name, line in dict(reversed([(name, line) for line, name in options])).items()]
    server.seconds = 30
    for i, (line, option) in enumerate(options):
        words = shlex.split(line)
        at = words.index(option) + 1 if option in words else len(words) + 1
        names = [f"fifo.{PIPES.get(option, 'npy')}", ("deep.json", "deep.toml")[i % 2 if option != "--config" else 1]]
        for name in names if every or option in ("--config", "--classes") else names[:1]:
            given = [*words[: at - 1], option, name, *words[at + 1 :]]
            code, _, err = server(given, tmp_path, None, NOWHERE)
            assert code in (0, 1, 2, 3, 4), f"{given}: {code}"
            assert code in (0, 1, 3) or err.count("onnxsub: ") == 1, err
    server.seconds = 60
