"""A door before the model endpoint that keeps what was asked, and when. It stands in the storm's own process."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import aiohttp
from aiohttp import web

from tests.chaos.audit import Asked, prompt_digest


class RecordingEndpoint:
    """Passes requests on to ``upstream()``; what cannot be reached is 502, as a real door would say."""

    def __init__(self, upstream: Callable[[], str]) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self._upstream = upstream
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(client_max_size=2**25)
        application.router.add_post("/v1/chat/completions", self._pass_on)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        self._client = aiohttp.ClientSession()

    async def stop(self) -> None:
        await self._client.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.Response:
        body, purpose = await request.read(), request.headers.get("X-Bilevel-Purpose", "")
        messages = [(m["role"], m["content"]) for m in json.loads(body)["messages"]]
        self.asked.append(Asked(time.time(), purpose, prompt_digest(messages)))
        headers = {"Content-Type": "application/json", "X-Bilevel-Purpose": purpose}
        try:
            url = f"http://{self._upstream()}/v1/chat/completions"
            async with self._client.post(url, data=body, headers=headers) as answer:
                return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")
        except aiohttp.ClientError as error:
            return web.json_response({"error": {"message": f"upstream: {type(error).__name__}"}}, status=502)
