"""Faults on demand under an HTTP client: delays, errors of the client, statuses, bodies that are cut off.

    chaos = ChaosTransport(statuses=[503], errors=["ConnectError"], cut=100, rate=0.05, seed=7)
    client = httpx2.AsyncClient(transport=ResilientTransport(orders, chaos))
    chaos.enable()

It stands for the network and the server, so it is the innermost transport. It is off until it is switched on; what it
does bears a mark: a header `X-Chaos` of the response, or a note of the exception.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

from resilience.call import Call, Operation
from resilience.events import Listener
from resilience.machines.chaos import LatencyRule
from resilience.policies.chaos import Chaos

from .chaos_faults import MARK, Delayed, RequestFault, faults_of
from .host import host_of
from .inner import OuterTransport
from .options import TransportOptions, check_transport
from .scopes import origin

if TYPE_CHECKING:
    import httpx
    import httpx2


class ChaosTransport(OuterTransport):
    """A transport for `httpx.AsyncClient` and `httpx2.AsyncClient` that disturbs the share `rate` (1.0) of requests.

    `transport` does the sending; by default the library's own AsyncHTTPTransport, made with `options` when the first
    request arrives. Disturbed requests wait for `latency`: seconds, a pair (uniform between the two), or a function of
    a draw from [0, 1) such as `Exponential(0.2)`. Then one fault is chosen, each as likely: an exception of `errors`
    (names of the client's own, such as "ConnectError"; or exceptions, or types of them), a response with one of
    `statuses` (an empty body, and `headers`) instead of sending, or, with `cut`, a body that breaks off after so many
    bytes. Without any the request is sent after the delay.

    The key of a request is its origin (`https://api.example`), or what the function `key` says: only those in `keys`
    (a collection, or a predicate; by default all) are disturbed. `between`, `seed`, `enabled`, `name` and `listeners`
    are those of `Chaos`. `enable`, `disable` and `injected` are those of `chaos`.

    Raises TypeError or ValueError at construction for bad options.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport | None = None,
        *,
        latency: LatencyRule | None = None,
        errors: Sequence[str | Exception | type[Exception]] = (),
        statuses: Sequence[int] = (),
        headers: Mapping[str, str] = {},  # never written to
        cut: int | None = None,
        rate: float = 1.0,
        seed: int | None = None,
        between: tuple[float, float] | None = None,
        key: Callable[[Any], str] | None = None,
        keys: Collection[str] | Callable[[str], bool] | None = None,
        enabled: bool = False,
        name: str | None = None,
        listeners: Sequence[Listener] = (),
        **options: Unpack[TransportOptions],
    ) -> None:
        check_transport(transport, options)
        if isinstance(errors, str):
            raise TypeError(f"errors must be a sequence, got {errors!r}")
        raised = [error for error in errors if not isinstance(error, str)]
        faults = faults_of([error for error in errors if isinstance(error, str)], statuses, headers, cut)
        self.chaos: Chaos = Chaos(
            latency=latency,
            errors=raised,
            # Responses that are only late are marked, too.
            results=faults or [Delayed()] * (latency is not None and not raised),
            rate=rate,
            seed=seed,
            between=between,
            keys=keys,
            enabled=enabled,
            name=name or type(self).__name__,
            listeners=listeners,
        )
        """The policy that chooses; it has the listeners."""
        super().__init__(transport, options)
        self._key_of = key or origin
        self._operation = Operation(self.chaos.name)

    def enable(self) -> None:
        """Switch it on; the times of `between` and the draws of `seed` begin anew."""
        self.chaos.enable()

    def disable(self) -> None:
        """Leave all requests alone from now on."""
        self.chaos.disable()

    @property
    def injected(self) -> int:
        """Requests disturbed so far."""
        return self.chaos.injected

    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...
    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...
    async def handle_async_request(self, request: Any) -> Any:
        """Send a request, or disturb it; clients call it. Raises what the transport raises, and what is injected."""
        host = host_of(request)
        inner = self._inner(host)
        if not self.chaos.enabled:
            return await inner.handle_async_request(request)
        call = Call(self._operation, inner.handle_async_request, (request,), key=self._key_of(request))
        outcome = await self.chaos.run(call)
        if isinstance(outcome, RequestFault):
            response = await outcome.play(host, request, inner, f"injected by {self.chaos.name}")
            response.headers[MARK] = self.chaos.name
            return response
        return outcome
