"""The policies: thin async shells that ask a machine, wait, run the call and report the verdict."""
