"""Protect an httpx2 client: retries, limits and deadlines without touching the code that uses it."""

import asyncio
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx2

from resilience import Backoff, CircuitBreaker, Pipeline, RateLimiter, Retry, Timeout
from resilience_httpx import ResilientTransport


class Flaky(BaseHTTPRequestHandler):
    """Answers 503 twice, then 200."""

    requests = 0

    def do_GET(self) -> None:
        Flaky.requests += 1
        self.send_response(503 if Flaky.requests < 3 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


orders = Pipeline(
    Timeout(10),
    Retry(attempts=3, backoff=Backoff.constant(0.01)),
    CircuitBreaker(),
    RateLimiter("100/s"),
    Timeout(2),
    name="orders",
)


async def main(url: str) -> None:
    transport = ResilientTransport(orders, key="origin")
    async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
        response = await client.get("/orders/17")
        print(response.status_code, "after", response.extensions["resilience"].attempts, "attempts")


with ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
    Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(main(f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()

# Prints:
# 200 after 3 attempts
