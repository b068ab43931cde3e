"""SingleFlight: calls with equal arguments that overlap share one run.

    @SingleFlight()
    async def profile(user: str) -> dict: ...

    await asyncio.gather(profile("ann"), profile("ann"), profile("bob"))     # two runs

Nothing is kept: the next call after the result runs again. To keep it, and to share a run between processes, see
`Cache`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from ..caching._call_keys import Keys
from ..caching._flight import Flight, Flights
from ..call import Call, Handler
from ..events import CallCoalesced, Listener
from ..policy import Policy


class SingleFlight(Policy):
    """Run a function once for all calls with equal arguments that are under way at the same time.

    All get the same result, or an exception of their own like the one that was raised. The run is a task of its own:
    it survives the cancellation of its first caller, and is cancelled when nobody waits for it any more. A caller's
    deadline ends the wait of that caller alone; the run itself knows the latest deadline of all who wait. It has a
    copy of the first caller's context variables.

    Which calls are equal: the function and its arguments, `1`, `True` and `1.0` being different; or what `key`, a
    function of the arguments, returns. `ignore` names parameters that do not count, such as `self`, which otherwise
    counts by its identity. Raises TypeError for arguments that cannot be hashed. Calls that must not be made for
    another (not `repeatable`, or with a result that is still alive, as a streamed response) run by themselves.
    """

    def __init__(
        self,
        *,
        key: Callable[..., Hashable] | None = None,
        ignore: Sequence[str] = (),
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        super().__init__(name, listeners)
        self._keys = Keys(key, ignore)
        self._flights = Flights()

    def wrap(self, proceed: Handler) -> Handler:
        """Fold the flights around `proceed`."""

        async def run(flight: Flight) -> Any:
            return await proceed(flight.call)

        async def shared(call: Call) -> Any:
            if call.lease is not None or not call.repeatable:
                return await proceed(call)
            key = self._keys.of(call)
            flight = self._flights.find(key)
            if flight is not None:
                if self.listeners:
                    self.emit(CallCoalesced(call.operation.name, self.name, flight.waiting + 1))
                return await flight.join(call)
            flight = self._flights.start(key, call, run, discard=call.operation.discard)
            try:
                return await flight.join(call)
            finally:
                call.attempt = flight.call.attempt

        return shared
