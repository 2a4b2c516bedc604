"""The commands of the README in an environment without constraints: exit code 0, and `--json` is one document.

    python .ci/plain.py BIN

BIN holds the programs of that environment. The commands are those of the README's console blocks, in their order, in a folder of
their own that holds a copy of `models/`.
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


def main() -> int:
    """Runs the commands; 1 if one of them failed."""
    program = Path(sys.argv[1]).resolve() / "onnxsub"
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line) for block in blocks for line in re.findall(r"^\$ (.*)$", block, re.MULTILINE)]
    # the program of the default solver itself, which the README leaves to branch and bound
    commands.append(shlex.split("onnxsub verify models/digits.onnx --x0 models/digits_seven.npy --eps 0.05 --verifier milp"))
    assert len(commands) > 4, "the README has no commands"
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "models", Path(folder) / "models")
        for command in commands:
            for extra in ([], ["--json"]):
                words = [str(program), *command[1:], *extra]
                if "--run" in words and extra:  # a run folder that is done would only be read again
                    words[words.index("--run") + 1] += "-json"
                done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
                wrong = _wrong(done, json_wanted=bool(extra))
                print(f"{'FAILED' if wrong else 'ok':7}{' '.join([*command, *extra])}{wrong}")
                failed += bool(wrong)
    return 1 if failed else 0


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
