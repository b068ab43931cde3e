"""What rate limiters are made of: limits and their rules, the line of those who wait, accounts, a fleet's shares.

`limit` and `rates` say what is limited, `limiter_state` what a store has to keep (`memory_limiter`, `memory_ledger`:
in this process), `_line` who waits, `_shared_limit` and `_local_share` how to do with a store and without it.
"""
