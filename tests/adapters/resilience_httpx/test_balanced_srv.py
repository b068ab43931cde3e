"""SRV records, from a name server on loopback."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience_httpx import Endpoint, SrvResolver
from resilience_httpx.balanced import srv
from resilience_httpx.balanced.dns_message import SrvRecord, TruncatedError, srv_answer, srv_query

NAME = "_orders._tcp.internal"
RECORDS = [(10, 5, 8443, "b.internal"), (10, 0, 8444, "c.internal"), (20, 1, 80, "spare.internal"), (10, 1, 1, "")]


def wire(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"


def reply(query: bytes, records: list[tuple[int, int, int, str]], flags: int = 0x8180) -> bytes:
    """The answer to a query; names of records point to the one in the question, targets end with its last label."""
    message = query[:2] + struct.pack("!5H", flags, 1, len(records) + 1, 0, 0) + query[12:]
    pointer, tail = struct.pack("!H", 0xC000 | 12), struct.pack("!H", 0xC000 | (12 + len(wire("_orders._tcp")) - 1))
    message += pointer + struct.pack("!2HIH", 16, 1, 60, 2) + b"\x01x"  # a TXT record, which nobody asked for
    for *numbers, target in records:
        end = wire(target.removesuffix(".internal"))[:-1] + tail if target else b"\0"
        message += pointer + struct.pack("!2HIH", 33, 1, 60, 6 + len(end)) + struct.pack("!3H", *numbers) + end
    return message


@contextmanager
def name_server(
    *answers: Callable[[bytes], bytes], tcp: Callable[[bytes], bytes] = bytes
) -> Generator[tuple[str, int]]:
    """Sends all `answers` to every datagram, and `tcp` to a connection; the bytes of both are as they are given."""
    stream = socket.create_server(("127.0.0.1", 0))
    port: int = stream.getsockname()[1]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", port))

    def serve_datagrams() -> None:
        while True:
            query, client = datagrams.recvfrom(2000)
            if not query:
                return
            for answer in answers:
                datagrams.sendto(answer(query), client)

    def serve_stream() -> None:
        while True:
            connection, _ = stream.accept()
            with connection:
                query = connection.recv(2000)
                if not query:
                    return
                connection.sendall(tcp(query[2:])[:7])
                connection.sendall(tcp(query[2:])[7:])

    threads = [threading.Thread(target=serve) for serve in (serve_datagrams, serve_stream)]
    for thread in threads:
        thread.start()
    try:
        yield "127.0.0.1", port
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", port))
        socket.create_connection(("127.0.0.1", port)).close()
        for thread in threads:
            thread.join(5)
        datagrams.close()
        stream.close()


def fine(query: bytes) -> bytes:
    return reply(query, RECORDS)


def framed(query: bytes) -> bytes:
    return len(fine(query)).to_bytes(2, "big") + fine(query)


def truncated(query: bytes) -> bytes:
    return reply(query, [], 0x8380)


EXPECTED = [
    Endpoint("https://c.internal:8444/v1", weight=0.1),
    Endpoint("https://b.internal:8443/v1", weight=5),
]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def resolve(backend: str, *servers: Any, **options: Any) -> Any:
    resolver = SrvResolver(NAME, path="/v1", nameservers=servers, **options)
    return anyio.run(resolver.resolve, backend=backend)


def test_the_lowest_priority_is_used(backend: str) -> None:
    with name_server(fine) as server:
        assert resolve(backend, server) == EXPECTED


def test_a_long_answer_comes_over_tcp(backend: str) -> None:
    with name_server(truncated, tcp=framed) as server:
        assert resolve(backend, server) == EXPECTED


def test_answers_to_others_are_passed_over(backend: str) -> None:
    def forged(query: bytes) -> bytes:
        return bytes([query[0] ^ 1]) + fine(query)[1:]

    with name_server(forged, lambda query: b"?", fine) as server:
        assert resolve(backend, server) == EXPECTED


def test_a_dead_server_is_followed_by_the_next(backend: str) -> None:
    with name_server() as silent, name_server(truncated, tcp=lambda query: b"") as broken, name_server(fine) as server:
        assert resolve(backend, silent, broken, server, timeout=0.1) == EXPECTED
        with pytest.raises(OSError, match="no name server answers for _orders"):
            resolve(backend, silent, timeout=0.1)


def test_no_records_is_an_error(backend: str) -> None:
    with name_server(lambda query: reply(query, RECORDS[3:])) as empty:
        with pytest.raises(LookupError, match="has no SRV records"):
            resolve(backend, empty)
    with name_server(lambda query: reply(query, [], 0x8183)) as unknown:
        with pytest.raises(LookupError, match="code 3"):
            resolve(backend, unknown)


def test_name_servers_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: str) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# ours\nsearch internal\nnameserver 127.0.0.1\nnameserver\nnameserver ::1\n")
    monkeypatch.setattr(srv, "_CONFIGURATION", str(file))
    assert srv._configured() == ["127.0.0.1", "::1"]
    file.write_text("")
    with pytest.raises(OSError, match="no name server answers"):
        anyio.run(SrvResolver(NAME).resolve, backend=backend)


def test_messages_are_read_as_they_are_meant() -> None:
    query = srv_query(NAME + ".", 7)
    assert query == b"\0\7\1\0\0\1\0\0\0\0\0\0" + wire(NAME) + b"\0\x21\0\1"
    assert srv_answer(fine(query), 7)[0] == SrvRecord(10, 5, 8443, "b.internal")
    with pytest.raises(TruncatedError):
        srv_answer(truncated(query), 7)
    looping = query[:2] + struct.pack("!5H", 0x8180, 1, 0, 0, 0) + b"\xc0\x0c"
    with pytest.raises(ValueError, match="a name that does not end"):
        srv_answer(looping, 7)


@given(st.binary(max_size=80), st.integers(0, 200))
def test_rubbish_is_an_error_of_the_documented_kinds(rubbish: bytes, cut: int) -> None:
    query = srv_query(NAME, 7)
    for message in (rubbish, fine(query)[:cut] + rubbish, fine(query)[:12] + rubbish):
        outcome: type[Exception] | None = None
        try:
            srv_answer(message, 7)
        except Exception as error:
            outcome = type(error)
        assert outcome in (None, ValueError, LookupError, TruncatedError)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "a..b"}, ValueError, "name must have labels of 1 to 63 characters"),
        ({"name": ""}, ValueError, "name must have labels"),
        ({"scheme": "srv"}, ValueError, "url must be http or https"),
        ({"timeout": 0}, ValueError, "timeout must be greater than 0"),
        ({"interval": 0}, ValueError, "interval must be greater than 0"),
        ({"nameservers": []}, ValueError, "nameservers must be a list of at least one"),
        ({"nameservers": "10.0.0.1"}, ValueError, "nameservers must be a list"),
    ],
)
def test_wrong_options_are_refused(options: Any, error: type[Exception], message: str) -> None:
    make: Any = SrvResolver
    with pytest.raises(error, match=message):
        make(**{"name": NAME, **options})
