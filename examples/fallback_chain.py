"""Something to give instead of an error: the last good value, then a replica, then a constant."""

import asyncio

from resilience import Fallback, LastGood

healthy = True


async def from_replica(user: str) -> list[str]:
    if user == "bob":
        return ["from the replica"]
    raise ConnectionError("the replica is down too")


@Fallback(LastGood(60), from_replica, []).bind(key=str)
async def recommendations(user: str) -> list[str]:
    if not healthy:
        raise ConnectionError("down")
    return [f"fresh for {user}"]


async def main() -> None:
    global healthy
    print(await recommendations("ann"))
    healthy = False
    print(await recommendations("ann"))
    print(await recommendations("bob"))
    print(await recommendations("cem"))


asyncio.run(main())

# Prints:
# ['fresh for ann']
# ['fresh for ann']
# ['from the replica']
# []
