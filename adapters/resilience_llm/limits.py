"""The limits of one account with a provider of models, and the state of each.

    limits = LLMLimits(ANTHROPIC, requests=50, input_tokens=30_000, output_tokens=8_000, store=store)
    booked = await limits.reserve(call)
    await limits.settle(booked, Estimate(1_200, 310))

Transports do this for every request; a program may do it itself for requests that go another way.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

import anyio

from resilience import RateLimiter
from resilience._outage import OnOutage
from resilience._rejecting import Mode
from resilience._validate import not_negative
from resilience.errors import StoreUnavailableError
from resilience.events import Listener
from resilience.limits.reservation import Reservation
from resilience.store import Store
from resilience_httpx import advised_delay

from .costs import Costs, Rate
from .estimate import Estimate
from .headers import exhausted_for, told
from .model_call import ModelCall
from .profile import Profile
from .turns import Turns

Key: TypeAlias = Literal["model", "api_key"] | Callable[[ModelCall], str] | None

LONGEST_PAUSE = 300.0
"""Seconds that a limit stands still at most after a 429, whatever the provider asks for."""


@dataclass(frozen=True, slots=True)
class Booked:
    """A request that may be sent: what it was charged, and for whom."""

    key: str
    estimate: Estimate
    held: Reservation


class LLMLimits:
    """Requests and tokens that a provider allows in a time, in this process or, with a `store`, for all of them.

    `requests`, `tokens` (input and output together), `input_tokens` and `output_tokens` are numbers a minute or rates
    (`"1000/h"`); one at least is needed. All are charged in one step. They are token buckets, as those of the
    providers are; each begins full, and holds `margin` seconds' worth (default 0.5) less than a whole one, for
    requests may arrive closer together than they left.

    There are separate limits for each `key`: the model (default), `"api_key"` (its hash), a function of the
    `ModelCall`, or None for one of all. A request that may not go yet waits in line, at most `max_wait` seconds
    (default 60; 0: not at all). `estimate` replaces that of the profile. `name` (default: `llm-` and the profile's)
    is that of the state in the store, and in events. The rest is as with `RateLimiter`, which is `limiter`.

    Raises ValueError or TypeError at construction for bad options.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        requests: Rate | None = None,
        tokens: Rate | None = None,
        input_tokens: Rate | None = None,
        output_tokens: Rate | None = None,
        key: Key = "model",
        max_wait: float = 60.0,
        margin: float = 0.5,
        estimate: Callable[[ModelCall], Estimate] | None = None,
        store: Store | None = None,
        on_outage: OnOutage = "local",
        local_share: float | None = None,
        mode: Mode = "enforce",
        name: str | None = None,
        listeners: Sequence[Listener] = (),
    ) -> None:
        if not isinstance(profile, Profile):
            raise TypeError(f"profile must be a Profile, got {profile!r}")
        if key not in (None, "model", "api_key") and not callable(key):
            raise ValueError(f"key must be 'model', 'api_key', None or a function of the call, got {key!r}")
        if estimate is not None and not callable(estimate):
            raise TypeError(f"estimate must be a function of a ModelCall, got {estimate!r}")
        given = {
            "requests": requests,
            "tokens": tokens,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
        }
        self._costs = Costs(given, margin)
        self.profile: Profile = profile
        self.name: str = f"llm-{profile.name}" if name is None else name
        self.max_wait: float = not_negative("max_wait", max_wait)
        self.limiter: RateLimiter = RateLimiter(
            *self._costs.limits(),
            max_wait=max_wait,
            mode=mode,
            keyed=key is not None,
            store=store,
            on_outage=on_outage,
            local_share=local_share,
            name=self.name,
            listeners=listeners,
        )
        self._key = key
        self._estimate = estimate or profile.estimate
        self._turns = Turns()

    async def reserve(self, call: ModelCall) -> Booked:
        """Charge the estimate, once it is the request's turn and there is room for it.

        Raises RateLimitedError if that takes longer than `max_wait`, and whatever the functions given raise.
        """
        key, estimate = self.key_of(call), self._estimate(call)
        cost = self._costs.reserved(estimate)
        if not self.max_wait:
            return Booked(key, estimate, await self.limiter.reserve(key=key, cost=cost, max_wait=0))
        # Only the head of the line books ahead: what those behind it reserve too much would stay unused meanwhile.
        async with self._turns.turn(key, self.max_wait) as patience:
            return Booked(key, estimate, await self.limiter.reserve(key=key, cost=cost, max_wait=patience))

    async def settle(self, booked: Booked, used: Estimate) -> None:
        """Charge what was used instead of the estimate. A store that does not answer leaves the estimate."""
        actual = self._costs.used(used)
        if actual:
            with suppress(StoreUnavailableError), anyio.CancelScope(shield=True):
                await booked.held.settle(actual)

    async def refund(self, booked: Booked) -> None:
        """Give everything back: the request was not sent, or the provider did not let it in."""
        with suppress(StoreUnavailableError), anyio.CancelScope(shield=True):
            await booked.held.cancel()

    async def learn(self, booked: Booked, status: int, headers: Mapping[str, str]) -> None:
        """Take over what a response says of the limits; after a 429, or what the profile has for it, let nothing go.

        Until `Retry-After`, else until the limit that is used up is whole again, at most five minutes. Never raises
        for anything that is in headers.
        """
        said = [each for each in told(headers, self.profile) if each.dimension in self._costs.rules]
        with anyio.CancelScope(shield=True):  # bounded: every store operation has a deadline
            if status in self.profile.throttled:
                await self._pause(booked, {each.dimension: each.remaining for each in said}, headers)
                return
            async with anyio.create_task_group() as together:  # in one round trip
                for dimension, remaining, reset_after in said:
                    if remaining < self._costs.rules[dimension].burst:
                        together.start_soon(self._observe, booked.key, dimension, remaining, reset_after)

    def key_of(self, call: ModelCall) -> str:
        """The key whose limits a request is charged."""
        if self._key is None:
            return ""
        if callable(self._key):
            return _text(self._key(call))
        if self._key == "model":
            return call.model
        secret = next((call.headers[each] for each in self.profile.key_headers if each in call.headers), "")
        return hashlib.sha256(secret.encode()).hexdigest()[:16]

    async def _observe(self, key: str, dimension: str, remaining: float, reset_after: float) -> None:
        with suppress(StoreUnavailableError):
            await self.limiter.observe(key=key, remaining=remaining, reset_after=reset_after, limit=dimension)

    async def _pause(self, booked: Booked, left: Mapping[str, float], headers: Mapping[str, str]) -> None:
        """Stop the limits that had too little left for the request, or all of them if nobody says which."""
        now = time.time()
        delay = advised_delay(headers, now)
        if delay is None:
            delay = exhausted_for(headers, self.profile, now) or 0.0
        cost = self._costs.reserved(booked.estimate)
        short: list[str | None] = [each for each, remaining in left.items() if remaining < cost.get(each, 0)]
        for limit in short or [None]:
            with suppress(StoreUnavailableError):
                await self.limiter.drain(key=booked.key, retry_after=min(delay, LONGEST_PAUSE), limit=limit)


def _text(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"key must return a string, got {key!r}")
    return key
