"""Guard an async generator: the permit is held until it is exhausted or closed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from resilience import Bulkhead

exports = Bulkhead(1)


@exports
async def pages(count: int) -> AsyncGenerator[str, None]:
    for number in range(count):
        yield f"page {number}"


async def main() -> None:
    async with aclosing(pages(100)) as stream:
        async for page in stream:
            print(page, "- permits in use:", exports.in_use())
            if page == "page 1":
                break
    print("closed - permits in use:", exports.in_use())


asyncio.run(main())

# Prints:
# page 0 - permits in use: 1
# page 1 - permits in use: 1
# closed - permits in use: 0
