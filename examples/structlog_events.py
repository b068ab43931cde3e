"""Events as structlog entries."""

import asyncio
from collections.abc import Iterator

import structlog

from resilience import Backoff, Pipeline, Retry
from resilience_structlog import StructlogListener

logfmt = structlog.processors.LogfmtRenderer(key_order=["level", "event"])
structlog.configure(processors=[structlog.processors.add_log_level, logfmt])

answers: Iterator[str | Exception] = iter([ConnectionError("reset"), "ok"])
orders = Pipeline(Retry(backoff=Backoff.constant(0.01)), name="orders", listeners=[StructlogListener()])


@orders
async def fetch() -> str:
    answer = next(answers)
    if isinstance(answer, Exception):
        raise answer
    return answer


orders.listen(lambda event: print("a plain function listens as well:", event.kind))
asyncio.run(fetch())

# Prints:
# level=info event=retry_scheduled operation=fetch policy=Retry attempt=1 delay=0.01 error="ConnectionError: reset"
# a plain function listens as well: retry_scheduled
# ...
# a plain function listens as well: call_succeeded
