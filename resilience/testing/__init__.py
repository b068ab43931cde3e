"""Tools for testing code that uses this library."""
