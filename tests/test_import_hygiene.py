"""The cut between the distributions: what each declares is what it imports, and no more.

Everything is installed in one environment here, so an import that is not declared works, until
somebody installs one service alone. Both tests look for such imports: in the source, lazy imports
included, and by importing what starts first in a process that has the declared packages only.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

_ROOT = Path(__file__).parents[1]
_FOLDERS = sorted(
    path.parent
    for pattern in ("libs/*", "services/*", "orchestrator")
    for path in _ROOT.glob(f"{pattern}/pyproject.toml")
)
_IMPORT_ALONE = """
import importlib, importlib.abc, json, sys
refused, modules = json.loads(sys.stdin.read())

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] in refused or ".".join(parts[:2]) in refused:
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refuse())
for name in modules:
    importlib.import_module(name)
"""


@dataclass(frozen=True)
class _Ours:
    """A distribution of this repository."""

    name: str
    source: Path
    required: frozenset[str]
    """Requirements, as written."""
    optional: frozenset[str]

    @property
    def modules(self) -> list[str]:
        return sorted(
            ".".join(path.relative_to(self.source).with_suffix("").parts).removesuffix(".__init__")
            for path in self.source.rglob("*.py")
        )


@cache
def _ours() -> dict[str, _Ours]:
    found = {}
    for folder in _FOLDERS:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {})
        found[project["name"]] = _Ours(
            project["name"],
            folder / "src",
            frozenset(project["dependencies"]),
            frozenset(requirement for extra in extras.values() for requirement in extra),
        )
    return found


@cache
def _installed() -> dict[str, Distribution]:
    return {canonicalize_name(one.name): one for one in distributions()}


@cache
def _third_party_files() -> dict[str, frozenset[str]]:
    """Which distributions hold a module or package, by its dotted name to a depth of two."""
    found: dict[str, set[str]] = {}
    for name, distribution in _installed().items():
        for file in distribution.files or ():
            if file.suffix in {".py", ".so", ".pyi"} and ".." not in file.parts:
                parts = [part.split(".")[0] for part in file.parts[:2]]
                for depth in range(1, len(parts) + 1):
                    found.setdefault(".".join(parts[:depth]), set()).add(name)
    return {module: frozenset(names) for module, names in found.items()}


def _owners(module: str) -> frozenset[str]:
    """The distributions that provide an imported module; empty for the standard library."""
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names:
        return frozenset()
    for ours in _ours().values():
        path = ours.source.joinpath(*parts[:2])
        if path.is_dir() or path.with_suffix(".py").exists():
            return frozenset({ours.name})
    files = _third_party_files()
    top = files.get(parts[0], frozenset())
    # A namespace package as `google` has many owners: its second level tells which.
    owners = files.get(".".join(parts[:2]), top) if len(top) > 1 else top
    assert owners, f"nothing installed provides {module}"
    return owners


def _imports(source: Path) -> Iterator[tuple[Path, str]]:
    """All imports below a folder: those at the top and those within functions."""
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                namespace = node.module in {"tuneproof", "google"}
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                yield from ((path, name) for name in (names if namespace else [node.module]))


def _names(requirements: frozenset[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


@pytest.mark.parametrize("name", sorted(_ours()))
def test_every_import_is_declared(name: str):
    ours = _ours()[name]
    declared = _names(ours.required | ours.optional) | {ours.name}
    missing = {
        f"{path.relative_to(_ROOT)} imports {module} of {' or '.join(sorted(owners))}"
        for path, module in _imports(ours.source)
        if (owners := _owners(module)) and not owners & declared
    }
    assert not missing, f"not declared in the pyproject.toml of {name}:\n" + "\n".join(
        sorted(missing)
    )


def _closure(requirements: frozenset[str]) -> set[str]:
    """All distributions that installing the requirements brings, extras included."""
    found: set[str] = set()
    seen: set[str] = set()
    todo = list(requirements)
    while todo:
        text = todo.pop()
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if text in seen:
            continue
        seen.add(text)
        found.add(name)
        if name in _ours():
            todo += _ours()[name].required
            continue
        extras = requirement.extras or {""}
        for needed in (_installed()[name].requires or ()) if name in _installed() else ():
            marker = Requirement(needed).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(needed)
    return found


def _refused(name: str) -> list[str]:
    """Modules that are not there when a distribution is installed alone, without extras."""
    present = _closure(_ours()[name].required) | {name}
    absent = {
        module
        for module, owners in _third_party_files().items()
        if "." not in module and module.isidentifier() and not owners & present
    }
    for ours in _ours().values():
        if ours.name not in present:
            absent |= {".".join(module.split(".")[:2]) for module in ours.modules}
            absent |= {m.split(".")[0] for m in ours.modules if not m.startswith("tuneproof.")}
    return sorted(absent - set(sys.stdlib_module_names) - {"tuneproof"})


def _import_alone(modules: list[str], refused: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _IMPORT_ALONE],
        input=json.dumps([refused, modules]),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _starts_first(name: str) -> list[str]:
    """A service's main module; all modules of what has no extras to import lazily."""
    modules = _ours()[name].modules
    mains = [module for module in modules if re.fullmatch(r"tuneproof_\w+\.main", module)]
    return mains or [module for module in modules if not module.endswith("__main__")]


@pytest.mark.process
@pytest.mark.parametrize("name", sorted(_ours()))
def test_it_imports_alone(name: str):
    done = _import_alone(_starts_first(name), _refused(name))
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("tuneproof", ["torch", "transformers", "vllm", "tuneproof_judge"]),
        (
            "tuneproof-judge",
            ["torch", "tuneproof_retriever", "tuneproof.sdk", "tuneproof.adapters"],
        ),
        ("tuneproof-retriever", ["vllm", "trl", "tuneproof_trainer", "tuneproof.study"]),
        ("tuneproof-generator", ["trl", "bitsandbytes", "tuneproof_trainer", "tuneproof.cli"]),
        ("tuneproof-trainer", ["vllm", "lancedb", "tuneproof_generator", "tuneproof.study"]),
        ("tuneproof-servicekit", ["torch", "tuneproof_judge", "tuneproof.sdk"]),
    ],
)
def test_the_test_itself_refuses_what_is_foreign(name: str, absent: list[str]):
    refused = _refused(name)
    for module in absent:
        assert module in refused
        done = _import_alone([module], refused)
        assert f"refused: {module}" in done.stderr
