"""The same units on a local Ray with several processes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onnxsub.cli.main import run as run_cli
from onnxsub.evaluate.ledger import Ledger
from onnxsub.evaluate.run import LEDGER
from tests.evaluate_tools import ROOT, UNITS, begun, command, facts, make_files, start

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='Ray is not installed: pip install "onnxsub[ray]"')
RAY = ("--engine", "ray", "--jobs", "2", "--json")


def test_ray_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    model, data = make_files(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_cli([*command(model, data, tmp_path / "run")[3:], "--engine", "ray"]) == 4
    out, err = capfd.readouterr()
    assert out == ""
    assert err == 'onnxsub: --engine ray needs Ray; run pip install "onnxsub[ray]"\n'


@needs_ray
def test_the_cluster_file_is_as_ray_wants_it() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with Ray")
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with Ray")
    autoscaler = pytest.importorskip("ray.autoscaler", reason="Ray has moved its schema")
    schema = json.loads((Path(autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = yaml.safe_load((ROOT / "docs" / "cluster.yaml").read_text())
    jsonschema.validate(config, schema)
    assert {config["head_node_type"], "worker"} == set(config["available_node_types"])
    with pytest.raises(jsonschema.ValidationError, match="cluster_nam"):
        jsonschema.validate({**config, "cluster_nam": config["cluster_name"]}, schema)


def workers(driver: int) -> list[int]:
    """Ray's worker processes that descend from a process and have begun a task."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue

    def descends(pid: int) -> bool:
        while pid > 1:
            if pid == driver:
                return True
            pid = parents.get(pid, 0)
        return False

    return [pid for pid in parents if pid != driver and names.get(pid, "").startswith("ray::_work") and descends(pid)]


@needs_ray
@pytest.mark.slow
def test_two_ray_workers_and_one_of_them_killed(tmp_path: Path) -> None:
    model, data = make_files(tmp_path)
    local, calm, disturbed = (tmp_path / name for name in ("local", "calm", "disturbed"))
    subprocess.run(command(model, data, local), check=True, capture_output=True, cwd=Path(__file__).parents[1])
    with start([*command(model, data, calm), *RAY]) as process:
        out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert json.loads(out)["units"]["done"] == UNITS
    assert facts(calm) == facts(local)

    killed: list[int] = []
    deaths = 0
    with start([*command(model, data, disturbed), *RAY]) as process:
        # a worker may have ended its task the moment before, so it is tried until a task was lost
        while process.poll() is None and not deaths:
            time.sleep(0.01)
            if not begun(disturbed):
                continue
            with Ledger(disturbed / LEDGER, readonly=True) as ledger:
                under_way = ledger.counts()["done"] > UNITS // 4
                deaths = sum(u.deaths for u in ledger.units())
            if under_way and not deaths and len(killed) < 5:
                for pid in workers(process.pid)[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    time.sleep(0.5)
        out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert killed
    assert json.loads(out)["units"] == {"pending": 0, "running": 0, "done": UNITS, "failed": 0}
    assert facts(disturbed) == facts(local)
    with Ledger(disturbed / LEDGER, readonly=True) as ledger:
        assert sum(u.deaths for u in ledger.units()) >= 1
