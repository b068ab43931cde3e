"""Retry on some errors and on some results; the server may ask for a pause."""

import asyncio
from collections.abc import Iterator

from resilience import Backoff, Retry


class ThrottledError(Exception):
    """Carries `retry_after` seconds, which a retry heeds."""

    retry_after = 0.05


answers: Iterator[dict[str, str] | Exception] = iter([ThrottledError(), {"status": "pending"}, {"status": "done"}])


async def poll() -> dict[str, str]:
    answer = next(answers)
    if isinstance(answer, Exception):
        raise answer
    return answer


patient = Retry(
    attempts=5,
    backoff=Backoff.full(base=0.01, cap=0.1),
    on=ThrottledError,
    on_result=lambda answer: answer["status"] == "pending",
)
patient.listen(lambda event: print(event.kind))
print(asyncio.run(patient.call(poll)))

# Prints:
# retry_scheduled
# retry_scheduled
# {'status': 'done'}
