"""Pure state machines: no await, no clock, no randomness, no I/O. Time and random draws come as arguments."""
