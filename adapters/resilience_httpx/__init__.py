"""Policies under the HTTP client you have: a transport for httpx and for httpx2.

    from resilience_httpx import ResilientTransport

    client = httpx2.AsyncClient(transport=ResilientTransport(payments))

Needs either library: `anyresilience[httpx2]` or `anyresilience[httpx]`. Raises ImportError without both.
"""

from __future__ import annotations

from .balanced import (
    Balanced,
    DnsResolver,
    Endpoint,
    EndpointStatus,
    FileResolver,
    FunctionResolver,
    HealthCheck,
    NoEndpointError,
    OutlierRule,
    Resolver,
    Shadow,
    Split,
    SrvResolver,
)
from .chaos import ChaosTransport
from .classify import FAILURES, THROTTLED, http_classifier
from .exchange import BodyInUseError, Report
from .host import require_host
from .moments import seconds_until
from .options import TransportOptions
from .overrides import IDEMPOTENT, Overrides
from .protect import protect
from .retry_after import advised_delay
from .stream_timeout import StreamTimeout
from .transport import ResilientTransport

require_host()

__all__ = [
    "FAILURES",
    "IDEMPOTENT",
    "THROTTLED",
    "Balanced",
    "BodyInUseError",
    "ChaosTransport",
    "DnsResolver",
    "Endpoint",
    "EndpointStatus",
    "FileResolver",
    "FunctionResolver",
    "HealthCheck",
    "NoEndpointError",
    "OutlierRule",
    "Overrides",
    "Report",
    "ResilientTransport",
    "Resolver",
    "Shadow",
    "Split",
    "SrvResolver",
    "StreamTimeout",
    "TransportOptions",
    "advised_delay",
    "http_classifier",
    "protect",
    "seconds_until",
]
