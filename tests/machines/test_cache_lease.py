from __future__ import annotations

from resilience.machines.cache_lease import Look, SharedEntry


def stored(kind: str = "text") -> SharedEntry:
    """Expires at 10, stale until 15, spare until 30; took 2 to fetch."""
    shared = SharedEntry()
    assert shared.store(0, "", kind, "value", 10, 5, 20, 2)
    return shared


def test_the_first_gets_the_lease_and_the_others_wait() -> None:
    shared = SharedEntry()
    assert shared.look(0, "", 5, 0) == Look("none")
    assert shared.look(0, "a", 5, 0) == Look("lease")
    assert shared.look(1, "b", 5, 0) == Look("wait", left=4)
    assert shared.look(1, "a", 5, 0) == Look("lease"), "its own lease again"
    assert shared.expected
    assert shared.store(2, "a", "text", "value", 10, 5, 20, 2)
    assert not shared.expected
    assert shared.look(3, "b", 5, 0) == Look("fresh", "text", "value")


def test_a_lease_ends_by_itself_and_then_belongs_to_the_next() -> None:
    shared = SharedEntry()
    shared.look(0, "a", 5, 0)
    assert shared.look(5, "b", 5, 0) == Look("lease")
    assert not shared.store(6, "a", "text", "late", 10, 0, 0, 0)
    assert not shared.renew(6, "a", 5)
    assert not shared.release(6, "a", 0)
    assert shared.store(6, "b", "text", "value", 10, 0, 0, 0)


def test_who_is_late_but_was_not_replaced_may_store() -> None:
    shared = SharedEntry()
    shared.look(0, "a", 5, 0)
    assert shared.store(9, "a", "text", "value", 10, 0, 0, 0)


def test_a_lease_is_renewed_and_released() -> None:
    shared = SharedEntry()
    shared.look(0, "a", 5, 0)
    assert shared.renew(4, "a", 5)
    assert shared.look(8, "b", 5, 0) == Look("wait", left=1)
    assert shared.release(8, "a", 3)
    assert not shared.release(8, "a", 3)
    assert shared.look(8, "b", 5, 0) == Look("lease")
    assert not shared.renew(8, "", 5)
    assert not shared.release(8, "", 5)


def test_stale_is_served_while_one_refreshes() -> None:
    shared = stored()
    assert shared.look(9, "a", 5, 0) == Look("fresh", "text", "value")
    assert shared.look(10, "", 5, 0) == Look("stale", "text", "value")
    assert shared.look(10, "a", 5, 0) == Look("refresh", "text", "value")
    assert shared.look(11, "b", 5, 0) == Look("stale", "text", "value")
    assert not shared.expected
    assert shared.release(12, "a", 3)
    assert shared.look(14.9, "b", 5, 0) == Look("stale", "text", "value"), "no refresh so soon after one that failed"


def test_an_early_refresh_is_one_too() -> None:
    shared = stored()
    assert shared.look(4, "a", 5, 2.9) == Look("fresh", "text", "value")
    assert shared.look(4, "a", 5, 3.0) == Look("early", "text", "value")
    assert shared.look(5, "b", 5, 3.0) == Look("fresh", "text", "value")


def test_a_spare_goes_along_and_is_served_in_a_pause() -> None:
    shared = stored()
    assert shared.look(15, "", 5, 0) == Look("none")
    assert shared.look(15, "a", 5, 0) == Look("lease", "text", "value")
    assert shared.look(16, "b", 5, 0) == Look("wait", "text", "value", 4)
    assert shared.release(17, "a", 3)
    assert shared.look(18, "b", 5, 0) == Look("spare", "text", "value")
    assert shared.look(20, "b", 5, 0) == Look("lease", "text", "value")
    assert shared.look(30, "b", 5, 0) == Look("lease"), "gone"


def test_what_is_put_or_dropped_ends_the_fetch_that_began_before() -> None:
    shared = SharedEntry()
    shared.look(0, "a", 5, 0)
    shared.store(1, "", "text", "newer", 10, 0, 0, 0)
    assert not shared.store(2, "a", "text", "older", 10, 0, 0, 0)
    assert shared.look(2, "b", 5, 0) == Look("fresh", "text", "newer")
    assert shared.drop()
    assert not shared.drop()
    shared.look(3, "a", 5, 0)
    assert not shared.drop()
    assert not shared.store(4, "a", "text", "older", 10, 0, 0, 0)
    assert shared.look(4, "b", 5, 0) == Look("lease")
