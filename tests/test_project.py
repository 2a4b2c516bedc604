"""The project's own rules: direction of imports, size of files, extras, versions, public names."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import onnxsub
from onnxsub.api.callable_module import CALLS
from onnxsub.results import VERSION

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "onnxsub"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "lazy", "files", "results", "device", "budget", "process", "shown",
     "isolation", "limits", "visible", "checked", "scratch", "family", "documents"),
    # the words that operators are described in
    ("ops.base", "ops.node", "ops.encoding", "ops.relaxation", "ops.interval_rows", "ops.onnx_writer", "geometry",
     "ops.affine_rows"),
    (
        "model", "model_file", "external_data", "branches", "computed", "fold_constants", "inferred", "check_finite", "signature",
        "strip_head", "surgery", "valid", "runtime",
        "anchors", "features", "lattice", "region", "provenance", "contrib", "reading", "attributes", "any_model",
        "tables", "array_files", "image_folder", "costs", "watched",
    ),
    ("ops", "network", "lower", "quantised", "query", "instance", "model_info", "properties"),
    ("propagate",),
    ("passes",),
    ("layouts",),
    ("pruning",),
    ("verifiers",),
    ("metrics", "compress"),
    ("evaluate", "report", "zoo", "bundled"),
    ("gate", "api", "study"),
    ("testing",),
    ("cli",),
)  # fmt: skip
"""From the ground up: a module imports from its own layer and from those before it."""


def sources(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int | None:
    """The layer of `onnxsub.a.b`: that of the longest name listed."""
    inner = module.removeprefix("onnxsub.")
    while inner:
        for i, names in enumerate(LAYERS):
            if inner in names:
                return i
        inner = inner.rpartition(".")[0]
    return None


def imports(text: str) -> Iterator[str]:
    """Every module that a source imports.

    Imports inside functions count: they put off what an import costs, not what a module needs. Imports for types only
    (`TYPE_CHECKING`) count too: whoever reads or checks a module needs what its signatures name.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                # `from onnxsub.ops import relu` imports a module
                inner = SOURCE.parent.joinpath(*node.module.split("."), alias.name)
                is_module = inner.with_suffix(".py").exists() or (inner / "__init__.py").exists()
                yield f"{node.module}.{alias.name}" if is_module else node.module


