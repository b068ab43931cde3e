"""What is stable per key: a number from a text, and weighted rendezvous hashing.

    fraction("user-7")                               # always the same number between 0 and 1
    rank("user-7", {"old": 95, "new": 5})[0]         # "old" for 95 % of the keys

Rendezvous hashing (Thaler and Ravishankar, 1998) with the logarithmic weights of Schindelhauer and Schomaker
(2005): every name draws a score for the key, and the highest wins. When a name comes, goes or changes its weight, the
only keys that move are those that move to it or away from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import blake2b


def fraction(text: str) -> float:
    """A number between 0 and 1, both excluded; the same for the same text in every process."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2.0**52


def rank(key: str, weights: Mapping[str, float]) -> list[str]:
    """The names in the order in which `key` prefers them; a name of weight 0 is left out. O(n log n)."""
    scores = {name: _score(key, name, weight) for name, weight in weights.items() if weight > 0}
    return sorted(scores, key=scores.__getitem__, reverse=True)


def _score(key: str, name: str, weight: float) -> float:
    return -weight / math.log(fraction(f"{len(name)}:{name}{key}"))
