"""`resilience redis`: see what processes share through a server, and make an end of it."""
