"""DNS messages, as far as SRV records need them (RFC 1035, RFC 2782): bytes in, bytes out, nothing else.

query = srv_query("_orders._tcp.internal", number=4711)
srv_answer(reply, number=4711)    # [SrvRecord(priority=0, weight=5, port=8443, target="a.internal"), ...]
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_SRV, _INTERNET = 33, 1
_RECURSION_WANTED = 0x0100
_REPLY, _TRUNCATED, _CODE = 0x8000, 0x0200, 0x000F


class SrvRecord(NamedTuple):
    """One server of a service; those of the lowest priority come first, by their weights."""

    priority: int
    weight: int
    port: int
    target: str


class TruncatedError(Exception):
    """The answer did not fit into a datagram: ask again over TCP."""


def srv_query(name: str, number: int) -> bytes:
    """A question for the SRV records of `name`. Raises ValueError for a name that is none."""
    header = struct.pack("!6H", number, _RECURSION_WANTED, 1, 0, 0, 0)
    return header + _encoded(name) + struct.pack("!2H", _SRV, _INTERNET)


def srv_answer(message: bytes, number: int) -> list[SrvRecord]:
    """The SRV records in the answer to question `number`.

    Raises LookupError if the name does not exist or the server refuses, TruncatedError, and ValueError for a
    message that is not that answer.
    """
    try:
        given, flags, questions, answers, _, _ = struct.unpack_from("!6H", message)
        if given != number or not flags & _REPLY:
            raise ValueError("not the answer to this question")
        if flags & _TRUNCATED:
            raise TruncatedError
        if flags & _CODE:
            raise LookupError(f"the name server answers with code {flags & _CODE}")
        place = 12
        for _ in range(questions):
            place = _name(message, place)[1] + 4
        found: list[SrvRecord] = []
        for _ in range(answers):
            place = _name(message, place)[1]
            kind, family, _, length = struct.unpack_from("!2HIH", message, place)
            place += 10
            if (kind, family) == (_SRV, _INTERNET):
                priority, weight, port = struct.unpack_from("!3H", message, place)
                found.append(SrvRecord(priority, weight, port, _name(message, place + 6)[0]))
            place += length
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError("a DNS message that ends too early or says nonsense") from error
    return found


def _encoded(name: str) -> bytes:
    labels = [label.encode("ascii") for label in name.rstrip(".").split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"name must have labels of 1 to 63 characters, got {name!r}")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _name(message: bytes, place: int) -> tuple[str, int]:
    """The name at `place`, and where what follows begins. A name may end with a pointer to an earlier one."""
    labels: list[str] = []
    end = 0
    jumps = 0
    while length := message[place]:
        if length < 64:
            labels.append(message[place + 1 : place + 1 + length].decode("ascii"))
            place += 1 + length
            continue
        jumps += 1
        if length < 192 or jumps > 32:
            raise ValueError("a DNS message with a name that does not end")
        end = end or place + 2
        place = (length & 63) << 8 | message[place + 1]
    return ".".join(labels), end or place + 1
