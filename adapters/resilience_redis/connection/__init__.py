"""How commands reach the server: connections, what travels together, who waits how long, and what an outage is.

Read `lane` (the way to one server), then `traffic` (what is under way), `guard` (is it there?) and `wire` (the bytes).
"""
