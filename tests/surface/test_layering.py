"""Who may import whom: the core no adapter, machines neither a clock nor an event loop, and all of it little."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "resilience"
HEAVY = {"httpx", "httpx2", "redis", "pydantic", "structlog", "typer", "rich", "trio", "starlette", "uvicorn"}
OWN_EXTRA = {"settings.py": {"pydantic"}}
"""Modules that exist for an extra and may import it; nothing else imports them."""


def core_files() -> list[Path]:
    """The core without the command line, which is an application on top of it, and the testing kit."""
    outside = [CORE / "cli", CORE / "testing", CORE / "__main__.py"]
    return [file for file in sorted(CORE.rglob("*.py")) if not any(file.is_relative_to(part) for part in outside)]


def imports(tree: ast.AST, later: bool = True) -> Iterator[str]:
    """The names of imported modules; relative ones begin with a dot.

    `later`: also those that wait for a function to be called, or for a type checker.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
        elif later or not is_later(node):
            yield from imports(node, later)


def is_later(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def top_level(name: str) -> str:
    return name.split(".")[0] or "resilience"


def ids(files: list[Path]) -> list[str]:
    return [file.relative_to(ROOT).as_posix() for file in files]


@pytest.mark.parametrize("file", core_files(), ids=ids(core_files()))
def test_the_core_imports_only_the_standard_library_and_anyio(file: Path) -> None:
    allowed = {*sys.stdlib_module_names, "anyio", "resilience", *OWN_EXTRA.get(file.name, ())}
    tree = ast.parse(file.read_text())
    assert {top_level(name) for name in imports(tree, later=False)} <= allowed
    # Inside a function only trio, which is running then and so is there.
    assert {top_level(name) for name in imports(tree)} <= allowed | {"trio"}


@pytest.mark.parametrize("file", core_files(), ids=ids(core_files()))
def test_nothing_in_the_core_imports_what_is_built_on_it(file: Path) -> None:
    above = {"cli", "settings", "testing", "__main__"}
    for name in imports(ast.parse(file.read_text())):
        assert not above & set(name.split("."))


MACHINES = sorted((CORE / "machines").rglob("*.py"))
IMPURE = {"asyncio", "anyio", "time", "random", "threading", "socket", "os", "datetime", "logging", "secrets"}


@pytest.mark.parametrize("file", MACHINES, ids=ids(MACHINES))
def test_machines_are_pure(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert not IMPURE & {top_level(name) for name in imports(tree)}
    waiting = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(tree) if isinstance(node, waiting)]
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input", "__import__"}


BLOCKED = """
import builtins, importlib, json, sys
names = json.loads(sys.argv[1])
banned = set(json.loads(sys.argv[2]))
real = builtins.__import__
def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    if (globals or {}).get("__name__", "").startswith("resilience") and name.split(".")[0] in banned:
        raise ImportError(f"{globals['__name__']} imports {name}")
    return real(name, globals, locals, fromlist, level)
builtins.__import__ = guarded
for name in names:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(names: list[str], banned: set[str]) -> set[str]:
    """Import modules in a fresh interpreter, where `resilience` may not import the banned; what got loaded."""
    command = [sys.executable, "-c", BLOCKED, json.dumps(names), json.dumps(sorted(banned))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_machines_load_where_clocks_loops_and_randomness_are_blocked() -> None:
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in MACHINES]
    loaded = loaded_by(names, IMPURE)
    assert set(names) <= loaded
    assert "anyio" not in loaded


def test_the_blockade_is_one() -> None:
    command = [sys.executable, "-c", BLOCKED, '["resilience.clock"]', '["time"]']
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert "resilience.clock imports time" in done.stderr


def test_the_core_loads_with_anyio_alone() -> None:
    modules = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in core_files()]
    names = [name.removesuffix(".__init__") for name in modules if name != "resilience.settings"]
    loaded = loaded_by(names, HEAVY)
    assert not HEAVY & loaded
    assert not {name for name in loaded if name.startswith(("resilience_", "resilience.cli", "resilience.testing"))}
