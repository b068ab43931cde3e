"""What depends on which of the two libraries is installed, imported or meant."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({missing!r}))  # a module that is None there counts as not installed
{code}
"""

ONE_CALL = """
import asyncio, {name} as lib
from resilience import CircuitBreaker, CircuitOpenError
from resilience_httpx import ResilientTransport

async def main():
    breaker = CircuitBreaker()
    transport = ResilientTransport(breaker, lib.MockTransport(lambda request: lib.Response(200)))
    async with lib.AsyncClient(transport=transport) as client:
        assert (await client.get("http://a/")).extensions["resilience"].attempts == 1
        breaker.isolate()
        try:
            await client.get("http://a/")
        except lib.TransportError as error:
            assert isinstance(error, CircuitOpenError)
            print("both")

asyncio.run(main())
"""


def run(code: str, missing: tuple[str, ...] = ()) -> str:
    script = WITHOUT.format(missing=missing, code=code)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30)
    return (done.stdout + done.stderr).strip()


def test_either_library_alone_is_enough(lib: Any) -> None:
    other = "httpx2" if lib.__name__ == "httpx" else "httpx"
    assert run(ONE_CALL.format(name=lib.__name__), (other,)) == "both"


def test_without_both_the_error_names_the_extras() -> None:
    output = run("import resilience_httpx", ("httpx", "httpx2"))
    assert output.splitlines()[-1] == (
        "ImportError: resilience_httpx needs httpx2 or httpx: install anyresilience[httpx2] or anyresilience[httpx]"
    )


def test_importing_us_imports_neither() -> None:
    code = "import resilience_httpx; print(sorted({'httpx', 'httpx2'} & set(sys.modules)))"
    assert run(code) == "[]"


def test_httpx2_may_take_the_place_of_httpx() -> None:
    code = "import resilience_httpx, httpx2; httpx2.alias_httpx()" + ONE_CALL.format(name="httpx")
    assert run(code) == "both"


@pytest.mark.parametrize("kind", ["subclass", "own"])
def test_requests_of_derived_classes_belong_to_their_library(lib: Any, kind: str) -> None:
    from resilience_httpx.host import host_of

    request_class: Any = type("MyRequest", (lib.Request,), {}) if kind == "subclass" else lib.Request
    assert host_of(request_class("GET", "http://a/")).name == lib.__name__
