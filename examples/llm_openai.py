"""Keep OpenAI's limits under its own SDK: requests wait for their turn instead of coming back with a 429."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import openai

from resilience_llm import OPENAI, LLMLimits, llm_client

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
COMMON = {"id": "1", "created": 0, "model": "gpt-5"}


class Api(BaseHTTPRequestHandler):
    """Stands in for the real one."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked.get("stream"):
            kind = "text/event-stream"
            deltas: list[Any] = [
                {**COMMON, "choices": [{"index": 0, "delta": {"content": each}}]} for each in ("All ", "well.")
            ]
            deltas.append({**COMMON, "choices": [], "usage": USAGE})
            events = [json.dumps(each) for each in deltas]
            body = "".join(f"data: {each}\n\n" for each in [*events, "[DONE]"])
        else:
            kind = "application/json"
            message = {"role": "assistant", "content": "All well."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps({**COMMON, "object": "chat.completion", "choices": [choice], "usage": USAGE})
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


async def main(url: str) -> None:
    limits = LLMLimits(
        OPENAI, requests="500/min", tokens="30000/day", margin=0
    )  # store=RedisStore... for all processes
    client = openai.AsyncOpenAI(base_url=url, api_key="...", http_client=llm_client(limits), max_retries=0)
    async with client:
        answer = await client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "How are you?"}], max_completion_tokens=100
        )
        print(answer.choices[0].message.content)
        stream = await client.chat.completions.create(
            model="gpt-5",
            messages=[{"role": "user", "content": "And now?"}],
            max_completion_tokens=100,
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            print(*[choice.delta.content for choice in chunk.choices], end="")
    print()
    left = (await limits.limiter.peek(key="gpt-5")).remaining[1]
    print(f"tokens used: {30_000 - left:.0f}")


with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
    Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(main(f"http://127.0.0.1:{server.server_port}"))
    server.shutdown()

# Prints:
# All well.
# All well.
# tokens used: 24
