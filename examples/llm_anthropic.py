"""Anthropic's limits under its own SDK: a limit of output tokens that is used up refuses before anything is sent."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import anthropic

from resilience import RateLimitedError
from resilience_llm import ANTHROPIC, LLMLimits, llm_client


class Api(BaseHTTPRequestHandler):
    """Stands in for the real one; is overloaded once."""

    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Api.requests += 1
        answer = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [{"type": "text", "text": "All well."}],
            "usage": {"input_tokens": 9, "output_tokens": 40},
        }
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        body = json.dumps(error if Api.requests == 1 else answer).encode()
        self.send_response(529 if Api.requests == 1 else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


async def main(url: str) -> None:
    limits = LLMLimits(ANTHROPIC, requests="600/min", output_tokens="100/100ms", margin=0, max_wait=5)
    async with anthropic.AsyncAnthropic(
        base_url=url, api_key="...", http_client=llm_client(limits), max_retries=0
    ) as client:
        for question in ("How are you?", "And now?"):
            answer = await client.messages.create(
                model="claude", max_tokens=100, messages=[{"role": "user", "content": question}]
            )
            print(answer.usage.output_tokens, "tokens")

    limits = LLMLimits(ANTHROPIC, output_tokens="100/day", max_wait=0)
    async with anthropic.AsyncAnthropic(
        base_url=url, api_key="...", http_client=llm_client(limits), max_retries=0
    ) as client:
        try:
            for _ in range(9):
                await client.messages.create(
                    model="claude", max_tokens=40, messages=[{"role": "user", "content": "Still?"}]
                )
        except anthropic.APIConnectionError as error:
            print("refused here:", isinstance(error.__cause__, RateLimitedError))
    print("requests that reached the provider:", Api.requests)


with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
    Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(main(f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()

# Prints:
# 40 tokens
# 40 tokens
# refused here: True
# requests that reached the provider: 5
