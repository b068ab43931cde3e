"""The Lua scripts: read from the package, known to the server by their SHA-1.

    script = script_for("gcra")
    reply = await run(client, (script, keys, arguments))

A script is three files in a row: what all share, one algorithm, the operations. The server's script cache is
lost with every restart and failover, so every call is ready to send the source again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeAlias

from redis.exceptions import NoScriptError


@dataclass(frozen=True, slots=True)
class Script:
    """The source of a script and the SHA-1 it has on every server."""

    source: str
    sha: str

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
    """Return the script of one rate-limit algorithm."""
    folder = resources.files("resilience_redis") / "scripts"
    parts = ("_prelude", algorithm, "_main")
    source = "\n".join((folder / f"{part}.lua").read_text("utf-8") for part in parts)
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


async def run(client: Any, call: Call) -> Any:
    """Run a script in one round trip; in two if the server does not know it yet."""
    script, keys, arguments = call
    try:
        return await client.execute_command(*script.by_sha(keys, arguments))
    except NoScriptError:
        return await client.execute_command(*script.by_source(keys, arguments))


async def run_all(client: Any, calls: Sequence[Call]) -> list[Any]:
    """Run many scripts in one round trip; return a reply or an exception for each.

    Those of which the server said that it does not know the script are sent once more with the source.
    """
    replies = await _pipelined(client, [script.by_sha(keys, arguments) for script, keys, arguments in calls])
    unknown = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        again = [calls[index] for index in unknown]
        sources = [script.by_source(keys, arguments) for script, keys, arguments in again]
        for index, reply in zip(unknown, await _pipelined(client, sources), strict=True):
            replies[index] = reply
    return replies


async def _pipelined(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        for command in commands:
            pipeline.execute_command(*command)
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies
