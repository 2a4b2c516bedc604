"""The commands of the README, and one of every command that has `--json`, in an environment that a user has: exit code 0, and with
`--json` standard output is one document.

    python .ci/commands.py BIN [--readme]

BIN holds the programs of that environment. `--readme`: the README's commands alone, and without `--json`. Everything happens in a
folder of its own that holds a copy of `models/`.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SEVEN = "models/digits.onnx --x0 models/digits_seven.npy"
TEN = "models/digits.onnx --data models/digits_anchors.npz"

EVERY = [
    "demo -o demo",
    "info models/digits.onnx",
    f"attack {SEVEN}",
    f"bounds {SEVEN} --eps 0.05",
    f"prune {SEVEN} -o seven.onnx",
    f"distance {SEVEN} --via lin:0.99",
    f"verify {SEVEN} --eps 0.05",
    # the program of the default solver itself, which branch and bound may do without
    f"verify {SEVEN} --eps 0.05 --verifier milp",
    f"export-property {SEVEN} --eps 0.05",
    f"export-property {SEVEN} --eps 0.01 -o ball.vnnlib",
    "verify models/digits.onnx ball.vnnlib",
    f"compare models/digits.onnx seven.onnx {SEVEN.partition(' ')[2]} --eps 0.05",
    f"evaluate {TEN} --array x --labels y --limit 1 --timeout 10 --run study",
    f"robustness {TEN} --eps 0.05 --limit 2 --run share",
    f"gate {TEN} --baseline models/digits.onnx --eps 0.05 --limit 2",
    f"adversarial {TEN} --array x --labels y --eps 0.05 --limit 1 --targets runner-up --timeout 10",
    f"importance {TEN} --array x --labels y --images 1 --binaries relaxed --gap 0.5 -o scored.onnx",
    "compress models/digits.onnx --by magnitude --share 0.2 -o smaller.onnx",
    f"robustness {TEN} --eps 0.02,0.05 --metric security,accuracy --draws 20 --limit 2 --run grid",
    "report share",
    "report grid --group depth,sparsity -o groups",
    "demo2d -o plane --methods lin --gammas 0.9",
    "zoo list models",
    "zoo train C --dataset tens --data images.npz --epochs 1 -o tens.onnx",
    "study regimes --dataset tens --data images.npz --regimes sr --decided sr --epochs 1 --images 1 --attacked 5 --run regimes",
    "study importance --data images.npz --architecture mlp:4x2 --epochs 1 --threshold 2 --scored 1 --retrained 1 --draws 1 "
    "--images 1 --timeout 5 --run importance",
    f"robustness {TEN} --eps 0.9 --limit 3 --metric pointwise --distances lbfgs --run points",
    "zoo finetune models/digits.onnx --examples points --data small.npz --epochs 1 -o tuned.onnx",
    "study finetune --data images.npz --architecture mlp:4 --epochs 9 --sources lbfgs --measures lbfgs --anchors 10 --images 2 "
    "--tuned 1 --run tuning",
    "zoo export tens.pt -o again.onnx",
    "zoo prune tens.pt --dataset tens --data images.npz --share 0.5 --epochs 1 -o pruned.onnx",
    "zoo bayes mlp:4 --data images.npz --warm-up 2 --steps 2 --samples 4 --chains 1 --members 2 --run chains -o bayes.onnx",
]
"""A command line of each kind, in an order in which later ones read what earlier ones wrote. All of them take `--json`."""

IMAGES = "import numpy as np; n = np.arange(40) % 10; x = np.tile(n[:, None, None] / 10, (1, 28, 28)).astype('f4'); \
np.savez('images.npz', x_train=x, y_train=n, x_test=x, y_test=n); np.savez('small.npz', x_train=x[:, :8, :8], y_train=n)"
"""Forty plain images, for `zoo train`."""


def main() -> int:
    """Runs the commands; 1 if one of them failed, or if the list lacks a command."""
    programs = Path(sys.argv[1]).absolute()
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    readme = [line.removeprefix("onnxsub ") for block in blocks for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE)]
    assert len(readme) > 4, "the README has no commands"
    runs = [(line, False) for line in readme]
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        if "--readme" not in sys.argv:
            faults = [f"no command line for {name}" for name in sorted(_commands(programs, folder) - _named())]
            runs += [(line, True) for line in EVERY]
        shutil.copytree(ROOT / "models", Path(folder) / "models")
        subprocess.run([programs / "python", "-c", IMAGES], cwd=folder, check=True)
        for line, as_json in runs:
            words = [programs / "onnxsub", *shlex.split(line), *(["--json"] if as_json else [])]
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
            wrong = _wrong(done, json_wanted=as_json)
            print(f"{'FAILED' if wrong else 'ok':7}onnxsub {line}{' --json' if as_json else ''}{wrong}", flush=True)
            faults += [line] if wrong else []
    print("\n".join(faults) or "all commands are as they should be")
    return 1 if faults else 0


def _commands(programs: Path, folder: str) -> set[str]:
    """Every command and subcommand that takes `--json`, as the installed program lists them."""
    code = (
        "import json\n"
        "from onnxsub.cli.main import COMMANDS, cli\n"
        "context = cli.make_context('onnxsub', ['info'], resilient_parsing=True)\n"
        "found = []\n"
        "for name in COMMANDS:\n"
        "    command = cli.get_command(context, name)\n"
        "    for inner, one in getattr(command, 'commands', {'': command}).items():\n"
        "        if any('--json' in p.opts for p in one.params):\n"
        "            found.append(f'{name} {inner}'.strip())\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run([programs / "python", "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def _named() -> set[str]:
    """The commands of `EVERY`; of `zoo` its subcommands."""
    words = [line.split() for line in EVERY]
    return {" ".join(w[:2]) if w[0] == "zoo" else w[0] for w in words}


def _wrong(done: subprocess.CompletedProcess[str], *, json_wanted: bool) -> str:
    if done.returncode != 0:
        return f"\n       exit code {done.returncode}: {done.stderr.strip()[-500:]}"
    if not json_wanted:
        return "" if done.stdout.strip() else "\n       printed nothing"
    try:
        document = json.loads(done.stdout)
    except ValueError as error:
        return f"\n       no JSON ({error}): {done.stdout[:200]!r}"
    return "" if str(document.get("schema", "")).startswith("onnxsub.") else "\n       a document without a schema"


if __name__ == "__main__":
    sys.exit(main())
