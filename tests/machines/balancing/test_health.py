from __future__ import annotations

import pytest

from resilience.machines.balancing import EndpointState, HealthRule


def test_checks_in_a_row_turn_it() -> None:
    rule, endpoint = HealthRule(), EndpointState("a")
    steps = [rule.checked(endpoint, passed == "+", 7.0) for passed in "--+---+-++-"]
    assert steps == [None] * 5 + ["unhealthy"] + [None] * 3 + ["healthy", None]
    assert endpoint.healthy
    assert endpoint.warming_since == 7.0


@pytest.mark.parametrize("field", ["healthy_after", "unhealthy_after"])
def test_wrong_options_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be at least 1"):
        HealthRule(**{field: 0})
