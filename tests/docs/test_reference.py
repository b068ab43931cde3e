"""The reference says what the code says: headings, options, defaults, events."""

from __future__ import annotations

import asyncio
import builtins
import importlib
import inspect
import random
import re
from pathlib import Path
from typing import Any

import pydantic
import pytest

import resilience
from resilience import events, testing
from resilience.events import Event

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
HEADINGS = ["About", "Usage", "Defaults", "What counts as failure", "Events", "Anti-patterns"]
POLICIES = {
    "timeout": resilience.Timeout,
    "retry": resilience.Retry,
    "hedge": resilience.Hedge,
    "circuit_breaker": resilience.CircuitBreaker,
    "bulkhead": resilience.Bulkhead,
    "rate_limiter": resilience.RateLimiter,
    "fallback": resilience.Fallback,
    "cache": resilience.Cache,
    "single_flight": resilience.SingleFlight,
    "chaos": resilience.Chaos,
    "pipeline": resilience.Pipeline,
}
ALL_EVENTS = sorted(
    value.__name__ for value in vars(events).values() if inspect.isclass(value) and issubclass(value, Event)
)


def headings(page: str) -> list[str]:
    outside_of_blocks = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^## (.+)$", outside_of_blocks, flags=re.MULTILINE)


def section(page: str, heading: str) -> str:
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def rows(text: str) -> dict[str, str]:
    """The first two columns of all tables."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {row[0].strip("`"): row[1].strip("`") for row in cells if row[0].startswith("`")}


def shown(parameter: inspect.Parameter) -> str:
    """A default as the tables show it."""
    default: Any = parameter.default
    if default is inspect.Parameter.empty:
        return "required"
    if default is random.random:
        return "random.random"
    if isinstance(default, float):
        return f"{default:g}"
    return repr(default).replace("'", '"')


@pytest.mark.parametrize("name", POLICIES)
def test_pages_of_policies_have_the_same_headings(name: str) -> None:
    found = headings((REFERENCE / f"{name}.md").read_text())
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS


@pytest.mark.parametrize("name", POLICIES)
def test_the_table_of_defaults_is_that_of_the_constructor(name: str) -> None:
    table = rows(section((REFERENCE / f"{name}.md").read_text(), "Defaults"))
    for option, parameter in inspect.signature(POLICIES[name]).parameters.items():
        assert option in table, f"{option} is missing"
        default = table.pop(option)
        if option != "classifier" and parameter.kind is not parameter.VAR_POSITIONAL:
            assert default == shown(parameter), option
    assert not table, "options that do not exist"


@pytest.mark.parametrize("page", sorted(REFERENCE.glob("*.md")), ids=lambda page: page.stem)
def test_names_in_the_reference_exist(page: Path) -> None:
    """`resilience.x.y` in a directive of mkdocstrings, and every `SomethingError` in the text."""
    text = page.read_text()
    for path in re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE):
        module, name = path.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name), path
    for name in re.findall(r"`([A-Z]\w+Error)`", text):
        assert any(hasattr(module, name) for module in (resilience, testing, builtins, asyncio, pydantic)), name


@pytest.mark.parametrize("name", POLICIES)
def test_sections_on_events_name_real_ones(name: str) -> None:
    listed = rows(section((REFERENCE / f"{name}.md").read_text(), "Events"))
    assert listed
    assert set(listed) <= set(ALL_EVENTS)


def test_the_page_on_events_lists_them_all() -> None:
    listed = rows((REFERENCE / "events.md").read_text())
    assert sorted(name for name in listed if name in ALL_EVENTS) == [name for name in ALL_EVENTS if name != "Event"]
    for name in ALL_EVENTS:
        kind: type[Event] = getattr(events, name)
        if kind is not Event:
            own = list(kind.__slots__)
            assert listed[name] == ", ".join(f"`{field}`" for field in own).strip("`"), name


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_page_is_in_the_menu(page: Path) -> None:
    assert page.relative_to(ROOT / "docs").as_posix() in (ROOT / "mkdocs.yml").read_text()
