"""The commands and their options; what they do is beside them, and imported when they run."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

redis_app: typer.Typer = typer.Typer(
    help="See, and reset, what processes share through a Redis server.", no_args_is_help=True, add_completion=False
)


class KindOption(StrEnum):
    """What can be chosen: the readers of `resilience_redis.inspection` and keys that none of them knows."""

    MEMBERS = "members"
    SLICES = "slices"
    LIMITS = "limits"
    RESERVATIONS = "reservations"
    CIRCUITS = "circuits"
    PERMITS = "permits"
    BUDGETS = "budgets"
    CACHE = "cache"
    OTHER = "other"


Url: TypeAlias = Annotated[
    str, typer.Argument(help="The server, or any one of a cluster: redis://, rediss://, unix://")
]
Prefix: TypeAlias = Annotated[str, typer.Option(help="The namespace: the `prefix` of the store.")]
Name: TypeAlias = Annotated[str | None, typer.Option(help="Only what policies of this name share.")]
OfKind: TypeAlias = Annotated[KindOption | None, typer.Option("--kind", help="Only this kind.")]


@redis_app.command()
def inspect(
    url: Url,
    prefix: Prefix = "resilience",
    name: Name = None,
    kind: OfKind = None,
    limit: Annotated[int, typer.Option(min=1, help="Read at most so many keys.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """List what is in a namespace: limits, circuits, permits, live processes and more.

    Changes nothing and holds up nobody.

    The exit status is 1 if the server does not answer or does not let us in.
    """
    _require_redis()
    from .look import inspect

    sys.exit(inspect(url, prefix, name, kind and kind.value, limit, as_json))


@redis_app.command()
def reset(
    url: Url,
    prefix: Prefix = "resilience",
    name: Name = None,
    kind: OfKind = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete what processes share in a namespace, after showing what that is: limits and permits are free again.

    Circuits are closed, in every process.

    The exit status is 1 if it was not confirmed, or the server does not answer or does not let us in.
    """
    _require_redis()
    from .reset import reset

    sys.exit(reset(url, prefix, name, kind and kind.value, yes))


def _require_redis() -> None:
    from ..app import require

    require("redis", "redis")
