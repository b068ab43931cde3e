"""Several servers behind one transport: load balancing, and traffic split between versions.

    ResilientTransport(orders, Balanced(["http://10.0.0.7", "http://10.0.0.8"]))
    Split({"stable": Balanced([...]), "canary": Balanced([...])}, weights={"stable": 95, "canary": 5})

`transport.py` is `Balanced`, `split.py` is `Split`; the decisions are made in `resilience/machines/balancing`.
"""

from __future__ import annotations

from resilience.machines.balancing import OutlierRule

from .endpoint import Endpoint, NoEndpointError
from .health import HealthCheck
from .resolvers import DnsResolver, FileResolver, FunctionResolver, Resolver
from .shadow import Shadow
from .split import Split
from .srv import SrvResolver
from .transport import Balanced, EndpointStatus

__all__ = [
    "Balanced",
    "DnsResolver",
    "Endpoint",
    "EndpointStatus",
    "FileResolver",
    "FunctionResolver",
    "HealthCheck",
    "NoEndpointError",
    "OutlierRule",
    "Resolver",
    "Shadow",
    "Split",
    "SrvResolver",
]
