"""The rate-limit algorithms as pure machines, and the decision over several limits at once.

rule = GCRA(limit=100, period=1.0, burst=20)
decision, state = decide_one(rule, None, now=0.0, cost=1, max_wait=0.0)
"""

from __future__ import annotations

from resilience.machines.rate_limiter.decide import Decision, decide, decide_one, peek
from resilience.machines.rate_limiter.fixed_window import FixedWindow
from resilience.machines.rate_limiter.gcra import GCRA
from resilience.machines.rate_limiter.leaky_bucket import LeakyBucket
from resilience.machines.rate_limiter.rule import Rule, check_cost, check_costs
from resilience.machines.rate_limiter.sliding_log import SlidingLog
from resilience.machines.rate_limiter.sliding_window import SlidingWindow
from resilience.machines.rate_limiter.token_bucket import TokenBucket

__all__ = [
    "GCRA",
    "Decision",
    "FixedWindow",
    "LeakyBucket",
    "Rule",
    "SlidingLog",
    "SlidingWindow",
    "TokenBucket",
    "check_cost",
    "check_costs",
    "decide",
    "decide_one",
    "peek",
]
