from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import anyio
import anyio.to_thread
import pytest

from resilience import Timeout, clock
from resilience.testing import DeadlockError, VirtualClock, run
from resilience.testing.virtual_time import Backend

BACKENDS: list[Backend] = ["asyncio", "trio"]
both = pytest.mark.parametrize("backend", BACKENDS)


async def nap(seconds: float) -> float:
    await anyio.sleep(seconds)
    return clock.now()


@both
def test_sleeping_takes_no_real_time(backend: Backend) -> None:
    began = time.monotonic()
    assert run(nap, 3600 * 24 * 365, backend=backend) == 3600 * 24 * 365
    assert time.monotonic() - began < 5


@both
def test_time_jumps_to_each_timer_exactly_and_in_order(backend: Backend) -> None:
    async def main() -> list[float]:
        seen: list[float] = []

        async def at(seconds: float) -> None:
            await anyio.sleep(seconds)
            seen.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for seconds in (0.3, 0.1, 7.0, 0.1, 100_000.1):
                group.start_soon(at, seconds)
        return seen

    assert run(main, backend=backend) == [0.1, 0.1, 0.3, 7.0, 100_000.1]


@both
def test_the_clock_is_the_same_in_and_out_of_the_loop_and_goes_on_in_the_next(backend: Backend) -> None:
    virtual = VirtualClock(50.0)
    real = clock.now
    with virtual.installed():
        assert clock.now() == 50.0
        assert virtual.run(nap, 5, backend=backend) == 55.0
        assert clock.now() == 55.0
        virtual.advance(1)
        assert virtual.run(nap, 5, backend=backend) == 61.0
    assert clock.now is real


@both
def test_a_clock_moved_by_hand_fires_what_is_due(backend: Backend) -> None:
    async def main() -> tuple[bool, float]:
        with anyio.move_on_after(10) as scope:
            virtual.advance(11)
            await anyio.sleep(1)
        return scope.cancelled_caught, clock.now()

    virtual = VirtualClock()
    with virtual.installed():
        assert virtual.run(main, backend=backend) == (True, 11.0)


def test_it_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="seconds must be at least 0, got -1"):
        VirtualClock().advance(-1)


@both
def test_a_deadlock_is_an_error_and_names_who_waits(backend: Backend) -> None:
    virtual = VirtualClock(patience=0.05)

    async def forlorn() -> None:
        await anyio.Event().wait()

    with virtual.installed(), pytest.raises(DeadlockError, match="nothing can run, no timer is set") as caught:
        virtual.run(forlorn, backend=backend)
    assert len(str(caught.value).splitlines()) >= 2


@both
def test_sleeping_for_ever_is_a_deadlock_too(backend: Backend) -> None:
    virtual = VirtualClock(patience=0.05)
    with virtual.installed(), pytest.raises(DeadlockError):
        virtual.run(anyio.sleep_forever, backend=backend)


@both
def test_a_thread_may_answer(backend: Backend) -> None:
    async def main() -> str:
        def work() -> str:
            time.sleep(0.02)
            return "done"

        return await anyio.to_thread.run_sync(work)

    assert run(main, backend=backend) == "done"


@both
def test_real_sockets_work(backend: Backend) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port: int = server.getsockname()[1]

    def answer() -> None:
        peer, _ = server.accept()
        with peer:
            peer.sendall(peer.recv(10).upper())

    thread = threading.Thread(target=answer)
    thread.start()

    async def main() -> bytes:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"hello")
            return await stream.receive()

    assert run(main, backend=backend) == b"HELLO"
    thread.join()
    server.close()


@both
def test_errors_come_out_as_they_are(backend: Backend) -> None:
    async def broken() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(broken, backend=backend)


def test_a_program_that_goes_round_without_sleeping_does_not_move_the_clock() -> None:
    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return clock.now()

    assert run(main) == 0.0


def test_waits_of_the_library_are_virtual() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            await Timeout(30).call(anyio.sleep_forever)
        return clock.now()

    assert run(main) == 30.0
    assert run(main, backend="trio") == 30.0


@pytest.mark.anyio
async def test_the_fixture_gives_virtual_time(virtual_clock: VirtualClock) -> None:
    assert clock.now() == virtual_clock.now() == 0.0
    await anyio.sleep(3600)
    assert clock.now() == virtual_clock.now() == anyio.current_time() == 3600.0


def test_a_deadlock_in_a_test_that_uses_the_fixture_fails_it(pytester_free: Any) -> None:
    result = pytester_free(
        """
        import anyio, pytest
        from resilience.testing.fixtures import anyio_backend, virtual_clock

        @pytest.mark.anyio
        async def test_forlorn(virtual_clock):
            virtual_clock.patience = 0.05
            await anyio.Event().wait()

        @pytest.mark.anyio
        async def test_fine(virtual_clock):
            await anyio.sleep(5)
        """
    )
    assert "2 passed" in result
    assert "deadlock: nothing can run" in result


@pytest.fixture
def pytester_free(tmp_path: Any) -> Any:
    """Runs a test file in a pytest of its own."""

    def run_file(text: str) -> str:
        import textwrap

        (tmp_path / "test_it.py").write_text(textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    return run_file


def test_importing_the_kit_needs_neither_trio_nor_pytest() -> None:
    code = "import sys; import resilience.testing; print([m for m in ('trio', 'pytest') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
