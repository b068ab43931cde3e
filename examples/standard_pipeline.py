"""The recommended order, ready-made: name the parts you want."""

import asyncio

from resilience import Bulkhead, CircuitBreaker, Fallback, Pipeline, RateLimiter, Retry

weather = Pipeline.standard(
    fallback=Fallback("probably rain"),
    timeout=5,
    bulkhead=Bulkhead(20, queue=50),
    retry=Retry(attempts=3),
    breaker=CircuitBreaker(),
    limiter=RateLimiter("100/s"),
    attempt_timeout=0.1,
    name="weather",
)


@weather
async def forecast(city: str) -> str:
    await asyncio.sleep(60 if city == "Atlantis" else 0)
    return f"sunny in {city}"


async def main() -> None:
    print(await forecast("Oslo"))
    print(await forecast("Atlantis"))
    print(" > ".join(policy.name for policy in weather.policies))


asyncio.run(main())

# Prints:
# sunny in Oslo
# probably rain
# Fallback > Timeout > Bulkhead > Retry > CircuitBreaker > RateLimiter > AttemptTimeout
