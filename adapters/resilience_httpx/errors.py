"""Our errors as members of the client library's tree, so that existing `except` clauses hold.

    try:
        await client.get(url)
    except httpx2.TransportError as error:    # also a resilience.CircuitOpenError
        print(error.retry_after)

A timeout of ours is also a `TimeoutException` of the library, everything else a `TransportError`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from resilience.errors import ResilienceError, TimedOutError, attributes_of, remade

from .host import Host, host_named


def in_tree(error: BaseException, host: Host, request: Any) -> ResilienceError | None:
    """An error of ours as a member of both trees, with its attributes and `request`; None for any other error."""
    if not isinstance(error, ResilienceError) or isinstance(error, host.TransportError):
        return None
    kind: Any = type(error)
    return _rebuilt(kind, host.name, error.args, {**attributes_of(error), "_request": request})


@cache
def _both(kind: Any, host: str) -> Any:
    library = host_named(host)
    base = library.TimeoutException if issubclass(kind, TimedOutError) else library.TransportError

    def reduce(self: Any) -> tuple[Any, ...]:
        return _rebuilt, (kind, host, self.args, attributes_of(self))

    members: dict[str, Any] = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce__": reduce,
    }
    return type(kind.__name__, (kind, base), members)


def _rebuilt(kind: Any, host: str, args: tuple[Any, ...], state: dict[str, Any]) -> ResilienceError:
    error: ResilienceError = remade(_both(kind, host), args, state)
    return error
