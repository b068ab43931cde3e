"""`resilience redis reset`: shows what there is, asks, deletes; circuits it closes, for a process remembers."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from resilience_redis.inspection import VIEWS, Connection, Owner, forget, owners

from .errors import ServerError, server_at, without_password
from .look import plain


def reset(url: str, prefix: str, name: str | None, kind: str | None, yes: bool) -> int:
    """Delete what was confirmed; returns the exit status of the command."""
    console = Console()
    try:
        with server_at(url) as server:
            counts = Counter((owner.kind, owner.name) for owner, _ in _chosen(server, prefix, name, kind))
            if not counts:
                console.print(plain(f"nothing to reset in the namespace {prefix}"))
                return 0
            console.print(_table(counts))
            if not (yes or _confirmed(f"Reset these {counts.total()} keys of {without_password(url)}?")):
                console.print("nothing was reset")
                return 1
            console.print(f"{forget(server, prefix, _chosen(server, prefix, name, kind))} reset", highlight=False)
    except ServerError as error:
        print(f"resilience redis: {error}", file=sys.stderr)
        return 1
    return 0


def _chosen(server: Connection, prefix: str, name: str | None, kind: str | None) -> Iterator[tuple[Owner, str]]:
    for owner, key in owners(server, prefix):
        if name in (None, owner.name) and kind in (None, owner.kind) and owner.part != VIEWS:
            yield owner, key


def _confirmed(question: str) -> bool:
    """Whether somebody said yes; nobody there is a no."""
    print(f"{question} [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _table(counts: Counter[tuple[str, str]]) -> Table:
    table = Table("kind", "name", "keys")
    for (kind, name), count in sorted(counts.items()):
        table.add_row(kind, plain(name), str(count))
    return table
