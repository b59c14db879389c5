"""A ComfyUI that only sends messages: every websocket receives eight messages a second, at random times.

    with websocket_load() as port: ...            # in a separate process
    python -m bench.websocket_load                # prints its port; ends when its input does

`GET /prompt` returns the same response as ComfyUI.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator

from aiohttp import web

MESSAGES_PER_S = 8
STOP_LIMIT_S = 10.0
MESSAGE = json.dumps(
    {
        "type": "progress",
        "data": {"value": 7, "max": 20, "prompt_id": "6b3469c1-bf38-4e4e-b332-4eff3d136cd3", "node": "3"},
    }
)


@contextlib.contextmanager
def websocket_load() -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.websocket_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(STOP_LIMIT_S)
        process.stdout.close()


async def _talk(request: web.Request) -> web.WebSocketResponse:
    """Sends messages until the client disconnects."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    with contextlib.suppress(ConnectionError):
        while not socket.closed:
            await asyncio.sleep(random.uniform(0, 2 / MESSAGES_PER_S))
            await socket.send_str(MESSAGE)
    return socket


async def _answer(_request: web.Request) -> web.Response:
    return web.json_response({"exec_info": {"queue_remaining": 1}})


async def _main() -> None:
    app = web.Application()
    app.add_routes([web.get("/ws", _talk), web.get("/prompt", _answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main())
