"""ResilientTransport: any policy under the client you have.

client = httpx2.AsyncClient(transport=ResilientTransport(payments))   # or httpx.AsyncClient
response = await client.get("https://api.example/orders")
response.extensions["resilience"].attempts
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

from resilience.call import Call, Lease, Operation
from resilience.engine.forms import Port
from resilience.policy import Policy
from resilience.verdict import Classifier

from .body import leased_body
from .classify import HTTP_CLASSIFIER
from .closing import discard
from .errors import in_tree
from .exchange import Exchange, Single
from .host import Host, host_of
from .inner import OuterTransport
from .options import TransportOptions, check_transport, classifier_of, upper_methods
from .overrides import EXTENSION, IDEMPOTENT, Overrides, read_overrides
from .replay import bookmark_of, replayable
from .scopes import Scope, scope
from .sending import Sending
from .stranded import close_stranded
from .stream_timeout import StreamTimeout, Watch

if TYPE_CHECKING:
    import httpx
    import httpx2


class ResilientTransport(OuterTransport):
    """A transport for `httpx.AsyncClient` and `httpx2.AsyncClient` whose requests run under `policy`.

    `transport` does the sending; by default the library's own AsyncHTTPTransport, made with `options` when the
    first request arrives. `key` picks the partition of keyed policies: "client" (default) for one, "origin" for one
    per scheme, host and port, "route" for one per origin and template in `routes` (`/orders/{id}`,
    `GET /files/{rest:path}`; the first that fits, requests that fit none share that of their origin), or a function
    of the request. `name` names the calls in events and errors (default: the policy's name).

    Responses with a status in `statuses` (default `FAILURES`) and transport errors are failures, a 429 is
    throttling, `Retry-After` and its relatives are heeded; `classifier` replaces all that. Policies with an `on` of
    their own judge by that alone.

    Only requests with a method in `retry_methods` (default `IDEMPOTENT`) or an `Idempotency-Key` are sent again, and
    any request that could not be sent at all (no connection was made; `retry_unsent=False` ends that); but never one
    whose body cannot be replayed. With `idempotency_key` requests with other methods get such a key if they have
    none, made up or by a function of the request, the same every time. `attempt_header` names a header for the number
    of the attempt, `deadline_header` one for the seconds left of the deadline (milliseconds if its name ends in
    `-ms`), default none. `stream_timeout` limits the wait for the first byte and each chunk of a body.

    A request may bring `Overrides` in its `extensions["resilience"]`; a response has a `Report` there.

    Permits, verdicts and deadlines last until the body has been read or closed. Rejections and timeouts are raised
    as our errors and as the library's `TransportError` or `TimeoutException` in one; other errors pass unchanged, the
    library's own timeouts among them.

    Raises TypeError or ValueError at construction for bad options.
    """

    def __init__(
        self,
        policy: Policy,
        transport: httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport | None = None,
        *,
        key: Scope | None = None,
        routes: Sequence[str] = (),
        statuses: Collection[int] | None = None,
        classifier: Classifier | None = None,
        retry_methods: Collection[str] = IDEMPOTENT,
        retry_unsent: bool = True,
        idempotency_key: bool | Callable[[Any], str] = False,
        stream_timeout: StreamTimeout | None = None,
        attempt_header: str | None = None,
        deadline_header: str | None = None,
        name: str | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        check_transport(transport, options)
        if not isinstance(policy, Policy):
            raise TypeError(f"policy must be a Policy, got {policy!r}")
        if stream_timeout is not None and not isinstance(stream_timeout, StreamTimeout):
            raise TypeError(f"stream_timeout must be a StreamTimeout, got {stream_timeout!r}")
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"name must be a non-empty string, got {name!r}")
        self.policy: Policy = policy
        super().__init__(transport, options)
        self._key_of = scope(key, routes)
        methods = upper_methods(retry_methods)
        self._sending = Sending(methods, retry_unsent, idempotency_key, attempt_header, deadline_header)
        self._stream_timeout = stream_timeout
        self._operation = Operation(
            name or policy.operation.name, classifier=classifier_of(policy, classifier, statuses), discard=discard
        )
        self._handler = policy.handler(self._operation)
        # The frame sends requests as they are.
        plain = stream_timeout is None and not self._sending.announces
        self._frame = policy.frame(self._operation) if plain else None
        self._plain_class: type[ResilientTransport] | None = None
        """What this was an instance of, once a frame is its method."""

    @overload
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response: ...
    @overload
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response: ...
    async def handle_async_request(self, request: Any) -> Any:
        """Send a request under the policy; clients call it.

        Raises what the inner transport raises; rejections and timeouts as members of both trees of errors.
        """
        host = host_of(request)
        if self._frame is not None and self._plain_class is None:
            self._adopt(self._frame.method(self._port(host)))
            if type(self) is not self._plain_class:
                own: Any = self
                return await own.handle_async_request(request)
        overrides = read_overrides(request.extensions)
        policy = overrides.get("policy", self.policy)
        if policy is None:
            return await self._inner(host).handle_async_request(request)
        exchange = Exchange(request, self._inner(host), host, self._sending)
        exchange.bookmark = await bookmark_of(request.stream)
        call = self._call(exchange, host, request, overrides)
        limits = overrides.get("stream_timeout", self._stream_timeout)
        if limits is not None:
            exchange.watch = Watch(limits, call.operation.name, policy)
        running = self._handler(call) if policy is self.policy else policy.run(call)
        return await self._finish(exchange, host, call, running)

    def _adopt(self, method: Callable[[Any, Any], Awaitable[Any]]) -> None:
        """Let a frame be the method of this transport: it asks whether a request is for it, and sends others back.

        It becomes that of a class of its own. As an attribute of the instance it would hide the method of the class,
        and be found the slow way.
        """
        self._plain_class = own = type(self)
        if own.handle_async_request is ResilientTransport.handle_async_request:  # no subclass has a say in it
            about = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
            about |= {"__slots__": (), "handle_async_request": method}
            self.__class__ = type(own.__name__, (own,), about)  # pyright: ignore[reportAttributeAccessIssue]

    def _port(self, host: Host) -> Port:
        """How the frame sends a request to which nothing happens, and who takes over if something does."""
        inner = self._inner(host)

        async def settle(request: Any, response: Any, error: BaseException | None, state: Any) -> Any:
            if state is None or self._frame is None:
                ordinary: Any = ResilientTransport.handle_async_request
                return await ordinary(self, request)
            if isinstance(error, CancelledError):
                await close_stranded(inner)
            exchange = Exchange(request, inner, host, self._sending)
            call = self._call(exchange, host, request, Overrides())
            exchange.began(state[0], response, error)
            return await self._finish(exchange, host, call, self._frame.unwind(call, *state, response, error))

        judge = self._operation.classifier.result
        methods = self._sending.methods
        return Port(
            inner.handle_async_request,
            settle,
            names={
                "Report": Single,
                "Bytes": host.ByteStream,
                "methods": methods,
                "host": host,
                "body": leased_body,
                "key_of": self._key_of,
            },
            key="" if self._key_of is None else "key_of(subject)",
            refuse=[
                f"{EXTENSION!r} in subject.extensions",
                "type(subject.stream) is not Bytes",  # a file has to be marked; and what is none is another library's
                *(["subject.method not in methods"] if self._sending.idempotency_key else []),
            ],
            alive="not result.is_closed",
            good="result.status_code < 400" if judge is HTTP_CLASSIFIER.result else "",
            done=[
                "report = Report()",
                "report.elapsed = clock.now() - moment",
                f"result.extensions[{EXTENSION!r}] = report",
            ],
            live=["result.stream = body(result.stream, held, host, subject)"],
        )

    async def _finish(self, exchange: Exchange, host: Host, call: Call, running: Awaitable[Any]) -> Any:
        """Await the policy, turn its errors into the library's, and hold its guards until the body is closed."""
        request = exchange.request
        lease = call.lease = Lease()
        try:
            response = await running
            if not isinstance(response, host.Response):
                raise TypeError(f"{call.operation.name} must return a {host.name}.Response, got {response!r}")
        except BaseException as error:
            lease.close(error)
            await exchange.close_others()
            if (ours := in_tree(error, host, request)) is not None:
                raise ours from error
            raise
        response.extensions[EXTENSION] = exchange.report()
        if response.is_closed:  # all of it is in memory: nobody will read or close it
            lease.close()
        else:
            response.stream = leased_body(response.stream, lease, host, request, exchange.watch)
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        if self._plain_class is not None:
            own, self._plain_class = self._plain_class, None
            self.__class__ = own  # pyright: ignore[reportAttributeAccessIssue]
        await super().aclose()

    def _call(self, exchange: Exchange, host: Host, request: Any, overrides: Overrides) -> Call:
        operation = self._operation
        if "name" in overrides:
            operation = Operation(overrides["name"], classifier=operation.classifier, discard=discard)
        self._sending.claim(request, overrides)
        can = exchange.bookmark is not None or replayable(request.stream, host)
        may = can and self._sending.repeatable(request, overrides)
        if can and not may and self._sending.retry_unsent and overrides.get("retry") is None:
            exchange.unsent = host.unsent
        key = self._key_of
        exchange.call = call = Call(
            operation,
            exchange.send,
            key=overrides["key"] if "key" in overrides else "" if key is None else key(request),
            cost=overrides.get("cost", 1),
            repeatable=may,
        )
        return call
