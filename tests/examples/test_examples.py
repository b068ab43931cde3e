"""Every example runs by itself, in little time, and prints what it says it prints."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PROMISE = "# Prints:\n"


def promised(text: str) -> str:
    """A pattern of the output promised at the end of an example; a line `...` stands for any others."""
    lines = [line.removeprefix("#").removeprefix(" ") for line in text.split(PROMISE)[1].strip().splitlines()]
    return "".join("(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in lines)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example(file: Path) -> None:
    began = time.monotonic()
    command = [sys.executable, "-W", "error", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.fullmatch(promised(file.read_text()), done.stdout), done.stdout
    assert time.monotonic() - began < 30  # a few tenths of a second, on a machine that is not busy


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_is_short_and_says_what_it_shows(file: Path) -> None:
    text = file.read_text()
    assert text.startswith('"""')
    assert text.count(PROMISE) == 1
    assert len(text.splitlines()) <= 80


def test_every_example_is_listed() -> None:
    listed = (ROOT / "docs" / "examples.md").read_text()
    assert [file.name for file in EXAMPLES if f"examples/{file.name}" not in listed] == []
