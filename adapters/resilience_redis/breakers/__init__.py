"""Circuits of a fleet: `fleet` (what this process knows), `reporter` (who tells and asks), `circuits` (of one name)."""
