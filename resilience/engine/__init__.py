"""The fast path: a whole pipeline in one coroutine frame, for calls to which nothing happens.

The meaning of a policy is written once, in `resilience/policies` (hooks) and `resilience/machines`. Folding those
hooks around a function is the *plain* path. On top of it a pipeline writes one short function that

1. looks, without changing anything, whether every policy would let the call pass at once;
2. if not, hands the untouched call to the plain path;
3. if so, takes everything in one step, awaits the function, and gives everything back in one step;
4. when the function raises, hands what it took, as tokens, to the hooks of the same policies.

So the generated code knows only the ordinary case, in `fragments.py`, one per policy. `frame.py` puts them
together and `unwind.py` leads everything else back to the hooks. Read what is generated in `Pipeline.source`.
"""
