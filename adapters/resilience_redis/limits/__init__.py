"""Rate limits in Redis: `limiter` (one script call decides), `ledger` (reservations), `leased` (slices in advance)."""
