"""The Lua scripts: read from the package, known to the server by their SHA-1.

script = script_for("gcra")
script.by_sha(keys, arguments)      # ("EVALSHA", "6fd5...", 1, key, ...)
script.by_source(keys, arguments)   # when the server does not know it

A script is a few files in a row: what all share, one algorithm, the operations. The server's script cache is
lost with every restart and failover, so every call is ready to send the source again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Script:
    """The source of a script, the SHA-1 it has on every server, and how many requests one call may carry."""

    source: str
    sha: str
    largest: int

    def by_sha(self, keys: Sequence[str], arguments: Sequence[str]) -> tuple[Any, ...]:
        """Return the command that runs a script the server knows."""
        return "EVALSHA", self.sha, len(keys), *keys, *arguments

    def by_source(self, keys: Sequence[str], arguments: Sequence[str]) -> tuple[Any, ...]:
        """Return the command that runs the script and makes it known."""
        return "EVAL", self.source, len(keys), *keys, *arguments


Call: TypeAlias = tuple[Script, Sequence[str], Sequence[str]]
"""A script, its keys and its arguments."""


@functools.cache
def script_for(algorithm: str) -> Script:
    """Return the script of one rate-limit algorithm that decides.

    No call of it blocks the server for more than about a millisecond: a request costs it 2 to 3 microseconds, one
    on a sliding log, where each step is stored, 12.
    """
    return script_of("_prelude", algorithm, "_limits", "_main", largest=80 if algorithm == "sliding_log" else 250)


@functools.cache
def ledger_for(algorithm: str) -> Script:
    """Return the script of one rate-limit algorithm that keeps account: observe, drain, reserve, settle."""
    return script_of("_prelude", algorithm, "_limits", "_ledger")


@functools.cache
def script_of(*parts: str, largest: int = 1) -> Script:
    """Return the script that consists of those files of the folder, in that order."""
    folder = resources.files("resilience_redis") / "scripts"
    source = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(source, sha, largest)
