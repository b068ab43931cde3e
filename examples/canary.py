"""Canary rollout: a new version gets 5 %, then half, then all; a user stays with a version."""

import asyncio
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx2

from resilience import Event, Pipeline, Retry
from resilience.events import ShadowAnswered
from resilience_httpx import Balanced, ResilientTransport, Shadow, Split


class Version(BaseHTTPRequestHandler):
    """Answers with its version."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet
    version = 0

    def do_GET(self) -> None:
        body = f"version {self.version}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(version: int) -> str:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Other", (Version,), {"version": version}))
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


async def main() -> None:
    copied = asyncio.Event()

    def listener(event: Event) -> None:
        if isinstance(event, ShadowAnswered) and event.status == 200:
            copied.set()

    split = Split(
        {"stable": Balanced([serve(1), serve(1), serve(1)]), "canary": Balanced([serve(2)])},
        weights={"stable": 1},
        key=lambda request: request.headers["user"],
        header="x-version",
        shadow=Shadow("canary", limit=20),
    )
    split.listen(listener)
    transport = ResilientTransport(Pipeline(Retry(), name="orders"), split)
    async with httpx2.AsyncClient(transport=transport, base_url="http://orders") as client:
        await client.get("/17", headers={"user": "ann"})
        await copied.wait()
        print("the canary answered a copy")
        response = await client.get("/17", headers={"user": "ann", "x-version": "canary"})
        print("asked for by name:", response.text)
        moved: set[int] = set()
        for part in (5, 50, 100):
            split.shift({"stable": 100 - part, "canary": part})
            answers = [await client.get("/17", headers={"user": f"user-{number}"}) for number in range(100)]
            now = {number for number, answer in enumerate(answers) if answer.text == "version 2"}
            counts = Counter(answer.extensions["resilience_route"] for answer in answers)
            print(f"{part} %:", counts["canary"], "users; nobody went back:", moved <= now)
            moved = now


asyncio.run(main())

# Prints:
# the canary answered a copy
# asked for by name: version 2
# 5 %: 5 users; nobody went back: True
# 50 %: 51 users; nobody went back: True
# 100 %: 100 users; nobody went back: True
