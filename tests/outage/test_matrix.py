"""Four processes, five policies and every fault: what holds on a machine that is busy with other tests as well.

The figures of a quiet one are printed by `python -m tests.outage.matrix`.
"""

from __future__ import annotations

import pytest

from tests.outage.faults import FAULTS
from tests.outage.matrix import play, table

LONGEST = 0.15
"""Seconds for which a call may be held up by the store; of a quiet machine 0.05."""

MILD = ("scripts_flushed", "slot_migrated", "out_of_memory", "slow_network")
"""Faults that are like others, or hurt nobody: left to the full run."""

BACK = 4.0
"""Seconds in which everybody is back; of a quiet machine 2."""


@pytest.mark.long
@pytest.mark.asyncio
@pytest.mark.parametrize("fault", [pytest.param(each, marks=[pytest.mark.full] * (each in MILD)) for each in FAULTS])
async def test_calls_go_on_whatever_happens_to_the_store(fault: str) -> None:
    cells = await play(fault)
    print(table(cells))
    for cell in cells:
        assert cell.errors == [], cell.policy
        assert cell.calls > 500
        assert cell.longest < LONGEST, cell.policy
        assert cell.recovered is None or cell.recovered < BACK, cell.policy
        if cell.burst is not None and cell.allowed is not None:
            assert cell.burst <= cell.allowed, cell.policy
        if cell.rate is not None:
            assert 75 <= cell.rate <= 125, cell.policy
