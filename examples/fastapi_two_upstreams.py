"""A FastAPI service that calls two upstreams: one must answer, the other may fail without anybody noticing."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import uvicorn
from fastapi import FastAPI, Response

from resilience import Backoff, CircuitBreaker, Pipeline, RejectedError, Retry, Timeout
from resilience_httpx import ResilientTransport

prices = Pipeline(Timeout(2), Retry(3, backoff=Backoff.constant(0.01)), CircuitBreaker(), Timeout(0.5), name="prices")
reviews = Pipeline(CircuitBreaker(minimum_calls=2), Timeout(0.5), name="reviews")
upstreams: dict[str, str] = {}
attempts: list[int] = []
others = FastAPI()  # two services of other people: the first fails every second time, the second always


@others.get("/prices/{article}")
async def price_of(article: int, response: Response) -> dict[str, int]:
    attempts.append(article)
    response.status_code = 503 if len(attempts) % 2 else 200
    return {"price": article * 10}


@others.get("/reviews/{article}")
async def reviews_of(article: int, response: Response) -> None:
    response.status_code = 500


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with (
        httpx2.AsyncClient(transport=ResilientTransport(prices), base_url=upstreams["url"]) as app.state.prices,
        httpx2.AsyncClient(transport=ResilientTransport(reviews), base_url=upstreams["url"]) as app.state.reviews,
    ):
        yield


shop = FastAPI(lifespan=lifespan)


@shop.get("/articles/{article}")
async def article(article: int) -> dict[str, Any]:
    price = await shop.state.prices.get(f"/prices/{article}")
    try:
        answer = await shop.state.reviews.get(f"/reviews/{article}")
        said = "failed" if answer.is_error else "answered"
    except RejectedError:
        said = "not asked"
    return {**price.json(), "reviews": said}


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    running = asyncio.create_task(server.serve(sockets=[listening]))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await running


async def main() -> None:
    async with served(others) as upstreams["url"], served(shop) as url, httpx2.AsyncClient(base_url=url) as client:
        for number in range(1, 5):
            print((await client.get(f"/articles/{number}")).json())


asyncio.run(main())

# Prints:
# {'price': 10, 'reviews': 'failed'}
# {'price': 20, 'reviews': 'failed'}
# {'price': 30, 'reviews': 'not asked'}
# {'price': 40, 'reviews': 'not asked'}
