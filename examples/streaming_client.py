"""Stream server-sent events: a silent server is asked again, a stream that stops is ended, a client keeps its setup."""

import asyncio

import httpx2

from resilience import Backoff, Bulkhead, Pipeline, Retry
from resilience_httpx import StreamTimeout, protect

requests: list[str] = []
handlers: list[asyncio.Task[None] | None] = []


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send headers and nothing more to the first request; three events to the second, and then nothing more."""
    handlers.append(asyncio.current_task())
    requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    if len(requests) > 1:
        for number in range(3):
            writer.write(f"data: {number}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(0.01)
    await reader.read()  # until the client has had enough
    writer.close()
    await writer.wait_closed()


streams = Bulkhead(10)
chat = Pipeline(streams, Retry(2, backoff=Backoff.constant(0.01)), name="chat")


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = protect(
        httpx2.AsyncClient(timeout=None),
        chat,
        key="route",
        routes=["/chats/{id}/events"],
        stream_timeout=StreamTimeout(first=0.2, item=0.2),
        attempt_header="X-Attempt",
    )
    async with client, client.stream("GET", f"{url}/chats/17/events") as response:
        try:
            async for line in response.aiter_lines():
                if line:
                    print(line, "with permits in use:", streams.in_use(f"{url} /chats/{{id}}/events"))
        except httpx2.TimeoutException as error:
            print(error)
    print(len(requests), "requests, the last says", [line for line in requests[-1].splitlines() if "Attempt" in line])
    server.close()
    await asyncio.gather(*filter(None, handlers))


asyncio.run(main())

# Prints:
# data: 0 with permits in use: 1
# data: 1 with permits in use: 1
# data: 2 with permits in use: 1
# chat sent nothing within 0.2 s
# 2 requests, the last says ['X-Attempt: 2']
