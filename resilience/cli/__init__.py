"""The command line of the library; never imported by the core, needs the extra `cli`."""
