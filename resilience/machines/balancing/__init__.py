"""Load balancing: which of several endpoints gets the next request, and which get none for a while.

    pool = Pool(chooser("two_choices"))
    pool.replace({"http://a": 1, "http://b": 1}, now=0.0)
    endpoint = pool.pick(now=0.0, draws=(0.3, 0.7))
    ticket = pool.begin(endpoint, now=0.0)
    pool.end(ticket, now=0.1, success=True)

`endpoint.py` is what is known of one endpoint, `choosers.py` the strategies, `hashing.py` what is stable per key,
`outliers.py` and `health.py` when an endpoint is left alone, `pool.py` all of it together.
"""

from __future__ import annotations

from .choosers import Chooser, Strategy, chooser
from .endpoint import EndpointState, Ticket
from .hashing import fraction, rank
from .health import HealthRule
from .outliers import OutlierRule
from .pool import Pool, Transition

__all__ = [
    "Chooser",
    "EndpointState",
    "HealthRule",
    "OutlierRule",
    "Pool",
    "Strategy",
    "Ticket",
    "Transition",
    "chooser",
    "fraction",
    "rank",
]
