"""The libraries we measure ourselves against, and whether they are here.

nopanic = module("nopanic")        # raises MissingError if it is not installed
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PEERS: dict[str, str] = {
    "aiobreaker": "aiobreaker",
    "aiolimiter": "aiolimiter",
    "aioresilience": "aioresilience",
    "bulklink": "bulklink",
    "httpx-retries": "httpx_retries",
    "hyx": "hyx",
    "interlock-cb": "interlock",
    "limits": "limits",
    "nopanic": "nopanic",
    "purgatory": "purgatory",
    "pyrate-limiter": "pyrate_limiter",
    "pyresilience": "pyresilience",
    "stamina": "stamina",
    "tenacity": "tenacity",
    "throttled-py": "throttled",
}
"""Import names by distribution; the `bench` group of pyproject.toml installs them."""


class MissingError(Exception):
    """A peer that is not installed or cannot be imported; the message says why."""


def module(distribution: str, submodule: str = "") -> Any:
    """Import a peer. Raises MissingError."""
    name = PEERS[distribution] + (f".{submodule}" if submodule else "")
    if installed(distribution) is None:
        raise MissingError("not installed here: run with `uv run --group bench`")
    try:
        return import_module(name)
    except Exception as error:  # whatever a foreign package raises on import
        raise MissingError(f"cannot be imported: {type(error).__name__}: {error}") from error


def installed(distribution: str) -> str | None:
    """The version of a peer that is installed, or None."""
    if distribution not in PEERS:
        return None
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
