"""Guard a block of code: for policies that a call passes once (no Retry, no Fallback)."""

import asyncio

from resilience import Bulkhead, BulkheadFullError, CircuitBreaker, Pipeline

database = Pipeline(CircuitBreaker(), Bulkhead(2), name="database")


async def query(number: int) -> None:
    try:
        async with database.guard():
            await asyncio.sleep(0.01)
            print(f"query {number} done")
    except BulkheadFullError as error:
        print(f"query {number} refused: {error}")


async def main() -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(query(number))


asyncio.run(main())

# Prints:
# query 2 refused: Bulkhead is full: 2 of 2 in use, 0 waiting
# query 0 done
# query 1 done
