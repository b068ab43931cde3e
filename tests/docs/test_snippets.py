"""Every code block of the README and the docs is run; a block that could not be is a failure.

The python blocks of a page share one namespace and one event loop and may `await` at top level. A `text` block
right after one is what it prints. Time is virtual, unless the page talks to `redis://localhost` or to
`https://api.example`: then real servers stand in for these.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import re
import sys
import tomllib
import types
import warnings
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resilience import HazardWarning
from resilience.testing import VirtualClock
from resilience_redis.server import start_server
from tests.support.http_server import MisbehavingServer

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REDIS, API = "redis://localhost", "https://api.example"
LANGUAGES = {"python", "console", "json", "toml", "text"}
FENCE = re.compile(r"^( *)```(.*)$")


@dataclass
class Block:
    """One fenced block; `line` is that of its first line of content."""

    language: str
    text: str
    line: int
    prints: str | None = None


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page; a `text` block right after a `python` one becomes what that one prints."""
    found: list[Block] = []
    lines = iter(enumerate(text.splitlines(), 1))
    last_end = -1
    for number, line in lines:
        if not (match := FENCE.match(line)):
            continue
        indent, language = match.groups()
        content: list[str] = []
        for end, inner in lines:  # noqa: B007 - used after the loop
            if inner.strip() == "```":
                break
            content.append(inner.removeprefix(indent))
        else:
            raise AssertionError(f"the block at line {number} has no end")
        body = "\n".join(content) + "\n"
        if language == "text" and found and found[-1].language == "python" and number - last_end <= 2:
            found[-1].prints = body
        else:
            found.append(Block(language, body, number + 1))
        last_end = end
    return found


@contextlib.contextmanager
def servers(text: str) -> Generator[tuple[dict[str, str], VirtualClock | None]]:
    """What to put in place of the addresses in a page, and the clock to run it on (None: real time)."""
    with contextlib.ExitStack() as stack:
        places: dict[str, str] = {}
        if REDIS in text:
            places[REDIS] = stack.enter_context(start_server()).url
        if API in text:
            places[API] = stack.enter_context(MisbehavingServer()).url
        yield places, None if places else stack.enter_context(VirtualClock().installed())


def run_page(page: Path) -> int:
    """Run the python blocks of a page; how many there were."""
    text = page.read_text()
    python = [block for block in blocks(text) if block.language == "python"]
    # A real module, so that classes of the page know where they come from and annotations resolve.
    module = types.ModuleType(f"docs_{page.stem}")
    sys.modules[module.__name__] = module
    try:
        with servers(text) as (places, clock):
            with asyncio.Runner(loop_factory=clock.loop if clock else None) as runner:
                for block in python:
                    _run(block, page, vars(module), places, runner)
    finally:
        del sys.modules[module.__name__]
    return len(python)


def _run(block: Block, page: Path, namespace: dict[str, Any], places: dict[str, str], runner: asyncio.Runner) -> None:
    source = block.text
    for address, real in places.items():
        source = source.replace(address, real)
    # Empty lines in front, so that tracebacks show the lines of the page.
    source = "\n" * (block.line - 1) + source
    code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(_awaited(code, namespace))
        else:
            exec(code, namespace)
    if block.prints is not None:
        assert output.getvalue() == block.prints, f"{page.name}, line {block.line}"


async def _awaited(code: types.CodeType, namespace: dict[str, Any]) -> None:
    running: Coroutine[Any, Any, Any] = eval(code, namespace)
    await running


def names(pages: list[Path]) -> list[str]:
    return [page.relative_to(ROOT).as_posix() for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_page(page: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_no_block_escapes(page: Path) -> None:
    """Whatever is not run is no code, or is parsed at least."""
    for block in blocks(page.read_text()):
        assert block.language in LANGUAGES, f"line {block.line}: {block.language!r} is not checked by anything"
        if block.language == "json":
            json.loads(block.text)
        if block.language == "toml":
            tomllib.loads(block.text)
        if block.language == "text":
            assert "import " not in block.text, f"line {block.line}: code in disguise"


def test_the_collector_fails_where_it_should(tmp_path: Path) -> None:
    page = tmp_path / "page.md"

    def verdict(text: str) -> object:
        page.write_text(text)
        try:
            return run_page(page)
        except Exception as error:
            return type(error)

    assert (
        verdict("```python\nx = 1\n```\nand\n\n```python\nimport anyio\nawait anyio.sleep(3600)\nassert x\n```\n") == 2
    )
    assert verdict("```python\nassert False\n```\n") is AssertionError
    assert verdict("```python\nprint(1)\n```\n\n```text\n2\n```\n") is AssertionError
    assert verdict("```python\nprint(1)\n```\n\n```text\n1\n```\n") == 1
    assert verdict("```python\nno python\n```\n") is SyntaxError
    assert verdict("```python\nopen\n") is AssertionError
    assert verdict(f"```python\nassert '{API}' != 'https://' + 'api.example'\n```\n") == 1


def test_hazards_are_errors_in_the_docs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nfrom resilience import *\nPipeline(Timeout(1), Timeout(2))\n```\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(HazardWarning):
            run_page(page)
