"""Decorate a function: every call of it runs under the pipeline."""

import asyncio
from collections.abc import Iterator

from resilience import Backoff, Pipeline, Retry, Timeout

payments = Pipeline(Timeout(5), Retry(attempts=3, backoff=Backoff.constant(0.01)), name="payments")
answers: Iterator[str | Exception] = iter([ConnectionError("reset"), ConnectionError("reset"), "receipt 17"])


@payments
async def charge(order: int) -> str:
    answer = next(answers)
    print("charging order", order)
    if isinstance(answer, Exception):
        raise answer
    return answer


print(asyncio.run(charge(17)))

# Prints:
# charging order 17
# charging order 17
# charging order 17
# receipt 17
