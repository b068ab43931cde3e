"""What one request may say for itself, and whether it may be sent twice.

await client.post(url, extensions={"resilience": {"key": tenant, "cost": 5, "retry": True}})
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypedDict, cast

from resilience._validate import not_negative
from resilience.policy import Policy

from .host import Host

EXTENSION = "resilience"
"""Our name in the extensions of requests and responses."""

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
"""Methods that mean the same when sent twice (RFC 9110, section 9.2.2), and QUERY, a GET with a body."""


class Overrides(TypedDict, total=False):
    """The keys of `extensions["resilience"]` of a request; every one may be left out."""

    key: str
    """The partition (tenant, host) for policies that keep state per key."""
    cost: float
    """What the request weighs in rate limiters."""
    retry: bool
    """Whether it may be sent again, whatever its method. A body that cannot be replayed is never sent again."""
    policy: Policy | None
    """Another policy for this request; None sends it without any."""
    name: str
    """The name of the operation in events and errors."""


_NONE = Overrides()


def read_overrides(extensions: Mapping[str, Any]) -> Overrides:
    """The overrides of a request. Raises TypeError or ValueError for an unknown key or a wrong value."""
    given = extensions.get(EXTENSION)
    if given is None:
        return _NONE
    if not isinstance(given, Mapping):
        raise TypeError(f"extensions[{EXTENSION!r}] must be a mapping, got {given!r}")
    values = cast("Mapping[str, Any]", given)
    for field, value in values.items():
        if field not in Overrides.__annotations__:
            known = ", ".join(Overrides.__annotations__)
            raise ValueError(f"extensions[{EXTENSION!r}] has no key {field!r}; its keys are {known}")
        _check(field, value)
    return cast("Overrides", values)


def _check(field: str, value: Any) -> None:
    if field == "cost":
        not_negative("cost", value)
        return
    kinds: dict[str, tuple[type, ...]] = {
        "key": (str,),
        "retry": (bool,),
        "policy": (Policy, type(None)),
        "name": (str,),
    }
    if not isinstance(value, kinds[field]):
        wanted = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds[field])
        raise TypeError(f"{field} must be a {wanted}, got {value!r}")


def repeatable(request: Any, host: Host, retry: bool | None, methods: Collection[str]) -> bool:
    """Whether a request may be sent again: its sender allows it, and its body can be sent again as it was.

    `retry` is what the request says itself, if anything; else its method decides, or an `Idempotency-Key`, with
    which a server recognises a repetition.
    """
    if retry is None:
        retry = request.method in methods or "idempotency-key" in request.headers
    return retry and _replayable(request.stream, host)


def _replayable(stream: Any, host: Host) -> bool:
    """Bytes, or a multipart form of them and of files that can seek: forms start every file from its beginning."""
    if isinstance(stream, host.ByteStream):
        return True
    if type(stream).__name__ != "MultipartStream":
        return False
    fields: list[Any] = stream.fields
    return all(_seekable(getattr(field, "file", b"")) for field in fields)


def _seekable(file: Any) -> bool:
    if isinstance(file, str | bytes):
        return True
    ask = getattr(file, "seekable", None)
    return bool(ask()) if callable(ask) else hasattr(file, "seek")
