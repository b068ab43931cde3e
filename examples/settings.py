"""A pipeline from a TOML file."""

import asyncio
import tomllib

from pydantic import ValidationError

from resilience.settings import PipelineSettings

CONFIG = """
name = "payments"

[[policies]]
type = "timeout"
seconds = 10

[[policies]]
type = "retry"
attempts = 5
backoff = { kind = "equal", base = 0.1 }

[[policies]]
type = "rate_limiter"
rates = ["100/s", "10000/h"]
"""


async def charge() -> str:
    return "charged"


payments = PipelineSettings.model_validate(tomllib.loads(CONFIG)).build()
print(asyncio.run(payments.call(charge)))

try:
    PipelineSettings.model_validate(tomllib.loads(CONFIG.replace("attempts = 5", "attempts = 0")))
except ValidationError as error:
    mistake = error.errors()[0]
    print(mistake["loc"], mistake["msg"])

# Prints:
# charged
# ('policies', 1, 'retry') Value error, attempts must be at least 1, got 0
