"""Break your own calls on purpose, and see what the policies around them make of it."""

from __future__ import annotations

from resilience import Backoff, Chaos, CircuitBreaker, Event, Pipeline, Retry, Timeout
from resilience.events import ChaosInjected, CircuitOpened
from resilience.testing import VirtualClock


async def fetch() -> str:
    return "order 17"


def report(event: Event) -> None:
    match event:
        case ChaosInjected(fault=fault, policy=policy):
            print(f"  {policy}: {fault}")
        case CircuitOpened():
            print("  the circuit opens")
        case _:
            pass


async def main() -> None:
    chaos = Chaos(errors=[ConnectionError], rate=0.4, seed=3, name="chaos")
    orders = Pipeline(
        Timeout(10),
        Retry(attempts=3, backoff=Backoff.none()),
        CircuitBreaker(count=20, minimum_calls=10, failure_rate=0.5),
        Timeout(2),
        chaos,  # innermost: it stands for the dependency
        listeners=[report],
    )
    print("off:", await orders.call(fetch))

    chaos.enable()
    for number in range(4):
        outcome = await orders.outcome(fetch)
        print(f"call {number}:", outcome.value if outcome.error is None else repr(outcome.error))

    everything = Chaos(errors=[ConnectionError("reset by peer")], enabled=True, name="blackout")
    outcome = await everything.outcome(fetch)
    print(repr(outcome.error), outcome.error.__notes__ if outcome.error else "")


if __name__ == "__main__":
    with VirtualClock().installed() as virtual:
        virtual.run(main)

# Prints:
# off: order 17
#   chaos: ConnectionError
# call 0: order 17
#   chaos: ConnectionError
#   chaos: ConnectionError
# call 1: order 17
#   chaos: ConnectionError
# call 2: order 17
#   chaos: ConnectionError
#   chaos: ConnectionError
#   the circuit opens
# call 3: CircuitOpenError()
# ConnectionError('reset by peer') ['injected by blackout']
