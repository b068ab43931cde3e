"""What caches are made of: keys of calls, flights that many wait for, entries here and in a store, codecs.

`cache_state` says what a store has to keep, `_local_cache` and `_shared_cache` are the two ways to it, `_flight` is the
one run that all wait for.
"""
