"""Permits of a fleet: `permits` (of one name), `holdings` (what this process holds), `renewal` (leases are kept)."""
