"""The one clock of the library: monotonic seconds.

Policies read it as `clock.now()`. It is a module attribute on purpose: at rest it *is* `time.monotonic`, so
a reading costs what the builtin costs, and `resilience.testing` can put a virtual clock in its place for
policies that were made long before, at import time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

now: Callable[[], float] = time.monotonic
"""Seconds on a clock that never runs backwards; only differences mean something."""
