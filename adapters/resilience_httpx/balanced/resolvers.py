"""Where lists of endpoints come from, while the program runs.

Balanced(FunctionResolver(registered, interval=10))     # or just the function
Balanced(DnsResolver("orders.internal", port=8443))
Balanced(FileResolver("/etc/orders/endpoints"))
"""

from __future__ import annotations

import inspect
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, cast, runtime_checkable

import anyio
import anyio.to_thread

from resilience._validate import check_integer, check_number, one_of

from .endpoint import Endpoint


@runtime_checkable
class Resolver(Protocol):
    """A source of endpoints, asked before the first request and then every `interval` seconds."""

    interval: float

    async def resolve(self) -> Iterable[str | Endpoint] | None:
        """All endpoints there are now; None if they have not changed. May raise."""
        ...


class FunctionResolver:
    """The endpoints that a function returns, plain or async. Plain ones run in the event loop and must not block.

    Raises TypeError unless `function` is callable, ValueError unless `interval` (30 s) is above 0.
    """

    def __init__(
        self,
        function: Callable[[], Iterable[str | Endpoint] | Awaitable[Iterable[str | Endpoint]]],
        *,
        interval: float = 30.0,
    ) -> None:
        if not callable(function):
            raise TypeError(f"function must be callable, got {function!r}")
        check_number("interval", interval, above=0)
        self.interval: float = interval
        self._function = function

    async def resolve(self) -> Iterable[str | Endpoint]:
        """What the function returns."""
        found = self._function()
        if inspect.isawaitable(found):
            return await found
        return found


class DnsResolver:
    """All addresses of a name (A and AAAA records, by the system's resolver); Host header and TLS use the name.

    `family` is "any" (default), "ipv4" or "ipv6". Raises TypeError or ValueError for values out of range; `resolve`
    raises OSError if the name cannot be looked up.
    """

    def __init__(
        self,
        name: str,
        *,
        port: int = 443,
        scheme: str = "https",
        path: str = "",
        family: str = "any",
        interval: float = 30.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be a non-empty string, got {name!r}")
        check_integer("port", port, 1)
        check_number("port", port, most=65535)
        families = {"any": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
        check_number("interval", interval, above=0)
        self.interval: float = interval
        self._family = families[one_of("family", family, tuple(families))]
        self._name = name
        self._port = port
        self._template = Endpoint(f"{scheme}://127.0.0.1:{port}{path}")
        usual = {"http": 80, "https": 443}[self._template.parts.scheme]
        self._host = name if port == usual else f"{name}:{port}"

    async def resolve(self) -> list[Endpoint]:
        """One endpoint for each address, in a lasting order."""
        found = await anyio.getaddrinfo(self._name, self._port, family=self._family, type=socket.SOCK_STREAM)
        addresses = {ipaddress.ip_address(address[0]) for *_, address in found}
        ordered = sorted(addresses, key=lambda address: (address.version, address.packed))
        return [self._endpoint(f"[{each}]" if each.version == 6 else str(each)) for each in ordered]

    def _endpoint(self, address: str) -> Endpoint:
        parts = self._template.parts._replace(netloc=f"{address}:{self._port}")
        return Endpoint(parts.geturl(), host=self._host)


class FileResolver:
    """The endpoints in a text file, read again when its modification time or size changes.

    A line has a URL, optionally followed by a weight; empty lines and those that begin with `#` are skipped.
    Replace the file at once (write another, rename it), for one that is half written is read as it is. Looked at every
    `interval` (1 s). `resolve` raises OSError if the file cannot be read, ValueError naming a wrong line.
    """

    def __init__(self, path: str | os.PathLike[str], *, interval: float = 1.0) -> None:
        check_number("interval", interval, above=0)
        self.interval: float = interval
        self._path = os.fspath(path)
        self._seen: tuple[int, int] | None = None

    async def resolve(self) -> list[Endpoint] | None:
        """The endpoints in the file, or None if it is as it was."""
        return await anyio.to_thread.run_sync(self._read)

    def _read(self) -> list[Endpoint] | None:
        with open(self._path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            seen = (status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return None
            found = [self._endpoint(line, number) for number, line in enumerate(file, 1) if _says_something(line)]
        self._seen = seen
        return found

    def _endpoint(self, line: str, number: int) -> Endpoint:
        url, *rest = line.split()
        try:
            if len(rest) > 1:
                raise ValueError("a line has a URL and a weight")
            return Endpoint(url, float(rest[0]) if rest else 1.0)
        except ValueError as error:
            raise ValueError(f"{self._path}, line {number}: {error}") from error


def _says_something(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


class StaticResolver:
    """A list that never changes."""

    interval: float = float("inf")

    def __init__(self, endpoints: Iterable[str | Endpoint]) -> None:
        self.endpoints: tuple[str | Endpoint, ...] = tuple(endpoints)
        """The list."""

    async def resolve(self) -> Iterable[str | Endpoint]:
        """The list."""
        return self.endpoints


def resolver_of(endpoints: Any) -> Resolver:
    """A resolver from itself, from a function or from a list. Raises TypeError for anything else."""
    if isinstance(endpoints, Resolver):
        return endpoints
    if callable(endpoints):
        return FunctionResolver(cast("Callable[[], Iterable[str | Endpoint]]", endpoints))
    if isinstance(endpoints, str) or not isinstance(endpoints, Iterable):
        raise TypeError(f"endpoints must be a list of URLs, a function or a resolver, got {endpoints!r}")
    return StaticResolver(cast("Iterable[str | Endpoint]", endpoints))