@pytest.mark.parametrize("path", sources("onnxsub"), ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    module = module_name(path)
    if module in ("onnxsub", "onnxsub.__main__"):
        return  # the public names, and the way in
    own = layer_of(module)
    assert own is not None, f"{module} is in no layer: say in LAYERS and in ARCHITECTURE.md where it belongs"
    for name in imports(path.read_text()):
        if name.startswith("onnxsub."):
            other = layer_of(name)
            assert other is not None, f"{module} imports {name}, which is in no layer"
            assert other <= own, f"{module} (layer {own}) imports {name} (layer {other}): that points back"


def package_of(module: str) -> str:
    """The first level below `onnxsub`, a package or a module; `onnxsub` itself holds the public names."""
    return ".".join(module.split(".")[:2])


def package_graph(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Package -> the other packages that it imports, from the source of every module."""
    graph: dict[str, set[str]] = {package_of(module): set() for module in texts}
    for module, text in texts.items():
        found = {package_of(name) for name in imports(text) if name.split(".")[0] == "onnxsub"}
        graph[package_of(module)] |= found - {package_of(module)}
    return graph


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Packages each of which imports the next one, the last one the first; empty where there is no cycle."""
    left = {package: set(names) for package, names in graph.items()}
    while leaves := [package for package, names in left.items() if not names & left.keys()]:
        for package in leaves:
            del left[package]
    if not left:
        return []
    # every package that is left imports another one of them
    way = [min(left)]
    while (following := min(left[way[-1]] & left.keys())) not in way:
        way.append(following)
    return way[way.index(following) :]


def test_no_two_packages_import_each_other() -> None:
    graph = package_graph({module_name(path): path.read_text() for path in sources("onnxsub")})
    assert {"onnxsub.passes", "onnxsub.layouts", "onnxsub.pruning", "onnxsub.ops"} <= graph.keys()
    found = cycle_in(graph)
    assert not found, f"{' -> '.join([*found, *found[:1]])}: packages that import each other are one package"


@pytest.mark.parametrize(
    "back",
    ["from onnxsub.layouts import LAYOUTS", "def f():\n    import onnxsub.layouts.chain",
     "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onnxsub import layouts"],
    ids=["module", "function", "types"],
)  # fmt: skip
def test_a_cycle_of_packages_is_seen(back: str) -> None:
    texts = {"onnxsub.layouts.chain": "from onnxsub.passes.fold import fold", "onnxsub.passes.fold": "import onnxsub.ops.base",
             "onnxsub.ops.base": "", "onnxsub.cli.main": "import onnxsub.layouts"}  # fmt: skip
    assert cycle_in(package_graph(texts)) == []
    assert cycle_in(package_graph({**texts, "onnxsub.passes.prune": back})) == ["onnxsub.layouts", "onnxsub.passes"]


SHORT = ("onnxsub/verifiers", "onnxsub/metrics")
"""Packages with one idea a file."""


@pytest.mark.parametrize("path", sources("onnxsub", "models", "benchmarks"), ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_of_a_readable_size(path: Path) -> None:
    most = 300 if path.relative_to(ROOT).as_posix().startswith(tuple(f"{folder}/" for folder in SHORT)) else 400
    assert len(path.read_text().splitlines()) <= most


def parameters(text: str) -> Iterator[tuple[str, int]]:
    """Every function of a source, and how many parameters it has; `self` and `cls` do not count."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            a = node.args
            names = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x is not None]
            yield node.name, len([name for name in names if name not in ("self", "cls")])


def few_parameters() -> list[Path]:
    margins = sorted((SOURCE / "metrics").glob("margin*.py"))
    return [*sources("onnxsub/verifiers"), *margins, SOURCE / "metrics" / "local" / "search.py"]


@pytest.mark.parametrize("path", few_parameters(), ids=module_name)
def test_no_function_has_more_than_seven_parameters(path: Path) -> None:
    many = [f"{name} has {count}" for name, count in parameters(path.read_text()) if count > 7]
    assert not many, f"{module_name(path)}: {', '.join(many)}; what belongs together is one object"


def test_parameters_are_counted() -> None:
    text = "class C:\n    def f(self, a, /, b, *c, d=1, **e):\n        async def g(): ...\n    @classmethod\n    def h(cls, x): ..."
    assert dict(parameters(text)) == {"f": 5, "g": 0, "h": 1}


@pytest.mark.parametrize("path", sources("onnxsub"), ids=module_name)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module begins with a docstring"


def texts() -> list[Path]:
    documents = [p for folder in (ROOT, ROOT / "docs", ROOT / "models") for p in folder.glob("*.md")]
    documents += [ROOT / "Makefile", ROOT / ".ci" / "run"]
    return sorted([*documents, *sources("onnxsub", "models", "tests", "benchmarks")])


@pytest.mark.parametrize("path", texts(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_left_to_do_and_no_machine_is_named(path: Path) -> None:
    if path == Path(__file__):
        return  # the patterns stand here
    text = path.read_text()
    for pattern in (r"\bTODO\b", r"\bFIXME\b", r"\bXXX\b", r"(?<![\w.])/(work|home|root|opt|Users)/"):
        found = re.search(pattern, text)
        assert found is None, f"{path.name}: {found and found.group()}"


def test_extras_are_as_promised() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) >= {"cpu", "gpu", "gurobi", "scip", "marabou", "ray", "report", "test", "dev", "all"}
    # both wheels install the same folder
    assert [r for r in extras["cpu"] if r.startswith("onnxruntime")] == extras["cpu"]
    assert [r for r in extras["gpu"] if r.startswith("onnxruntime-gpu")] == extras["gpu"]
    (everything,) = extras["all"]
    inside = set(re.fullmatch(r"onnxsub\[(.*)\]", everything).group(1).split(","))  # type: ignore[union-attr]
    assert inside == set(extras) - {"cpu", "gpu", "test", "dev", "docs", "all"}
    for name in (*PROJECT["dependencies"], *(r for n in extras if n not in ("cpu", "gpu") for r in extras[n])):
        assert not name.startswith("onnxruntime")
        assert not name.startswith("torchvision")
        # nor by way of another extra: [gpu,all] has one runtime
        assert not re.search(r"\[(.*,)?(cpu|gpu)(,.*)?\]", name)


def test_constraints_are_exact_and_name_no_host() -> None:
    lines = [x for x in (ROOT / "constraints.txt").read_text().splitlines() if not x.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", x) for x in lines)
    pinned = {x.split("==")[0] for x in lines}
    assert "torch==2.13.0" in lines
    wanted = {re.match(r"[\w-]+", r).group().lower() for r in PROJECT["dependencies"]}  # type: ignore[union-attr]
    assert wanted <= pinned
    assert "onnxruntime-gpu" not in pinned


def test_one_version() -> None:
    assert PROJECT["version"] == onnxsub.__version__ == VERSION
    assert f"## {VERSION} - " in (ROOT / "CHANGELOG.md").read_text()


def test_public_names_are_there_and_documented() -> None:
    manual = (ROOT / "docs" / "python-api.md").read_text()
    for name in onnxsub.__all__:
        assert getattr(onnxsub, name) is not None
        assert f"`{name}" in manual, f"docs/python-api.md does not mention {name}"
    assert set(dir(onnxsub)) == set(onnxsub.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = onnxsub.no_such_name


def test_no_public_name_is_hidden_by_a_module() -> None:
    """Importing `onnxsub.x` makes x an attribute of the package: a public call is not named like a module, or is one (`CALLS`)."""
    modules = {p.stem for p in SOURCE.glob("*.py")} | {p.name for p in SOURCE.iterdir() if p.is_dir()}
    assert modules & set(onnxsub.__all__) == set(CALLS)
    assert all(callable(importlib.import_module(f"onnxsub.{name}")) for name in CALLS)
    importlib.import_module("onnxsub.model_info")
    assert callable(onnxsub.info)


def test_documents_are_linked_and_exist() -> None:
    for document in (ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "docs" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}, which is not there"


def test_every_command_is_in_the_manual() -> None:
    from onnxsub.cli.main import COMMANDS, cli

    manual = (ROOT / "docs" / "cli.md").read_text()
    context = cli.make_context("onnxsub", ["info"], resilient_parsing=True)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert f"`{name}" in manual
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert f"`{option}" in manual, f"docs/cli.md does not mention {option} of {name}"
