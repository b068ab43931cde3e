from __future__ import annotations

import anyio
import pytest

from resilience import clock
from resilience.testing import HANG, Delay, FaultScript

pytestmark = pytest.mark.anyio


async def test_it_plays_line_by_line_and_remembers_the_calls() -> None:
    script = FaultScript(1, ValueError("two"), KeyError, Delay(5, "late"), Delay(1, Delay(1, OSError("deep"))))
    assert await script("a", b=2) == 1
    with pytest.raises(ValueError, match="two"):
        await script()
    with pytest.raises(KeyError):
        await script()
    assert await script() == "late"
    assert clock.now() == 5.0
    with pytest.raises(OSError, match="deep"):
        await script()
    assert script.calls == [(("a",), {"b": 2}), ((), {}), ((), {}), ((), {}), ((), {})]
    assert script.started == [0.0, 0.0, 0.0, 0.0, 5.0]
    with pytest.raises(IndexError, match="the script has 5 lines, and this is call 6"):
        await script()


async def test_the_last_line_can_be_for_ever() -> None:
    script = FaultScript(1, 2, repeat=True)
    assert [await script() for _ in range(4)] == [1, 2, 2, 2]


async def test_hanging_ends_only_by_cancellation_and_calls_inside_are_counted() -> None:
    script = FaultScript(HANG, repeat=True)
    assert repr(HANG) == "HANG"
    with anyio.move_on_after(3):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(script)
            await anyio.sleep(1)
            assert script.running == 4
    assert (script.running, script.most) == (0, 4)


async def test_a_script_needs_a_line() -> None:
    with pytest.raises(ValueError, match="lines must hold at least one outcome"):
        FaultScript()
