"""Permits of bulkheads: `permits_state` says what a store has to keep, the others are the two ways to it."""
