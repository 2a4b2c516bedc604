"""What `mkdocs build` does beside reading `docs/`.

- Notebooks are executed, and an error in one ends the build; they become pages with their outputs.
- Pages of the repository outside `docs/` are pages of the site. Links between files of the repository lead to those pages; a link
  to a file that is no page becomes its text.
- The mark `<!-- public names -->` becomes the reference of every public name of the package, from its docstrings.
"""

from __future__ import annotations

import inspect
import posixpath
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
OUTSIDE = {
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "PERFORMANCE.md": "project/performance.md",
    "SECURITY.md": "project/security.md",
    "THIRD_PARTY_NOTICES.md": "project/third-party.md",
    "benchmarks/RESULTS.md": "project/results.md",
    "models/README.md": "project/models.md",
}
"""File of the repository -> page of the site."""

LINK = re.compile(r"\]\((?!\w+:)([^)\s#]+)(#[^)\s]*)?\)")
MARK = "<!-- public names -->"
NOTEBOOK_SECONDS = 120


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that lie elsewhere, and those of the notebooks."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for notebook in sorted(Path(config.docs_dir).rglob("*.ipynb")):
        where = notebook.relative_to(config.docs_dir).with_suffix("").as_posix()
        text, pictures = executed(notebook)
        for name, data in pictures.items():
            files.append(File.generated(config, posixpath.join(posixpath.dirname(where), name), content=data))
        files.append(File.generated(config, f"{where}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leads links to where the pages lie, and writes the reference of the public names."""
    own = page.file.src_uri
    if MARK in markdown:
        markdown = markdown.replace(MARK, reference())
    if own.startswith("notebooks/"):
        source = f"docs/{own}"
    else:
        source = next((s for s, target in OUTSIDE.items() if target == own), f"docs/{own}")

    def led(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        if target.endswith(".ipynb"):
            target = f"{target.removesuffix('.ipynb')}.md"
        there = OUTSIDE.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        file = files.get_file_from_path(there) if there else None
        if there is None or (file is None and (ROOT / target).is_dir()) or (file is not None and file.inclusion.is_excluded()):
            return f"]{TEXT}" if (ROOT / target).exists() else found[0]
        return f"]({posixpath.relpath(there, posixpath.dirname(own) or '.')}{found[2] or ''})"

    markdown = LINK.sub(led, markdown)
    return re.sub(rf"(?<!!)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]{TEXT}", r"\1", markdown)


TEXT = "\0"
"""Behind the text of a link that leads nowhere."""


def executed(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page with its outputs, and its pictures by name. Raises PluginError where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # what it writes is not of the repository
        (Path(folder) / "models").symlink_to(ROOT / "models")
        client = NotebookClient(notebook, timeout=NOTEBOOK_SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}})
        try:
            client.execute()
        except CellExecutionError as error:
            raise PluginError(f"{path.relative_to(ROOT)}: {error}") from error
    for cell in notebook.cells:
        if cell.cell_type == "code":  # progress is of the moment
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    pictures = {f"{path.stem}-{name}": data for name, data in resources["outputs"].items()}
    for name in resources["outputs"]:
        text = text.replace(f"]({name})", f"]({path.stem}-{name})")
    source = f"!!! note\n    This page is the notebook `{path.relative_to(ROOT).as_posix()}`, executed when the site was built.\n"
    heading, _, rest = text.lstrip().partition("\n")
    return f"{heading}\n\n{source}\n{rest}", pictures


def reference() -> str:
    """One entry for every public name, by kind."""
    import onnxsub

    kinds: dict[str, list[str]] = {"Functions": [], "Options": [], "Results and objects": [], "Errors": []}
    for name in sorted(onnxsub.__all__):
        value = getattr(onnxsub, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            kinds["Errors"].append(name)
        elif inspect.isclass(value):
            kinds["Options" if name.endswith("Options") else "Results and objects"].append(name)
        elif callable(value):
            kinds["Functions"].append(name)
    parts = []
    for kind, names in kinds.items():
        parts.append(f"## {kind}\n")
        parts += [f"::: onnxsub.{name}\n" for name in names]
    return "\n".join(parts)
