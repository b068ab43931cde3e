"""A policy of your own: a guard is two hooks, and composes like any other."""

import asyncio
from typing import Any

from resilience import Call, Guard, Pipeline, RejectedError, Timeout


class Maintenance(Guard[bool]):
    """Refuses every call while `active`."""

    active = False

    def enter(self, call: Call) -> bool:
        if self.active:
            raise RejectedError(f"{call.operation.name} is closed for maintenance", policy=self.name)
        return True

    def leave(self, call: Call, token: bool, result: Any, error: BaseException | None) -> None:
        print("left with", repr(error or result))


maintenance = Maintenance()


@Pipeline(maintenance, Timeout(1))
async def order() -> str:
    return "ordered"


async def main() -> None:
    await order()
    maintenance.active = True
    try:
        await order()
    except RejectedError as error:
        print(error)


asyncio.run(main())

# Prints:
# left with 'ordered'
# order is closed for maintenance
