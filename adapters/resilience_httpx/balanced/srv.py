"""Endpoints from SRV records, which name host, port and weight of every server of a service.

    Balanced(SrvResolver("_orders._tcp.internal"), strategy="weighted")

The system's resolver does not know SRV records, so the name servers are asked here.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio
import anyio.to_thread

from resilience._validate import check_number

from .dns_message import SrvRecord, TruncatedError, srv_answer, srv_query
from .endpoint import Endpoint

_CONFIGURATION = "/etc/resolv.conf"


class SrvResolver:
    """The servers of lowest priority in the SRV records of `name` (RFC 2782), with their weights.

    `nameservers` are addresses, or pairs of address and port, that are asked in turn; by default those of
    `/etc/resolv.conf`. Each may take `timeout` (2 s). A weight of 0, which means hardly any traffic, becomes 0.1.

    Raises TypeError or ValueError for values out of range; `resolve` raises OSError if no name server answers,
    LookupError if there are no such records.
    """

    def __init__(
        self,
        name: str,
        *,
        scheme: str = "https",
        path: str = "",
        nameservers: Sequence[str | tuple[str, int]] | None = None,
        timeout: float = 2.0,
        interval: float = 30.0,
    ) -> None:
        srv_query(name, 0)
        Endpoint(f"{scheme}://a{path}")
        check_number("timeout", timeout, above=0)
        check_number("interval", interval, above=0)
        if nameservers is not None and (isinstance(nameservers, str) or not nameservers):
            raise ValueError(f"nameservers must be a list of at least one, got {nameservers!r}")
        self.interval: float = interval
        self._name = name
        self._scheme = scheme
        self._path = path
        self._nameservers = nameservers
        self._timeout = timeout

    async def resolve(self) -> list[Endpoint]:
        """One endpoint for each record of the lowest priority there is."""
        records = [record for record in await self._records() if record.target]
        if not records:
            raise LookupError(f"{self._name} has no SRV records")
        first = min(record.priority for record in records)
        return [
            Endpoint(f"{self._scheme}://{record.target}:{record.port}{self._path}", weight=record.weight or 0.1)
            for record in sorted(set(records))
            if record.priority == first
        ]

    async def _records(self) -> list[SrvRecord]:
        servers = self._nameservers
        if servers is None:
            servers = await anyio.to_thread.run_sync(_configured)
        problem: Exception = OSError("no name server is configured")
        for server in servers:
            address, port = (server, 53) if isinstance(server, str) else server
            try:
                with anyio.fail_after(self._timeout):
                    return await self._ask(address, port)
            except (OSError, ValueError) as error:  # a TimeoutError is an OSError
                problem = error
        raise OSError(f"no name server answers for {self._name}") from problem

    async def _ask(self, address: str, port: int) -> list[SrvRecord]:
        number = random.SystemRandom().randrange(1 << 16)
        query = srv_query(self._name, number)
        async with await anyio.create_connected_udp_socket(address, port) as socket:
            await socket.send(query)
            while True:
                try:
                    return srv_answer(await socket.receive(), number)
                except TruncatedError:
                    return await self._ask_again(address, port, query, number)
                except ValueError:
                    continue  # somebody else's, or a forgery: the answer may be still to come

    async def _ask_again(self, address: str, port: int, query: bytes, number: int) -> list[SrvRecord]:
        """Over TCP, where a message has its length in front."""
        async with await anyio.connect_tcp(address, port) as stream:
            await stream.send(len(query).to_bytes(2, "big") + query)
            received = b""
            while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
                try:
                    received += await stream.receive()
                except anyio.EndOfStream as error:
                    raise OSError("the name server closed the connection") from error
        return srv_answer(received[2:], number)


def _configured() -> list[str]:
    with open(_CONFIGURATION, encoding="ascii", errors="replace") as file:
        words = [line.split() for line in file]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
