"""Shared fixtures. Those of virtual time are in the folders that use them; tests of adapters run in real time."""
