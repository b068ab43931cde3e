"""The public surface: what is exported is there, sorted, documented and typed."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import resilience

ROOT = Path(__file__).parents[2]
PACKAGES = [
    "resilience",
    "resilience.testing",
    "resilience_httpx",
    "resilience_llm",
    "resilience_redis",
    "resilience_structlog",
]
FOLDERS = [ROOT / "resilience", *sorted(path.parent for path in ROOT.glob("adapters/*/__init__.py"))]


def folder_of(module: ModuleType) -> Path:
    assert module.__file__ is not None
    return Path(module.__file__).parent


def sort_key(name: str) -> tuple[int, str]:
    """The order that ruff keeps: constants, classes, functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_complete_and_importable(package: str) -> None:
    module = importlib.import_module(package)
    names: list[str] = module.__all__
    assert names == sorted(names, key=sort_key)
    assert len(set(names)) == len(names)
    for name in names:
        getattr(module, name)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    assert inspect.getdoc(module)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
            assert not value.__doc__.startswith(f"{value.__name__}("), f"{name} has only a generated docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_methods_are_documented(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if not inspect.isclass(value):
            continue
        for attribute, member in vars(value).items():
            if inspect.isfunction(member) and not attribute.startswith("_"):
                assert member.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_package_is_typed(folder: Path) -> None:
    assert (folder / "py.typed").is_file()


def test_every_adapter_is_shipped_and_checked_here() -> None:
    shipped = (ROOT / "pyproject.toml").read_text()
    for folder in FOLDERS[1:]:
        assert f'"adapters/{folder.name}"' in shipped
        assert folder.name in PACKAGES


def test_lazy_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse((ROOT / "resilience" / "__init__.py").read_text())
    seen = {
        alias.name: (node.module or "")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    assert seen == vars(resilience)["_HOME_OF"]
    assert sorted(seen) == sorted(resilience.__all__)
    assert set(resilience.__all__) <= set(dir(resilience))


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'resilience' has no attribute 'Retries'"):
        getattr(resilience, "Retries")  # noqa: B009


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert resilience.__version__ == version("anyresilience")


def policies() -> list[str]:
    return sorted(file.stem for file in folder_of(resilience).glob("policies/*.py") if file.stem != "__init__")


@pytest.mark.parametrize("name", policies())
def test_one_name_everywhere(name: str) -> None:
    """A policy's file, its tests and its page of the reference have the same name."""
    assert (ROOT / "tests" / "policies" / f"test_{name}.py").is_file()
    assert (ROOT / "docs" / "reference" / f"{name}.md").is_file()


def test_machines_and_their_tests_have_the_same_names() -> None:
    for machine in (ROOT / "resilience" / "machines").iterdir():
        tests = ROOT / "tests" / "machines"
        if machine.suffix == ".py" and machine.stem != "__init__":
            assert (tests / f"test_{machine.name}").is_file(), machine
        elif (machine / "__init__.py").is_file():
            assert sorted((tests / machine.name).glob("test_*.py")), machine


@pytest.mark.parametrize("name", ["circuit_breaker", "bulkhead", "rate_limiter"])
def test_policies_and_machines_have_the_same_names(name: str) -> None:
    machine = folder_of(resilience) / "machines" / name
    assert machine.is_dir() or machine.with_suffix(".py").is_file()
    assert name in policies()
