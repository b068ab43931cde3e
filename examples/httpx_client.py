"""Protect an httpx client: a rejection is also an error of httpx, so existing `except` clauses hold."""

import asyncio
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

from resilience import CircuitBreaker, CircuitOpenError, Pipeline, Timeout
from resilience_httpx import ResilientTransport


class Broken(BaseHTTPRequestHandler):
    """Answers 500, always."""

    def do_GET(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


orders = Pipeline(Timeout(10), CircuitBreaker(minimum_calls=3, open_for=60), name="orders")


async def main(url: str) -> None:
    transport = ResilientTransport(orders, key="origin")
    async with httpx.AsyncClient(transport=transport, base_url=url) as client:
        for _ in range(4):
            try:
                response = await client.get("/orders/17")
                print(response.status_code)
            except httpx.TransportError as error:
                print("not sent:", isinstance(error, CircuitOpenError))


with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
    Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(main(f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()

# Prints:
# 500
# 500
# 500
# not sent: True
