"""The options of a ResilientTransport: what may be passed on to the client library, and which classifier judges.

ResilientTransport(payments, http2=True, verify=context, statuses=FAILURES | {522})
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypedDict

from resilience.policy import Policy
from resilience.verdict import DEFAULT_CLASSIFIER, Classifier

from .classify import HTTP_CLASSIFIER, http_classifier
from .scopes import Scope
from .stream_timeout import StreamTimeout


class TransportOptions(TypedDict, total=False):
    """Options of the client library's own `AsyncHTTPTransport`, which is made when none is given."""

    verify: ssl.SSLContext | str | bool
    cert: Any
    trust_env: bool
    http1: bool
    http2: bool
    limits: Any
    proxy: Any
    uds: str | None
    local_address: str | None
    retries: int
    socket_options: Any


class ResilienceOptions(TypedDict, total=False):
    """Options of a ResilientTransport, for those who make one of them; see there."""

    key: Scope | None
    routes: Sequence[str]
    statuses: Collection[int] | None
    classifier: Classifier | None
    retry_methods: Collection[str]
    retry_unsent: bool
    idempotency_key: bool | Callable[[Any], str]
    stream_timeout: StreamTimeout | None
    attempt_header: str | None
    deadline_header: str | None
    name: str | None


def check_transport(transport: Any, options: TransportOptions) -> None:
    """Raise TypeError for an unknown option, a transport that is none, or options for a transport that is given."""
    unknown = ", ".join(sorted(set(options) - set(TransportOptions.__annotations__)))
    if unknown:
        raise TypeError(f"ResilientTransport has no option {unknown}")
    if transport is None:
        return
    if not callable(getattr(transport, "handle_async_request", None)):
        raise TypeError(f"transport must be an async transport, got {transport!r}")
    if options:
        raise TypeError(f"{', '.join(sorted(options))} must be left out: the transport given has its own options")


def classifier_of(policy: Policy, classifier: Classifier | None, statuses: Collection[int] | None) -> Classifier:
    """The one given, else that of the pipeline, else the one for HTTP."""
    if classifier is not None:
        if not isinstance(classifier, Classifier):
            raise TypeError(f"classifier must be a Classifier, got {classifier!r}")
        if statuses is not None:
            raise TypeError("statuses must be left out when there is a classifier: it judges responses")
        return classifier
    if statuses is not None:
        return http_classifier(failures=statuses)
    own = policy.operation.classifier
    return HTTP_CLASSIFIER if own is DEFAULT_CLASSIFIER else own


def upper_methods(methods: Collection[str]) -> frozenset[str]:
    """Names of methods in upper case. Raises TypeError for anything else."""
    if isinstance(methods, str) or not all(isinstance(method, str) for method in methods):
        raise TypeError(f"retry_methods must be a collection of method names, got {methods!r}")
    return frozenset(method.upper() for method in methods)
