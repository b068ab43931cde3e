"""`resilience redis inspect`: tables for people, or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from resilience_redis.inspection import KINDS, Entry, Found, look

from .errors import ServerError, server_at

WIDTH = 160
"""Columns of a table that no terminal shows."""


def inspect(url: str, prefix: str, name: str | None, kind: str | None, limit: int, as_json: bool) -> int:
    """Print what is found; returns the exit status of the command."""
    try:
        with server_at(url) as server:
            found = look(server, prefix, limit)
    except ServerError as error:
        print(f"resilience redis: {error}", file=sys.stderr)
        return 1
    entries = [each for each in found.entries if name in (None, each.name) and kind in (None, each.kind)]
    if as_json:
        print(json.dumps(as_data(prefix, Found(entries, found.cut)), indent=2))
    else:
        print_tables(Console(), prefix, Found(entries, found.cut), limit)
    return 0


def as_data(prefix: str, found: Found) -> dict[str, Any]:
    """The same for machines: a list for each kind."""
    data: dict[str, Any] = {"prefix": prefix, "cut": found.cut}
    for kind in KINDS:
        data[kind] = [{"name": each.name, "key": each.key, **each.facts} for each in found.entries if each.kind == kind]
    return data


def print_tables(console: Console, prefix: str, found: Found, limit: int) -> None:
    """A table for each kind of which something was found."""
    if not console.is_terminal:
        console = Console(file=console.file, width=WIDTH)
    for kind in KINDS:
        if entries := [each for each in found.entries if each.kind == kind]:
            console.print(_table(kind, entries))
    if not found.entries:
        console.print(plain(f"nothing in the namespace {prefix}"))
    if found.cut:
        console.print(f"There is more: only {limit} keys were read (--limit).", highlight=False)


def _table(kind: str, entries: Sequence[Entry]) -> Table:
    facts = list(dict.fromkeys(fact for each in entries for fact in each.facts))
    table = Table("name", "key", *(fact.replace("_", " ") for fact in facts), title=kind, title_justify="left")
    for each in entries:
        table.add_row(plain(each.name), plain(each.key), *(plain(_said(each.facts.get(fact, ""))) for fact in facts))
    return table


def _said(fact: Any) -> str:
    """A fact on as many lines as it has parts."""
    if isinstance(fact, dict):
        named = cast("dict[str, Any]", fact)
        return "\n".join(f"{key}: {_said(value)}" for key, value in named.items())
    if isinstance(fact, list):
        parts = cast("list[dict[str, Any]]", fact)
        return "\n".join(", ".join(f"{key} {_said(value)}" for key, value in each.items()) for each in parts)
    return f"{fact:.10g}" if isinstance(fact, float) else str(fact)


def plain(text: str) -> Text:
    """Text from elsewhere: neither markup nor commands to the terminal."""
    return Text("".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text))
