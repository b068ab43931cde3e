"""The commands: `resilience --version`, `resilience demo`, `resilience redis`.

Each command imports what it needs when it runs, and names the extra to install if that is missing.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from .. import __version__
from .redis.commands import redis_app

app: typer.Typer = typer.Typer(
    help="Resilience for async calls: see it work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(redis_app, name="redis")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"resilience {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Resilience for async calls: see it work."""


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=4, max=600, help="How long the load lasts.")] = 16.0,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Processes of each kind, protected and not.")] = 4,
    redis: Annotated[str | None, typer.Option(help="A running server; by default one is found or started.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON, and nothing else.")] = False,
) -> None:
    """Send the same load to two equal upstreams that break down, with and without protection.

    The exit status is 0 if every promise in the summary was kept, 1 if not, 2 if the demonstration could not run.
    """
    require("demo", "httpx2", "rich", "starlette", "uvicorn")
    from .demo.run import Options, run

    sys.exit(run(Options(seconds=seconds, workers=workers, redis=redis, as_json=as_json)))


def require(extra: str, *modules: str) -> None:
    """Exit with status 2, naming the extra, if one of the modules is not installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        typer.echo(f"resilience: needs {', '.join(missing)}: pip install 'anyresilience[{extra}]'", err=True)
        raise typer.Exit(2)
